// float32 in a defined order, each operation rounded once: hwptq/quant/float_attention.py.
#ifndef HWPTQ_REAL
#define HWPTQ_REAL

// Sums that a sum is made of: element i belongs to i mod 16.
#define HWPTQ_LANES 16

// exp(x), x <= 0
static __device__ __forceinline__ float hwptq_real_exponential(float x) {
  x = fmaxf(x, -86.0f);
  float shifted = __fmaf_rn(x, 1.44269504088896341f, 12582912.0f), n = __fadd_rn(shifted, -12582912.0f);
  float rest = __fmaf_rn(n, 2.12194440e-4f, __fmaf_rn(n, -0.693359375f, x));
  float value = __fmaf_rn(1.9875691500e-4f, rest, 1.3981999507e-3f);
  value = __fmaf_rn(value, rest, 8.3334519073e-3f);
  value = __fmaf_rn(value, rest, 4.1665795894e-2f);
  value = __fmaf_rn(value, rest, 1.6666665459e-1f);
  value = __fmaf_rn(value, rest, 5.0000001201e-1f);
  value = __fadd_rn(__fmaf_rn(value, __fmul_rn(rest, rest), rest), 1.0f);
  return __int_as_float((int)((unsigned)__float_as_int(value) + ((unsigned)__float_as_int(shifted) << 23)));
}

// LANES sums of a lane each, added by halves; every lane has the sum
static __device__ __forceinline__ float hwptq_real_sum(float value) {
  for (int other = HWPTQ_LANES / 2; other; other /= 2)
    value = __fadd_rn(value, __shfl_xor_sync(HWPTQ_ALL, value, other));
  return value;
}

// The same of sums that one thread has
static __device__ __forceinline__ float hwptq_by_halves(const float (&sums)[HWPTQ_LANES]) {
  float left[HWPTQ_LANES];
  for (int i = 0; i < HWPTQ_LANES; i++) left[i] = sums[i];
#pragma unroll
  for (int half = HWPTQ_LANES / 2; half; half /= 2)
#pragma unroll
    for (int i = 0; i < HWPTQ_LANES / 2; i++)
      if (i < half) left[i] = __fadd_rn(left[i], left[i + half]);
  return left[0];
}

static __device__ __forceinline__ float hwptq_real_largest(float value, int lanes) {
  for (int other = lanes / 2; other; other /= 2) value = fmaxf(value, __shfl_xor_sync(HWPTQ_ALL, value, other));
  return value;
}

#endif
