// Dense layers on weights with a scale for each group of inputs: hwptq/operators/group_dense.py.
//
// A block computes OUTS outputs of ROWS rows of x, CHUNK groups at a time: a lane the sums of a group, which go to
// shared memory; then a thread adds up those of an output, in the order of the groups.
//
// C has DEPTH, SIZE, GROUPS, BITS, WIDTH (bytes of a row of codes), OUTPUTS, ALL_ROWS, OUTS, ROWS, CHUNK (a multiple of
// 32), TOGETHER (groups whose codes a lane reads before it sums), WARPS, IN_WORDS
// (whether all groups are whole and lie in words: codes are then taken 32 at a time), ZEROS, and the levels of the
// patterns of up to 3 bits as bytes of LOW and HIGH; PLACE and BIAS, see hwptq/quant/group_codes.py; RESCALED, whether a
// sum is multiplied by the scale of its row, added to a bias and clamped to [LO, HI] (hwptq/operators/rows.py).
#ifndef HWPTQ_GROUP_DENSE
#define HWPTQ_GROUP_DENSE

template <class C>
static __device__ __forceinline__ float hwptq_group_scale(float scale) { return scale; }

template <class C, class S>
static __device__ __forceinline__ float hwptq_group_scale(S scale) {
  return __int_as_float(((int)scale << C::PLACE) + C::BIAS);
}

// The level of a pattern.
template <class C>
static __device__ __forceinline__ int hwptq_level(int pattern) {
  if (C::BITS <= 3) return (hwptq_int8)__byte_perm(C::LOW, C::HIGH, pattern);
  return pattern << (32 - C::BITS) >> (32 - C::BITS);
}

// 32 codes as levels, 8 words of 4 bytes: 8 bits as they lie, else those of even places of 8 and then those of odd ones.
// Levels of 4 bits are times 16.
template <class C>
static __device__ __forceinline__ void hwptq_levels(const hwptq_word (&codes)[C::BITS], hwptq_word (&levels)[8]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (C::BITS == 8) {
      levels[2 * i] = codes[2 * i % C::BITS], levels[2 * i + 1] = codes[(2 * i + 1) % C::BITS];
    } else if (C::BITS == 4) {
      levels[2 * i] = codes[i % C::BITS] << 4 & 0xf0f0f0f0u, levels[2 * i + 1] = codes[i % C::BITS] & 0xf0f0f0f0u;
    } else if (C::BITS == 3) {
      int at = 24 * i / 32, by = 24 * i % 32;
      hwptq_word eight = codes[at % C::BITS] >> by;
      if (by > 8) eight |= codes[(at + 1) % C::BITS] << (32 - by) % 32;
      hwptq_word even = (eight & 7) | (eight >> 2 & 0x70) | (eight >> 4 & 0x700) | (eight >> 6 & 0x7000);
      eight >>= 3;
      hwptq_word odd = (eight & 7) | (eight >> 2 & 0x70) | (eight >> 4 & 0x700) | (eight >> 6 & 0x7000);
      levels[2 * i] = __byte_perm(C::LOW, C::HIGH, even), levels[2 * i + 1] = __byte_perm(C::LOW, C::HIGH, odd);
    } else {
      hwptq_word eight = codes[i / 2 % C::BITS] >> i % 2 * 16;
      levels[2 * i] = __byte_perm(C::LOW, C::HIGH, eight & 0x3333);
      levels[2 * i + 1] = __byte_perm(C::LOW, C::HIGH, eight >> 2 & 0x3333);
    }
  }
}

// The sum of a group of x, from memory, one by one.
template <class C>
static __device__ __forceinline__ int hwptq_any_group(const hwptq_int8* x, const unsigned char* codes, int group, int zero) {
  int sum = 0, end = min(C::DEPTH, (group + 1) * C::SIZE);
  for (int at = group * C::SIZE; at < end; at++) {
    int place = at * C::BITS, last = (place + C::BITS - 1) / 8;
    int both = codes[place / 8] | (last > place / 8 ? codes[last] << 8 : 0);
    sum += x[at] * (hwptq_level<C>(both >> place % 8 & ((1 << C::BITS) - 1)) - zero);
  }
  return sum;
}

// A piece of a group: 32 codes in words.
template <class C>
struct hwptq_piece {
  hwptq_word words[C::BITS];

  __device__ __forceinline__ void load(const unsigned char* codes) {
    constexpr int TOGETHER = C::BITS % 4 == 0 ? 4 : C::BITS % 2 == 0 ? 2 : 1;
    typedef hwptq_pack<hwptq_word, TOGETHER> Pack;
#pragma unroll
    for (int i = 0; i < C::BITS / TOGETHER; i++) {
      Pack some = ((const Pack*)codes)[i];
#pragma unroll
      for (int e = 0; e < TOGETHER; e++) words[i * TOGETHER + e] = some.at[e];
    }
  }
};

