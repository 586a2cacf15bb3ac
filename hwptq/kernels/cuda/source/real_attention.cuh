// Attention in float32 with one order of its sums: hwptq/quant/float_attention.py.
//
// A block takes QUERIES rows of queries of one head. 16 lanes score a position for all of them, each its sum of those
// that the order asks for; then a warp makes the exponentials of a row, and a thread the means of values of a channel,
// position by position. None looks at positions behind the last one that is shown to a query of the block.
//
// C has BATCH, HEADS, SHARED (heads of keys), ROWS, POSITIONS, DEPTH, WIDTH, QUERIES, THREADS, EMPTIES, FACTOR;
// MASK_BATCH and MASK_ROW, the strides of what hides.
#ifndef HWPTQ_REAL_ATTENTION
#define HWPTQ_REAL_ATTENTION

// Values that a thread reads before it adds them up.
#define HWPTQ_AHEAD 32

// Queries, keys and values in float32. A lane holds the elements lane, lane + 16, … of a row.
template <class C>
struct hwptq_reals {
  static constexpr int EACH = (C::DEPTH + HWPTQ_LANES - 1) / HWPTQ_LANES;
  const float *q, *k, *v;
  struct Row {
    float at[EACH];
  };

  static __device__ __forceinline__ Row read(const float* row, int lane) {
    Row found;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      int at = i * HWPTQ_LANES + lane;
      found.at[i] = at < C::DEPTH ? row[at] : 0.0f;
    }
    return found;
  }
  __device__ __forceinline__ Row query(hwptq_wide row, int lane) const { return read(q + row * C::DEPTH, lane); }
  __device__ __forceinline__ Row key(hwptq_wide row, int lane) const { return read(k + row * C::DEPTH, lane); }
  __device__ __forceinline__ float score(const Row& a, const Row& b, hwptq_wide, hwptq_wide, int lane) const {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i++)
      if (i * HWPTQ_LANES + lane < C::DEPTH) sum = __fmaf_rn(a.at[i], b.at[i], sum);
    return __fmul_rn(hwptq_real_sum(sum), C::FACTOR);
  }
  __device__ __forceinline__ float share(float e, hwptq_wide) const { return e; }
  __device__ __forceinline__ float value(hwptq_wide at) const { return v[at]; }
};

// Codes of rows that have a scale each.
template <class C>
struct hwptq_rows_of_codes {
  static constexpr int EACH = (C::DEPTH + HWPTQ_LANES - 1) / HWPTQ_LANES;
  const hwptq_int8 *q, *k, *v;
  const float *q_scale, *k_scale, *v_scale;
  struct Row {
    int at[EACH];
  };

  static __device__ __forceinline__ Row read(const hwptq_int8* row, int lane) {
    Row found;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      int at = i * HWPTQ_LANES + lane;
      found.at[i] = at < C::DEPTH ? row[at] : 0;
    }
    return found;
  }
  __device__ __forceinline__ Row query(hwptq_wide row, int lane) const { return read(q + row * C::DEPTH, lane); }
  __device__ __forceinline__ Row key(hwptq_wide row, int lane) const { return read(k + row * C::DEPTH, lane); }
  __device__ __forceinline__ float score(
      const Row& a, const Row& b, hwptq_wide query, hwptq_wide key, int) const {
    int sum = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) sum += a.at[i] * b.at[i];
    float real = (float)hwptq_sum(sum, HWPTQ_LANES);
    return __fmul_rn(__fmul_rn(real, k_scale[key]), __fmul_rn(q_scale[query], C::FACTOR));
  }
  __device__ __forceinline__ float share(float e, hwptq_wide key) const { return __fmul_rn(e, v_scale[key]); }
  __device__ __forceinline__ float value(hwptq_wide at) const { return (float)v[at]; }
};

