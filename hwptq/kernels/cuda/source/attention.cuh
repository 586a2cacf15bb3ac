// Attention on int8: a product of queries and keys, its softmax, and a product with values, in one kernel.
//
// A block takes 16 * WARPS * ROUNDS queries of one head; its keys and values lie in shared memory, and the scores of
// 16 queries at a time in the registers of a warp. The second product sums over keys in another order than they lie
// in, so that probabilities are its operand where they are (values are stored in that order).
//
// A hidden score is so far below all others that its exponential is 0: its bounds are, where they would be those of
// the dtype. Where a difference of 2^15 has an exponential, it is set to 0.
//
// C has QUERIES, KEYS, PADDED (keys, a multiple of 32), DEPTH, WARPS, ROUNDS; ROW_OF_Q, _K, _V, _OUT (elements from one
// position to the next), q(head), k(head), v(head), out(head), hidden(head); MASKED, ROW_OF_HIDDEN and
// COLUMN_OF_HIDDEN; Q_ZERO, K_ZERO, V_ZERO; ALIKE, P_ALIKE; ENTRIES of `table`, the exponentials of 0 ... REACH, 0 =
// none; the numbers of the exponential; Scores and Values, each with MULTIPLIER, SHIFT, ZERO, LO and HI.
#ifndef HWPTQ_ATTENTION
#define HWPTQ_ATTENTION

// What follows from C: words of a row of keys and of values, of which no two meet in one bank; products of 8 keys, of
// 32 values of a key, and of 8 values.
template <class C>
struct hwptq_attention_form {
  static constexpr int KEY = C::DEPTH / 4 + 4, VALUE = C::PADDED / 4 + 4;
  static constexpr int TILES = C::PADDED / 8, STEPS = C::DEPTH / 32, ACROSS = C::DEPTH / 8;
  static constexpr bool BY_ROW = C::MASKED && C::ROW_OF_HIDDEN != 0;
};

// The scores of 16 queries, by a warp: of rows `rows`, whose keys lie in shared memory; and the largest of each row.
template <class C>
static __device__ __forceinline__ void hwptq_scores(
    const hwptq_int8* q, const hwptq_int8* hidden, const int rows[2], int lane, const hwptq_word* keys,
    const int* begins, const int* lows, const int* highs, int (&score)[hwptq_attention_form<C>::TILES][4],
    int top[2]) {
  typedef hwptq_attention_form<C> F;
  int g = lane / 4, t = lane % 4;
  hwptq_word a[F::STEPS][4];
  int row_sums[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < F::STEPS; i++)
    for (int part = 0; part < 4; part++) {
      int row = min(rows[part % 2], C::QUERIES - 1);
      a[i][part] = *(const hwptq_word*)(q + row * C::ROW_OF_Q + i * 32 + part / 2 * 16 + t * 4);
      row_sums[part % 2] = __dp4a((int)a[i][part], 0x01010101, row_sums[part % 2]);
    }
  for (int r = 0; r < 2; r++) row_sums[r] = C::K_ZERO ? hwptq_sum(row_sums[r], 4) * C::K_ZERO : 0;

  for (int r = 0; r < 2; r++) top[r] = -32768;
#pragma unroll
  for (int tile = 0; tile < F::TILES; tile++) {
    typedef hwptq_pack<int, 2> Pair;
    Pair start = *(const Pair*)(begins + tile * 8 + t * 2);
    Pair low = *(const Pair*)(lows + tile * 8 + t * 2), high = *(const Pair*)(highs + tile * 8 + t * 2);
    int sums[4];
    for (int e = 0; e < 4; e++) sums[e] = start.at[e % 2] - row_sums[e / 2];
#pragma unroll
    for (int i = 0; i < F::STEPS; i++) {
      const hwptq_word* b = keys + (tile * 8 + g) * F::KEY + i * 8 + t;
      hwptq_mma_signed(sums, a[i], b[0], b[4]);
    }
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int key = tile * 8 + t * 2 + e % 2;
      int found = hwptq_scaled_sum(sums[e], C::Scores::MULTIPLIER, C::Scores::SHIFT) + C::Scores::ZERO;
      score[tile][e] = min(max(found, low.at[e % 2]), high.at[e % 2]);
      if (F::BY_ROW && key < C::KEYS &&
          hidden[min(rows[e / 2], C::QUERIES - 1) * C::ROW_OF_HIDDEN + key * C::COLUMN_OF_HIDDEN])
        score[tile][e] = HWPTQ_HIDDEN;
      top[e / 2] = max(top[e / 2], score[tile][e]);
    }
  }
  for (int r = 0; r < 2; r++) top[r] = hwptq_largest(top[r], 4);
}

