// The scale of each row, a warp for each: hwptq/operators/rows.py.
//
// C has COUNT, ROWS, WARPS, LEAST, MOST and QMAX.
#ifndef HWPTQ_ROW_SCALE
#define HWPTQ_ROW_SCALE

template <class C>
static __device__ __forceinline__ void hwptq_row_scale(const float* x, float* y) {
  int lane = threadIdx.x % 32, row = blockIdx.x * C::WARPS + threadIdx.x / 32;
  if (row >= C::ROWS) return;
  x += (hwptq_wide)row * C::COUNT;
  float reach = C::LEAST;
  for (int at = lane; at < C::COUNT; at += 32) reach = fmaxf(reach, fabsf(x[at]));
  reach = hwptq_real_largest(reach, 32);
  if (lane == 0) y[row] = __fdiv_rn(fminf(reach, C::MOST), C::QMAX);
}

#endif