// The sums of a group of ROWS rows, whose words lie in shared memory as hwptq_levels has them, `stride` words from one to
// the next.
template <class C>
static __device__ __forceinline__ void hwptq_group(
    const hwptq_word* x, int stride, const hwptq_piece<C> (&pieces)[C::SIZE / 32], int zero, int (&sums)[C::ROWS]) {
  int whole[C::ROWS] = {0};
#pragma unroll
  for (int r = 0; r < C::ROWS; r++) sums[r] = 0;
#pragma unroll
  for (int piece = 0; piece < C::SIZE / 32; piece++) {
    hwptq_word levels[8];
    hwptq_levels<C>(pieces[piece].words, levels);
#pragma unroll
    for (int r = 0; r < C::ROWS; r++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        hwptq_pack<hwptq_word, 4> four = ((const hwptq_pack<hwptq_word, 4>*)(x + r * stride + piece * 8))[i];
#pragma unroll
        for (int e = 0; e < 4; e++) {
          sums[r] = __dp4a((int)four.at[e], (int)levels[i * 4 + e], sums[r]);
          if (C::ZEROS) whole[r] = __dp4a((int)four.at[e], 0x01010101, whole[r]);
        }
      }
  }
#pragma unroll
  for (int r = 0; r < C::ROWS; r++) {
    if (C::BITS == 4) sums[r] >>= 4;
    if (C::ZEROS) sums[r] -= zero * whole[r];
  }
}

// The words of ROWS rows of x from group `begin` on into shared memory.
template <class C>
static __device__ __forceinline__ void hwptq_stage(const hwptq_int8* x, int row, int begin, hwptq_word* inputs) {
  constexpr int STRIDE = C::CHUNK * C::SIZE / 4, THREADS = 32 * C::WARPS;
  typedef hwptq_pack<hwptq_word, 2> Pair;
  int words = min(C::CHUNK, C::GROUPS - begin) * C::SIZE / 4;
#pragma unroll 4
  for (int i = threadIdx.x; i < C::ROWS * (STRIDE / 2); i += THREADS) {
    int r = i / (STRIDE / 2), at = i % (STRIDE / 2) * 2;
    if (at >= words) continue;
    hwptq_wide source = (hwptq_wide)min(row + r, C::ALL_ROWS - 1) * C::DEPTH + begin * C::SIZE + at * 4;
    Pair found = *(const Pair*)(x + source), kept = found;
    if (C::BITS != 8) {
      kept.at[0] = __byte_perm(found.at[0], found.at[1], 0x6420);
      kept.at[1] = __byte_perm(found.at[0], found.at[1], 0x7531);
    }
    *(Pair*)(inputs + r * STRIDE + at) = kept;
  }
}

// The groups whose codes a lane reads before it sums any: of one output after the other, numbered through.
template <class C, class S>
struct hwptq_groups {
  static constexpr int PIECES = C::SIZE / 32, ROUNDS = C::CHUNK / 32;
  static constexpr int ITEMS = (C::OUTS + C::WARPS - 1) / C::WARPS * ROUNDS;  // of a lane in a chunk
  hwptq_piece<C> pieces[C::TOGETHER][PIECES ? PIECES : 1];
  S scales[C::TOGETHER];
  int zeros[C::TOGETHER];

  static __device__ __forceinline__ int output(int item) { return threadIdx.x / 32 + item / ROUNDS * C::WARPS; }
  static __device__ __forceinline__ int at(int item) { return item % ROUNDS * 32 + threadIdx.x % 32; }

  __device__ __forceinline__ void load(
      const unsigned char* codes, const S* all_scales, const hwptq_int8* all_zeros, int first, int begin, int item) {
#pragma unroll
    for (int i = 0; i < C::TOGETHER; i++) {
      int o = min(first + output(item + i), C::OUTPUTS - 1), group = min(begin + at(item + i), C::GROUPS - 1);
      int number = o * C::GROUPS + group;
      scales[i] = all_scales[number], zeros[i] = C::ZEROS ? all_zeros[number] : 0;
#pragma unroll
      for (int piece = 0; C::IN_WORDS && piece < PIECES; piece++)
        pieces[i][piece].load(codes + (hwptq_wide)o * C::WIDTH + (group * PIECES + piece) * (4 * C::BITS));
    }
  }
};