// Scores become exponentials; of each row the reciprocal of their sum, and what is added to a probability.
template <class C>
static __device__ __forceinline__ void hwptq_exponentials(
    int (&score)[hwptq_attention_form<C>::TILES][4], const int top[2], const short* table, int reciprocal[2],
    int added[2]) {
  int total[2] = {0, 0};
#pragma unroll
  for (int tile = 0; tile < hwptq_attention_form<C>::TILES; tile++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int difference = top[e / 2] - score[tile][e];
      int found = C::ENTRIES ? table[min(difference, C::REACH)] : hwptq_exponential<C>(difference);
      score[tile][e] = C::REACH > 32768 && score[tile][e] == HWPTQ_HIDDEN ? 0 : found;
      total[e / 2] += score[tile][e];
    }
  for (int r = 0; r < 2; r++) {
    total[r] = hwptq_sum(total[r], 4);
    reciprocal[r] = total[r] ? (1 << 30) / total[r] : 0;
    added[r] = C::ALIKE && !total[r] ? C::P_ALIKE : 0;
  }
}

// Products of probabilities and values in shared memory, and the sums of probabilities times the values' zero.
template <class C>
static __device__ __forceinline__ void hwptq_mix(
    const int (&exponential)[hwptq_attention_form<C>::TILES][4], const int reciprocal[2], const int added[2], int lane,
    const hwptq_word* values, int (&found)[hwptq_attention_form<C>::ACROSS][4], int p_sums[2]) {
  typedef hwptq_attention_form<C> F;
  int g = lane / 4, t = lane % 4;
  p_sums[0] = p_sums[1] = 0;
#pragma unroll
  for (int i = 0; i < F::ACROSS; i++)
    for (int e = 0; e < 4; e++) found[i][e] = 0;
#pragma unroll
  for (int step = 0; step < C::PADDED / 32; step++) {
    hwptq_word p[4];
#pragma unroll
    for (int part = 0; part < 4; part++) {
      int r = part % 2;
      hwptq_word one[4];
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int tile = step * 4 + part / 2 * 2 + e / 2;
        one[e] = hwptq_probability(exponential[tile][r * 2 + e % 2], reciprocal[r]);
        if (C::ALIKE && tile * 8 + t * 2 + e % 2 < C::KEYS) one[e] += added[r];
      }
      p[part] = __byte_perm(__byte_perm(one[0], one[1], 0x0040), __byte_perm(one[2], one[3], 0x0040), 0x5410);
      p_sums[r] = (int)__dp4a(p[part], 0x01010101u, (hwptq_word)p_sums[r]);
    }
#pragma unroll
    for (int i = 0; i < F::ACROSS; i++) {
      const hwptq_word* b = values + (i * 8 + g) * F::VALUE + step * 8 + t;
      hwptq_mma_unsigned(found[i], p, b[0], b[4]);
    }
  }
  if (C::V_ZERO)
    for (int r = 0; r < 2; r++) p_sums[r] = hwptq_sum(p_sums[r], 4) * C::V_ZERO;
}

// 16 queries from `begin` on, by a warp, from what lies in shared memory.
template <class C>
static __device__ __forceinline__ void hwptq_attend(
    const hwptq_int8* q, const hwptq_int8* hidden, hwptq_int8* out, int begin, int lane, const hwptq_word* keys,
    const hwptq_word* values, const int* begins, const int* lows, const int* highs, const short* table) {
  typedef hwptq_attention_form<C> F;
  int rows[2] = {begin + lane / 4, begin + lane / 4 + 8};
  int score[F::TILES][4], top[2], reciprocal[2], added[2];
  hwptq_scores<C>(q, hidden, rows, lane, keys, begins, lows, highs, score, top);
  hwptq_exponentials<C>(score, top, table, reciprocal, added);
  int found[F::ACROSS][4], p_sums[2];
  hwptq_mix<C>(score, reciprocal, added, lane, values, found, p_sums);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    if (rows[r] >= C::QUERIES) continue;
#pragma unroll
    for (int i = 0; i < F::ACROSS; i++) {
      hwptq_pack<hwptq_int8, 2> pair;
#pragma unroll
      for (int e = 0; e < 2; e++) {
        int acc = found[i][r * 2 + e];
        if (C::V_ZERO) acc -= p_sums[r];
        pair.at[e] = (hwptq_int8)hwptq_requantize<typename C::Values>(acc, C::Values::MULTIPLIER, C::Values::SHIFT);
      }
      *(hwptq_pack<hwptq_int8, 2>*)(out + rows[r] * C::ROW_OF_OUT + i * 8 + lane % 4 * 2) = pair;
    }
  }
}