template <class C, class T>
static __device__ __forceinline__ void hwptq_real_attention(const T& tensors, const hwptq_int8* hidden, float* y) {
  constexpr int TILES = (C::ROWS + C::QUERIES - 1) / C::QUERIES, WARPS = C::THREADS / 32;
  __shared__ float scores[C::QUERIES][C::POSITIONS];
  __shared__ float wholes[C::QUERIES];
  __shared__ int ends[C::QUERIES], furthest;
  int tile = blockIdx.x % TILES, head = blockIdx.x / TILES % C::HEADS, batch = blockIdx.x / TILES / C::HEADS;
  int first = tile * C::QUERIES, thread = threadIdx.x, lane = thread % 32;
  hwptq_wide queries = ((hwptq_wide)batch * C::HEADS + head) * C::ROWS;
  hwptq_wide keys = ((hwptq_wide)batch * C::SHARED + head / (C::HEADS / C::SHARED)) * C::POSITIONS;
  hidden += (hwptq_wide)batch * C::MASK_BATCH;

  if (thread == 0) furthest = 0;
  __syncthreads();
  int last = 0;
  for (int r = 0; r < min(C::QUERIES, C::ROWS - first); r++)
#pragma unroll 8
    for (int j = thread; j < C::POSITIONS; j += C::THREADS)
      if (hidden[(hwptq_wide)(first + r) * C::MASK_ROW + j] == 0) last = max(last, j + 1);
  last = hwptq_largest(last, 32);
  if (lane == 0 && last) atomicMax(&furthest, last);
  __syncthreads();
  int reach = furthest;

  constexpr int TEAMS = C::THREADS / HWPTQ_LANES;
  int own = thread % HWPTQ_LANES;
  typename T::Row asked[C::QUERIES];
#pragma unroll
  for (int r = 0; r < C::QUERIES; r++) asked[r] = tensors.query(queries + min(first + r, C::ROWS - 1), own);
#pragma unroll 4
  for (int begin = 0; begin < reach; begin += TEAMS) {
    int j = begin + thread / HWPTQ_LANES, key = min(j, reach - 1);
    bool any = false, shown[C::QUERIES];
#pragma unroll
    for (int r = 0; r < C::QUERIES; r++) {
      shown[r] = hidden[(hwptq_wide)min(first + r, C::ROWS - 1) * C::MASK_ROW + key] == 0;
      any = any || shown[r];
    }
    if (!__any_sync(HWPTQ_ALL, any)) {
#pragma unroll
      for (int r = 0; r < C::QUERIES; r++)
        if (own == 0 && j < reach) scores[r][j] = -INFINITY;
      continue;
    }
    typename T::Row row = tensors.key(keys + key, own);
#pragma unroll
    for (int r = 0; r < C::QUERIES; r++) {
      float score = tensors.score(asked[r], row, queries + min(first + r, C::ROWS - 1), keys + key, own);
      if (own == 0 && j < reach) scores[r][j] = shown[r] ? score : -INFINITY;
    }
  }
  __syncthreads();

  for (int r = thread / 32; r < C::QUERIES; r += WARPS) {
    float top = -INFINITY, total = 0.0f;
    int end = 0;
    for (int j = lane; j < reach; j += 32) {
      top = fmaxf(top, scores[r][j]);
      if (scores[r][j] != -INFINITY) end = j + 1;
    }
    top = hwptq_real_largest(top, 32);
    end = hwptq_largest(end, 32);
    bool none = end == 0;
    end = none ? C::POSITIONS : end;
    for (int j = lane; j < end; j += 32) {
      float s = none ? 1.0f : scores[r][j];
      scores[r][j] = none ? 1.0f : s == -INFINITY ? 0.0f : hwptq_real_exponential(__fadd_rn(s, -top));
    }
    __syncwarp();
    if (lane < HWPTQ_LANES)
      for (int j = lane; j < end; j += HWPTQ_LANES) total = __fadd_rn(total, scores[r][j]);
    total = hwptq_real_sum(total);
    if (lane == 0) {
      wholes[r] = none && C::EMPTIES ? 0.0f : __fdiv_rn(1.0f, total);
      ends[r] = end;
    }
    __syncwarp();
    for (int j = lane; j < end; j += 32) scores[r][j] = tensors.share(scores[r][j], keys + j);
  }
  __syncthreads();

  int behind = 0;
  for (int r = 0; r < min(C::QUERIES, C::ROWS - first); r++) behind = max(behind, ends[r]);
  for (int channel = thread; channel < C::WIDTH; channel += C::THREADS) {
    float sums[C::QUERIES];
#pragma unroll
    for (int r = 0; r < C::QUERIES; r++) sums[r] = 0.0f;
#pragma unroll 1
    for (int begin = 0; begin < behind; begin += HWPTQ_AHEAD) {
      float value[HWPTQ_AHEAD];
#pragma unroll
      for (int j = 0; j < HWPTQ_AHEAD; j++)
        value[j] = tensors.value((keys + min(begin + j, behind - 1)) * C::WIDTH + channel);
#pragma unroll
      for (int j = 0; j < HWPTQ_AHEAD; j++)
#pragma unroll
        for (int r = 0; r < C::QUERIES; r++) {
          float e = begin + j < ends[r] ? scores[r][begin + j] : 0.0f;
          sums[r] = e != 0.0f ? __fmaf_rn(e, value[j], sums[r]) : sums[r];
        }
    }
#pragma unroll
    for (int r = 0; r < C::QUERIES; r++)
      if (first + r < C::ROWS) y[(queries + first + r) * C::WIDTH + channel] = __fmaf_rn(sums[r], wholes[r], 0.0f);
  }
}

template <class C>
static __device__ __forceinline__ void hwptq_attention_in_float(
    const float* q, const float* k, const float* v, const hwptq_int8* hidden, float* y) {
  hwptq_real_attention<C>(hwptq_reals<C>{q, k, v}, hidden, y);
}

template <class C>
static __device__ __forceinline__ void hwptq_attention_on_rows(
    const hwptq_int8* q, const hwptq_int8* k, const hwptq_int8* v, const hwptq_int8* hidden, const float* q_scale,
    const float* k_scale, const float* v_scale, float* y) {
  hwptq_real_attention<C>(hwptq_rows_of_codes<C>{q, k, v, q_scale, k_scale, v_scale}, hidden, y);
}

#endif
