// Codes and scales of rows, of norms of rows, and of norms of sums, a block for each row: hwptq/operators/rows.py and
// hwptq/quant/float_norm.py.
//
// C has COUNT, THREADS, ADDS (before a norm), NORM (0 = none, 1 = of squares, 2 = centered), KEEPS_SUM, KEEPS, LEAST, MOST and QMAX; of a
// norm SIZE (COUNT), SHARE (1 / COUNT) and EPS.
#ifndef HWPTQ_ROW_CODES
#define HWPTQ_ROW_CODES

// LANES sums of a row, by the first warp, in the order of its elements; every thread has their sum.
template <class C, bool SQUARES>
static __device__ __forceinline__ float hwptq_row_total(const float* row, float mean, float* shared) {
  if (threadIdx.x < 32) {
    int lane = threadIdx.x % HWPTQ_LANES;
    float total = 0.0f;
#pragma unroll 16
    for (int at = lane; at < C::COUNT; at += HWPTQ_LANES) {
      float d = C::NORM == 2 && SQUARES ? __fadd_rn(row[at], -mean) : row[at];
      total = SQUARES ? __fmaf_rn(d, d, total) : __fadd_rn(total, d);
    }
    total = hwptq_real_sum(total);
    if (threadIdx.x == 0) *shared = total;
  }
  __syncthreads();
  return *shared;
}

template <class C>
static __device__ __forceinline__ void hwptq_row_codes(
    const float* x, const float* other, const float* gamma, const float* beta, float* sum, float* normed,
    hwptq_int8* codes, float* scales) {
  __shared__ float row[C::NORM ? C::COUNT : 1], totals[2], tops[32];
  hwptq_wide first = (hwptq_wide)blockIdx.x * C::COUNT;
  int thread = threadIdx.x;
  for (int at = thread; C::NORM && at < C::COUNT; at += C::THREADS) {
    float value = C::ADDS ? __fadd_rn(x[first + at], other[first + at]) : x[first + at];
    if (C::KEEPS_SUM) sum[first + at] = value;
    row[at] = value;
  }
  if (C::NORM) __syncthreads();
  float reach = C::LEAST, mean = 0.0f, factor = 1.0f;
  if (C::NORM == 2) mean = __fdiv_rn(hwptq_row_total<C, false>(row, 0.0f, totals), C::SIZE);
  if (C::NORM) {
    float squares = hwptq_row_total<C, true>(row, mean, totals + 1);
    factor = __fdiv_rn(1.0f, __fsqrt_rn(__fmaf_rn(squares, C::SHARE, C::EPS)));
  }
#pragma unroll 4
  for (int at = thread; at < C::COUNT; at += C::THREADS) {
    float value = C::NORM ? row[at] : x[first + at];
    if (C::NORM) {
      value = __fmul_rn(C::NORM == 2 ? __fadd_rn(value, -mean) : value, factor);
      value = C::NORM == 2 ? __fmaf_rn(value, gamma[at], beta[at]) : __fmul_rn(value, gamma[at]);
      if (C::KEEPS) normed[first + at] = value;
      row[at] = value;
    }
    reach = fmaxf(reach, fabsf(value));
  }
  reach = hwptq_real_largest(reach, 32);
  if (thread % 32 == 0) tops[thread / 32] = reach;
  __syncthreads();
  for (int warp = 0; warp < C::THREADS / 32; warp++) reach = fmaxf(reach, tops[warp]);
  float scale = __fdiv_rn(fminf(reach, C::MOST), C::QMAX), inverse = __fdiv_rn(1.0f, scale);
  if (thread == 0) scales[blockIdx.x] = scale;
#pragma unroll 4
  for (int at = thread; at < C::COUNT; at += C::THREADS) {
    float steps = rintf(__fmul_rn(C::NORM ? row[at] : x[first + at], inverse));
    codes[first + at] = (hwptq_int8)(int)fminf(fmaxf(steps, -C::QMAX), C::QMAX);
  }
}

// What it is called with: x, the other summand, gamma and beta where there are any; the sum and the norm where they are
// kept, codes, scales.
template <class C, class... P>
static __device__ __forceinline__ void hwptq_row_codes_of(P*... pointers) {
  void* all[] = {(void*)pointers...};
  int at = 0;
  const float* x = (const float*)all[at++];
  const float* other = C::ADDS ? (const float*)all[at++] : x;
  const float* gamma = C::NORM ? (const float*)all[at++] : x;
  const float* beta = C::NORM == 2 ? (const float*)all[at++] : x;
  float* sum = C::KEEPS_SUM ? (float*)all[at++] : (float*)0;
  float* normed = C::KEEPS ? (float*)all[at++] : (float*)0;
  hwptq_int8* codes = (hwptq_int8*)all[at++];
  hwptq_row_codes<C>(x, other, gamma, beta, sum, normed, codes, (float*)all[at]);
}

#endif