template <class C>
static __device__ __forceinline__ void hwptq_attention(
    const hwptq_int8* q, const hwptq_int8* k, const hwptq_int8* v, const hwptq_int8* hidden, const short* table,
    hwptq_int8* out) {
  constexpr int ROWS = 16 * C::WARPS * C::ROUNDS, BLOCKS = (C::QUERIES + ROWS - 1) / ROWS, THREADS = 32 * C::WARPS;
  typedef hwptq_attention_form<C> F;
  alignas(16) __shared__ hwptq_word keys[C::PADDED * F::KEY];
  alignas(16) __shared__ hwptq_word values[C::DEPTH * F::VALUE];
  alignas(16) __shared__ int begins[C::PADDED], lows[C::PADDED], highs[C::PADDED];  // of the sums of a key
  alignas(16) __shared__ short exponentials[C::ENTRIES + 8];
  int head = blockIdx.x / BLOCKS, first = blockIdx.x % BLOCKS * ROWS, thread = threadIdx.x;
  q += C::q(head), k += C::k(head), v += C::v(head), out += C::out(head);
  if (C::MASKED) hidden += C::hidden(head);

  for (int key = thread; key < C::PADDED; key += THREADS) {
    int sum = 0;
#pragma unroll
    for (int i = 0; i < C::DEPTH / 16; i++) {
      hwptq_pack<hwptq_word, 4> part = {{0, 0, 0, 0}};
      if (key < C::KEYS) part = *(const hwptq_pack<hwptq_word, 4>*)(k + key * C::ROW_OF_K + i * 16);
      *(hwptq_pack<hwptq_word, 4>*)(keys + key * F::KEY + i * 4) = part;
      for (int e = 0; e < 4; e++) sum = __dp4a((int)part.at[e], 0x01010101, sum);
    }
    begins[key] = C::Q_ZERO * (C::DEPTH * C::K_ZERO - sum);
    bool none = key >= C::KEYS || (C::MASKED && !F::BY_ROW && hidden[key * C::COLUMN_OF_HIDDEN] != 0);
    lows[key] = none ? HWPTQ_HIDDEN : C::Scores::LO;
    highs[key] = none ? HWPTQ_HIDDEN : C::Scores::HI;
  }
  for (int i = thread; i < C::PADDED / 4 * (C::DEPTH / 4); i += THREADS) {
    int depth = i % (C::DEPTH / 4), four = i / (C::DEPTH / 4);
    hwptq_word row[4], column[4];
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int key = four / 4 * 16 + e / 2 * 8 + four % 4 * 2 + e % 2;
      row[e] = key < C::KEYS ? *(const hwptq_word*)(v + key * C::ROW_OF_V + depth * 4) : 0;
    }
    hwptq_transpose(row, column);
    for (int e = 0; e < 4; e++) values[(depth * 4 + e) * F::VALUE + four] = column[e];
  }
  for (int i = thread; i < C::ENTRIES / 8; i += THREADS)
    ((hwptq_pack<short, 8>*)exponentials)[i] = ((const hwptq_pack<short, 8>*)table)[i];
  __syncthreads();

  int lane = thread % 32;
#pragma unroll 1
  for (int begin = first + thread / 32 * 16; begin < min(first + ROWS, C::QUERIES); begin += 16 * C::WARPS)
    hwptq_attend<C>(q, hidden, out, begin, lane, keys, values, begins, lows, highs, exponentials);
}

// Without what there is not.
template <class C>
static __device__ __forceinline__ void hwptq_attention_masked(
    const hwptq_int8* q, const hwptq_int8* k, const hwptq_int8* v, const hwptq_int8* hidden, hwptq_int8* out) {
  hwptq_attention<C>(q, k, v, hidden, (const short*)0, out);
}

template <class C>
static __device__ __forceinline__ void hwptq_attention_by_table(
    const hwptq_int8* q, const hwptq_int8* k, const hwptq_int8* v, const short* table, hwptq_int8* out) {
  hwptq_attention<C>(q, k, v, (const hwptq_int8*)0, table, out);
}

template <class C>
static __device__ __forceinline__ void hwptq_attention_plain(
    const hwptq_int8* q, const hwptq_int8* k, const hwptq_int8* v, hwptq_int8* out) {
  hwptq_attention<C>(q, k, v, (const hwptq_int8*)0, (const short*)0, out);
}

#endif
