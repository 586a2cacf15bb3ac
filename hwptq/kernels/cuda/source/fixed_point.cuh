// Fixed point as hwptq/quant/fixed_point.py has it.
#ifndef HWPTQ_FIXED_POINT
#define HWPTQ_FIXED_POINT

typedef signed char hwptq_int8;
typedef unsigned int hwptq_word;
typedef long long hwptq_wide;

#define HWPTQ_ALL 0xffffffffu

// (value + 2^(shift-1)) >> shift
static __device__ __forceinline__ int hwptq_rounding_shift(int value, int shift) {
  return (value + (1 << (shift - 1))) >> shift;
}

static __device__ __forceinline__ int hwptq_clamp(int value, int lo, int hi) {
  return min(max(value, lo), hi);
}

// acc * multiplier in steps of 2^-31, then a rounding shift; |acc| < 2^30, so it may be doubled, and both steps are a
// shift of the upper word of a sum.
static __device__ __forceinline__ int hwptq_scaled_sum(int acc, int multiplier, int shift) {
  hwptq_wide product = (hwptq_wide)(acc + acc) * multiplier + (0x80000000LL + (1LL << (31 + shift)));
  return (int)(product >> 32) >> shift;
}

// The same with zero point and bounds: OUT has ZERO, LO and HI.
template <class OUT>
static __device__ __forceinline__ int hwptq_requantize(int acc, int multiplier, int shift) {
  return hwptq_clamp(hwptq_scaled_sum(acc, multiplier, shift) + OUT::ZERO, OUT::LO, OUT::HI);
}

static __device__ __forceinline__ int hwptq_sum(int value, int lanes) {
  for (int other = lanes / 2; other; other /= 2) value += __shfl_xor_sync(HWPTQ_ALL, value, other);
  return value;
}

static __device__ __forceinline__ hwptq_wide hwptq_wide_sum(hwptq_wide value, int lanes) {
  for (int other = lanes / 2; other; other /= 2) value += __shfl_xor_sync(HWPTQ_ALL, value, other);
  return value;
}

static __device__ __forceinline__ int hwptq_largest(int value, int lanes) {
  for (int other = lanes / 2; other; other /= 2) value = max(value, __shfl_xor_sync(HWPTQ_ALL, value, other));
  return value;
}

// Neighbouring values in one access.
template <class V, int N>
struct alignas(sizeof(V) * N) hwptq_pack {
  V at[N];
};

#endif