template <class C, class S>
static __device__ __forceinline__ void hwptq_group_dense(
    const hwptq_int8* x, const float* row_scales, const unsigned char* codes, const S* scales, const hwptq_int8* zeros,
    const float* bias, float* y) {
  typedef hwptq_groups<C, S> Groups;
  constexpr int ACROSS = (C::OUTPUTS + C::OUTS - 1) / C::OUTS, THREADS = 32 * C::WARPS;
  constexpr int STRIDE = C::IN_WORDS ? C::CHUNK * C::SIZE / 4 : 4;
  static_assert(C::OUTS * C::ROWS <= THREADS, "a thread for each output");
  typedef hwptq_pack<float, 2> Term;  // the sum of a group and its scale
  alignas(16) __shared__ hwptq_word inputs[C::ROWS * STRIDE];
  __shared__ Term terms[C::OUTS * C::ROWS][C::CHUNK + 1];
  int thread = threadIdx.x, first = blockIdx.x % ACROSS * C::OUTS, row = blockIdx.x / ACROSS * C::ROWS;
  int own = thread % C::OUTS, own_row = thread / C::OUTS;
  float acc = 0.0f;
  Groups next;
  next.load(codes, scales, zeros, first, 0, 0);
#pragma unroll 1
  for (int begin = 0; begin < C::GROUPS; begin += C::CHUNK) {
    if (C::IN_WORDS) {
      hwptq_stage<C>(x, row, begin, inputs);
      __syncthreads();
    }
#pragma unroll 1
    for (int item = 0; item < Groups::ITEMS; item += C::TOGETHER) {
      Groups now = next;
      bool last = item + C::TOGETHER >= Groups::ITEMS;
      next.load(codes, scales, zeros, first, last ? begin + C::CHUNK : begin, last ? 0 : item + C::TOGETHER);
#pragma unroll
      for (int i = 0; i < C::TOGETHER; i++) {
        int o = Groups::output(item + i), at = Groups::at(item + i), group = begin + at, found[C::ROWS];
        if (group >= C::GROUPS || o >= C::OUTS || item + i >= Groups::ITEMS) continue;
        if constexpr (C::IN_WORDS) {
          hwptq_group<C>(inputs + at * (C::SIZE / 4), STRIDE, now.pieces[i], now.zeros[i], found);
        } else {
          const unsigned char* own_codes = codes + (hwptq_wide)min(first + o, C::OUTPUTS - 1) * C::WIDTH;
          for (int r = 0; r < C::ROWS; r++) {
            hwptq_wide source = (hwptq_wide)min(row + r, C::ALL_ROWS - 1) * C::DEPTH;
            found[r] = hwptq_any_group<C>(x + source, own_codes, group, now.zeros[i]);
          }
        }
        float scale = hwptq_group_scale<C>(now.scales[i]);
#pragma unroll
        for (int r = 0; r < C::ROWS; r++) terms[r * C::OUTS + o][at] = Term{{(float)found[r], scale}};
      }
    }
    __syncthreads();
    if (own_row < C::ROWS) {
      int count = min(C::CHUNK, C::GROUPS - begin);
#pragma unroll 16
      for (int g = 0; g < count; g++) acc = __fmaf_rn(terms[thread][g].at[0], terms[thread][g].at[1], acc);
    }
    __syncthreads();
  }
  if (own_row >= C::ROWS || row + own_row >= C::ALL_ROWS || first + own >= C::OUTPUTS) return;
  if (C::RESCALED) {
    acc = __fmaf_rn(acc, row_scales[row + own_row], bias[first + own]);
    if (C::HI < INFINITY) acc = fminf(acc, C::HI);
    if (C::LO > -INFINITY) acc = fmaxf(acc, C::LO);
  }
  y[(hwptq_wide)(row + own_row) * C::OUTPUTS + first + own] = acc;
}

template <class C, class S>
static __device__ __forceinline__ void hwptq_group_dense_alone(
    const hwptq_int8* x, const unsigned char* codes, const S* scales, float* y) {
  hwptq_group_dense<C>(x, (const float*)0, codes, scales, (const hwptq_int8*)0, (const float*)0, y);
}

template <class C, class S>
static __device__ __forceinline__ void hwptq_group_dense_zeros(
    const hwptq_int8* x, const unsigned char* codes, const S* scales, const hwptq_int8* zeros, float* y) {
  hwptq_group_dense<C>(x, (const float*)0, codes, scales, zeros, (const float*)0, y);
}

template <class C, class S>
static __device__ __forceinline__ void hwptq_group_dense_rescaled(
    const hwptq_int8* x, const float* row_scales, const unsigned char* codes, const S* scales, const float* bias,
    float* y) {
  hwptq_group_dense<C>(x, row_scales, codes, scales, (const hwptq_int8*)0, bias, y);
}

template <class C, class S>
static __device__ __forceinline__ void hwptq_group_dense_zeros_rescaled(
    const hwptq_int8* x, const float* row_scales, const unsigned char* codes, const S* scales, const hwptq_int8* zeros,
    const float* bias, float* y) {
  hwptq_group_dense<C>(x, row_scales, codes, scales, zeros, bias, y);
}

#endif
