// Norms of rows, LANES of a warp for each, also of the sum of two tensors: hwptq/quant/integer_norm.py.
//
// C has COUNT, ROWS, WARPS, LANES, CENTERED, BITS, ROOM, SHIFT, EPS, BITS_OF_SHIFT; Out with ZERO, LO and HI; Sum, of the
// addition before the norm, with IS (whether there is one), ROWS (of its second operand) and the fields of
// operators/add.py; Bytes, of the same values in another scale, with IS and the fields of operators/rescale.py;
// KEEPS_SUM and KEEPS: whether the sum and the norm are stored.
#ifndef HWPTQ_NORM
#define HWPTQ_NORM

static __device__ __forceinline__ hwptq_wide hwptq_root(hwptq_wide x) {  // floor(sqrt(x)), x < 2^62
  hwptq_wide root = (hwptq_wide)sqrt((double)x);
  if (root * root > x) root--;
  if ((root + 1) * (root + 1) <= x) root++;
  return root;
}

// a / b of positive numbers, a < 2^62, the quotient below 2^34; as doubles it is off by one at most
static __device__ __forceinline__ hwptq_wide hwptq_quotient(hwptq_wide a, hwptq_wide b) {
  hwptq_wide quotient = (hwptq_wide)((double)a / (double)b), rest = a - quotient * b;
  return quotient + (rest >= b) - (rest < 0);
}

// A value x is normalized by (upper word of (x * scale - offset) * factor + 2^31) in steps of 2^-shift: twice d, of
// which |d| < 2^30, is the difference.
struct hwptq_row {
  int scale, offset, factor, shift, half;
};

// That of a row, from its sum and that of its squares.
template <class C>
static __device__ __forceinline__ hwptq_row hwptq_row_of(hwptq_wide total, hwptq_wide squares) {
  hwptq_row row;
  hwptq_wide twice = total * (1LL << (C::BITS + 1)) + C::COUNT, mean = twice / (2 * C::COUNT);
  mean -= twice % (2 * C::COUNT) < 0;
  hwptq_wide variance = max(C::COUNT * squares - total * total + C::EPS, 1LL);
  int twofold = (__clzll(variance) - 2) >> 1;
  hwptq_wide root = hwptq_root(variance << (2 * twofold));
  hwptq_wide quotient = hwptq_quotient((hwptq_wide)C::COUNT << (C::ROOM + 31), root);
  int once = quotient >= (1LL << 31), shift = C::BITS_OF_SHIFT - twofold - once;
  int lift = hwptq_clamp(1 - shift, 0, 20) + 1;
  row.factor = (int)(quotient >> once);
  row.shift = hwptq_clamp(shift, 1, 31);
  row.half = 1 << (row.shift - 1);
  row.scale = C::BITS + lift < 32 ? (int)(1u << (C::BITS + lift)) : 0;  // all is modulo 2^32, where d fits
  row.offset = (int)(mean << lift);
  return row;
}

// Upper word of twice a value times a multiplier, rounded: (value * multiplier + 2^30) >> 31.
static __device__ __forceinline__ int hwptq_upper(int twice, int multiplier) {
  return (int)(((hwptq_wide)twice * multiplier + 0x80000000LL) >> 32);
}

// What follows from C: the neighbours that a lane takes at once, and how often it takes some.
template <class C>
struct hwptq_norm_form {
  static constexpr int N = C::COUNT % 4 ? 1 : C::COUNT % 8 ? 4 : 8;
  static constexpr int EACH = (C::COUNT + C::LANES * N - 1) / (C::LANES * N);
};

// The values of a lane, those of x or of the sum, which is stored where it is kept; their sum and that of squares.
template <class C, class X, class A>
static __device__ __forceinline__ void hwptq_norm_values(
    const X* x, const A* other, short* sum, hwptq_wide number, bool exists,
    int (&value)[hwptq_norm_form<C>::EACH * hwptq_norm_form<C>::N], int& total, hwptq_wide& squares) {
  constexpr int N = hwptq_norm_form<C>::N;
  typedef hwptq_pack<X, N> Source;
  typedef hwptq_pack<A, N> Other;
  int lane = threadIdx.x % C::LANES;
  total = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < hwptq_norm_form<C>::EACH; i++) {
    int at = (i * C::LANES + lane) * N;
    bool inside = at < C::COUNT;
    Source found;
    Other second;
    if (inside) found = *(const Source*)(x + number * C::COUNT + at);
    if (inside && C::Sum::IS) second = *(const Other*)(other + (number % C::Sum::ROWS) * C::COUNT + at);
#pragma unroll
    for (int e = 0; e < N; e++) {
      int v = 0;
      if (inside) {
        v = found.at[e];
        if (C::Sum::IS) {
          int acc = (v - C::Sum::A_ZERO) * C::Sum::A_FACTOR + (second.at[e] - C::Sum::B_ZERO) * C::Sum::B_FACTOR;
          v = hwptq_requantize<typename C::Sum>(acc, C::Sum::MULTIPLIER, C::Sum::SHIFT);
        }
      }
      value[i * N + e] = v;
      total += v;
      squares += (hwptq_wide)v * v;
    }
    if (C::KEEPS_SUM && inside && exists) {
      hwptq_pack<short, N> stored;
      for (int e = 0; e < N; e++) stored.at[e] = (short)value[i * N + e];
      *(hwptq_pack<short, N>*)(sum + number * C::COUNT + at) = stored;
    }
  }
}

