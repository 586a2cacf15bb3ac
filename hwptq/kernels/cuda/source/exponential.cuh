// The exponentials of hwptq/quant/integer_softmax.py. E has FACTOR, SHIFT, REACH, the numbers of exponent().
#ifndef HWPTQ_EXPONENTIAL
#define HWPTQ_EXPONENTIAL

// The score of what is hidden: below that of any int16.
#define HWPTQ_HIDDEN (-65536)

// c - ((u * f + 2^14) >> 15), given -f: so it is a sum with an upper word
static __device__ __forceinline__ int hwptq_horner(int c, int u, int minus_f) {
  return c + ((u * minus_f + ((1 << 14) - 1)) >> 15);
}

// e of a difference, not negative; 0 from E::REACH on
template <class E>
static __device__ __forceinline__ int hwptq_exponential(int difference) {
  constexpr int MOST = (E::REACH * E::FACTOR + ((1 << E::SHIFT) >> 1)) >> E::SHIFT >> 15;
  int t = min(difference, E::REACH) * E::FACTOR;
  if (E::SHIFT) t = (t + ((1 << E::SHIFT) >> 1)) >> E::SHIFT;
  int f = -(t & 0x7fff), whole = MOST > 30 ? min(t >> 15, 30) : t >> 15;
  int u = hwptq_horner(1773, 240, f);
  u = hwptq_horner(7862, u, f);
  u = hwptq_horner(22713, u, f);
  u = hwptq_horner(32767, u, f);
  return (((u + u) >> whole) + 1) >> 1;
}

// e as a probability in steps of 1/256; reciprocal: floor(2^30 / sum)
static __device__ __forceinline__ int hwptq_probability(int e, int reciprocal) {
  return min((e * reciprocal + (1 << 21)) >> 22, 255);
}

#endif
