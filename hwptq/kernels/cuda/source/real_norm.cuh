// Norms of rows in float32, 16 lanes for each: hwptq/quant/float_norm.py.
//
// C has COUNT, ROWS, WARPS, SIZE (COUNT), SHARE (1 / COUNT) and EPS.
#ifndef HWPTQ_REAL_NORM
#define HWPTQ_REAL_NORM

template <class C, bool CENTERED>
static __device__ __forceinline__ void hwptq_real_norm(const float* x, const float* gamma, const float* beta, float* y) {
  int lane = threadIdx.x % HWPTQ_LANES, row = (blockIdx.x * C::WARPS * 32 + threadIdx.x) / HWPTQ_LANES;
  bool exists = row < C::ROWS;
  x += (hwptq_wide)(exists ? row : 0) * C::COUNT;
  y += (hwptq_wide)row * C::COUNT;
  float mean = 0.0f, total = 0.0f;
  if (CENTERED) {
#pragma unroll 8
    for (int at = lane; at < C::COUNT; at += HWPTQ_LANES) total = __fadd_rn(total, x[at]);
    mean = __fdiv_rn(hwptq_real_sum(total), C::SIZE);
    total = 0.0f;
  }
#pragma unroll 8
  for (int at = lane; at < C::COUNT; at += HWPTQ_LANES) {
    float d = CENTERED ? __fadd_rn(x[at], -mean) : x[at];
    total = __fmaf_rn(d, d, total);
  }
  float factor = __fdiv_rn(1.0f, __fsqrt_rn(__fmaf_rn(hwptq_real_sum(total), C::SHARE, C::EPS)));
  if (!exists) return;
#pragma unroll 8
  for (int at = lane; at < C::COUNT; at += HWPTQ_LANES) {
    float d = __fmul_rn(CENTERED ? __fadd_rn(x[at], -mean) : x[at], factor);
    y[at] = CENTERED ? __fmaf_rn(d, gamma[at], beta[at]) : __fmul_rn(d, gamma[at]);
  }
}

template <class C>
static __device__ __forceinline__ void hwptq_real_layer_norm(
    const float* x, const float* gamma, const float* beta, float* y) {
  hwptq_real_norm<C, true>(x, gamma, beta, y);
}

template <class C>
static __device__ __forceinline__ void hwptq_real_rms_norm(const float* x, const float* gamma, float* y) {
  hwptq_real_norm<C, false>(x, gamma, (const float*)0, y);
}

#endif