template <class C, class X, class A, class Y>
static __device__ __forceinline__ void hwptq_norm(
    const X* x, const A* other, const int* multiplier, const int* bias, short* sum, Y* y, hwptq_int8* bytes) {
  constexpr int N = hwptq_norm_form<C>::N, EACH = hwptq_norm_form<C>::EACH;
  typedef hwptq_pack<int, N> Factors;
  int lane = threadIdx.x % C::LANES;
  hwptq_wide number = (blockIdx.x * (32 * C::WARPS) + threadIdx.x) / C::LANES;
  bool exists = number < C::ROWS;  // all lanes of a warp meet where sums are exchanged
  if (!exists) number = 0;
  int value[EACH * N], total;
  hwptq_wide squares;
  hwptq_norm_values<C>(x, other, sum, number, exists, value, total, squares);
  total = C::CENTERED ? hwptq_sum(total, C::LANES) : 0;
  hwptq_row row = hwptq_row_of<C>(total, hwptq_wide_sum(squares, C::LANES));
  if (!exists) return;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int at = (i * C::LANES + lane) * N;
    if (at >= C::COUNT) continue;
    Factors by = *(const Factors*)(multiplier + at), added = *(const Factors*)(bias + at);
    hwptq_pack<Y, N> whole;
    hwptq_pack<hwptq_int8, N> narrow;
#pragma unroll
    for (int e = 0; e < N; e++) {
      int n = (hwptq_upper(value[i * N + e] * row.scale - row.offset, row.factor) + row.half) >> row.shift;
      int v = hwptq_upper(n + n, by.at[e]) + added.at[e];
      int out = hwptq_clamp(hwptq_rounding_shift(v, C::SHIFT) + C::Out::ZERO, C::Out::LO, C::Out::HI);
      whole.at[e] = (Y)out;
      if (C::Bytes::IS)
        narrow.at[e] = (hwptq_int8)hwptq_requantize<typename C::Bytes>(out << 14, C::Bytes::MULTIPLIER, C::Bytes::SHIFT);
    }
    if (C::KEEPS) *(hwptq_pack<Y, N>*)(y + number * C::COUNT + at) = whole;
    if (C::Bytes::IS) *(hwptq_pack<hwptq_int8, N>*)(bytes + number * C::COUNT + at) = narrow;
  }
}

// What there is of x, other, multiplier, bias, and of the results sum, y and bytes, in this order.
template <class C, class X, class Y>
static __device__ __forceinline__ void hwptq_norm_alone(const X* x, const int* multiplier, const int* bias, Y* y) {
  hwptq_norm<C>(x, x, multiplier, bias, (short*)0, y, (hwptq_int8*)0);
}

template <class C, class X, class Y>
static __device__ __forceinline__ void hwptq_norm_and_bytes(
    const X* x, const int* multiplier, const int* bias, Y* y, hwptq_int8* bytes) {
  hwptq_norm<C>(x, x, multiplier, bias, (short*)0, y, bytes);
}

template <class C, class X, class A, class Y>
static __device__ __forceinline__ void hwptq_norm_of_sum(
    const X* x, const A* other, const int* multiplier, const int* bias, Y* y) {
  hwptq_norm<C>(x, other, multiplier, bias, (short*)0, y, (hwptq_int8*)0);
}

template <class C, class X, class A, class Y>
static __device__ __forceinline__ void hwptq_norm_of_sum_and_bytes(
    const X* x, const A* other, const int* multiplier, const int* bias, Y* y, hwptq_int8* bytes) {
  hwptq_norm<C>(x, other, multiplier, bias, (short*)0, y, bytes);
}

template <class C, class X, class A, class Y>
static __device__ __forceinline__ void hwptq_norm_and_sum(
    const X* x, const A* other, const int* multiplier, const int* bias, short* sum, Y* y) {
  hwptq_norm<C>(x, other, multiplier, bias, sum, y, (hwptq_int8*)0);
}

#endif
