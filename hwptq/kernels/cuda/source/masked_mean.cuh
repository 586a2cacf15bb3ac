// Means over the tokens that a mask shows: hwptq/operators/masked_pool.py. A block has 32 neighbouring channels of a
// sample, and each of its warps every WARPS-th token.
//
// C has TOKENS, CHANNELS, ACROSS (blocks of a sample), WARPS, IN_ZERO; Out with ZERO, LO and HI.
#ifndef HWPTQ_MASKED_MEAN
#define HWPTQ_MASKED_MEAN

template <class C, class X, class Y>
static __device__ __forceinline__ void hwptq_masked_mean(
    const X* x, const hwptq_int8* shown, const int* left, const int* multiplier, const int* shift, Y* y) {
  __shared__ int sums[C::WARPS][32], counts[C::WARPS];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int sample = blockIdx.x / C::ACROSS, channel = blockIdx.x % C::ACROSS * 32 + lane, sum = 0, count = 0;
  shown += sample * C::TOKENS;
  x += (hwptq_wide)sample * C::TOKENS * C::CHANNELS;
#pragma unroll 4
  for (int token = warp; token < C::TOKENS; token += C::WARPS) {
    int value = channel < C::CHANNELS ? (int)x[token * C::CHANNELS + channel] - C::IN_ZERO : 0;
    bool is = shown[token] != 0;
    sum += is ? value : 0;
    count += is;
  }
  sums[warp][lane] = sum;
  if (lane == 0) counts[warp] = count;
  __syncthreads();
  if (warp || channel >= C::CHANNELS) return;
  for (int other = 1; other < C::WARPS; other++) sum += sums[other][lane], count += counts[other];
  int acc = (int)((hwptq_word)sum << left[count]);
  y[sample * C::CHANNELS + channel] = (Y)hwptq_requantize<typename C::Out>(acc, multiplier[count], shift[count]);
}

#endif
