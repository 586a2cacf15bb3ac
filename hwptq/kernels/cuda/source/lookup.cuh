// A table of bytes by int16 codes, from shared memory: hwptq/operators/lookup.py. Threads walk over all of x.
//
// C has SIZE, ENTRIES, BLOCKS, THREADS.
#ifndef HWPTQ_LOOKUP
#define HWPTQ_LOOKUP

template <class C>
static __device__ __forceinline__ void hwptq_lookup(const short* x, const hwptq_int8* table, hwptq_int8* y) {
  alignas(16) __shared__ hwptq_int8 entries[C::ENTRIES];
  typedef hwptq_pack<hwptq_int8, 16> Entries;
  for (int i = threadIdx.x; i < C::ENTRIES / 16; i += C::THREADS) ((Entries*)entries)[i] = ((const Entries*)table)[i];
  __syncthreads();
  for (hwptq_wide i = blockIdx.x * C::THREADS + threadIdx.x; i < C::SIZE / 8; i += C::BLOCKS * C::THREADS) {
    hwptq_pack<short, 8> codes = ((const hwptq_pack<short, 8>*)x)[i];
    hwptq_pack<hwptq_int8, 8> found;
#pragma unroll
    for (int e = 0; e < 8; e++) found.at[e] = entries[codes.at[e] + C::ENTRIES / 2];
    ((hwptq_pack<hwptq_int8, 8>*)y)[i] = found;
  }
}

#endif
