// Softmax of rows, a warp for each: hwptq/operators/softmax.py.
//
// C has COUNT, ROWS, WARPS, MASKED, STRIDE (of the mask along a row), ALIKE, P_ALIKE, hidden(row), and the numbers of E.
#ifndef HWPTQ_SOFTMAX
#define HWPTQ_SOFTMAX

template <class C, class X>
static __device__ __forceinline__ void hwptq_softmax(const X* x, const hwptq_int8* hidden, hwptq_int8* y) {
  constexpr int EACH = (C::COUNT + 31) / 32;
  int lane = threadIdx.x % 32, row = blockIdx.x * C::WARPS + threadIdx.x / 32;
  if (row >= C::ROWS) return;
  x += (hwptq_wide)row * C::COUNT;
  y += (hwptq_wide)row * C::COUNT;
  if (C::MASKED) hidden += C::hidden(row);
  int value[EACH], top = -32768;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int at = i * 32 + lane;
    bool shown = at < C::COUNT && (!C::MASKED || hidden[at * C::STRIDE] == 0);
    value[i] = shown ? (int)x[at] : HWPTQ_HIDDEN;
    top = max(top, value[i]);
  }
  top = hwptq_largest(top, 32);
  int total = 0;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    value[i] = value[i] == HWPTQ_HIDDEN ? 0 : hwptq_exponential<C>(top - value[i]);
    total += value[i];
  }
  total = hwptq_sum(total, 32);
  int reciprocal = total ? (1 << 30) / total : 0;
  int added = C::ALIKE && !total ? C::P_ALIKE : 0;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int at = i * 32 + lane;
    if (at < C::COUNT) y[at] = (hwptq_int8)(hwptq_probability(value[i], reciprocal) + added - 128);
  }
}

template <class C, class X>
static __device__ __forceinline__ void hwptq_softmax_plain(const X* x, hwptq_int8* y) {
  hwptq_softmax<C>(x, (const hwptq_int8*)0, y);
}

#endif
