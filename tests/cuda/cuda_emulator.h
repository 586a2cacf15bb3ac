// CUDA C++ on a processor: a block's threads are threads of the system, which meet at barriers.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#define HWPTQ_EMULATED
#define __device__
#define __forceinline__ inline
#define __shared__ static
using std::max;
using std::min;
using std::sqrt;

struct Place { int x; };
static thread_local Place threadIdx, blockIdx;
typedef std::barrier<> Barrier;
static std::unique_ptr<Barrier> whole_block;
static std::vector<std::unique_ptr<Barrier>> warps;
static unsigned long long exchanged[32][32];
static unsigned fragments[32][32][8];

static inline void __syncthreads() { whole_block->arrive_and_wait(); }

template <class V>
static V __shfl_xor_sync(unsigned, V value, int other) {
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  memcpy(&exchanged[warp][lane], &value, sizeof(V));
  warps[warp]->arrive_and_wait();
  V found;
  memcpy(&found, &exchanged[warp][lane ^ other], sizeof(V));
  warps[warp]->arrive_and_wait();
  return found;
}

static inline int atomicMax(int* at, int value) {
  std::atomic_ref<int> held(*at);
  int found = held.load();
  while (found < value && !held.compare_exchange_weak(found, value)) {}
  return found;
}
static inline void __syncwarp() { warps[threadIdx.x / 32]->arrive_and_wait(); }

// Each rounds once: the compiler joins nothing without being asked to.
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline int __float_as_int(float a) { int found; memcpy(&found, &a, 4); return found; }
static inline float __int_as_float(int a) { float found; memcpy(&found, &a, 4); return found; }

static inline int __any_sync(unsigned mask, int value) {
  for (int other = 16; other; other /= 2) value |= __shfl_xor_sync(mask, value, other);
  return value;
}

static inline int __clzll(long long value) { return value ? __builtin_clzll(value) : 64; }

static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  unsigned long long both = a | (unsigned long long)b << 32;
  unsigned found = 0;
  for (int i = 0; i < 4; i++) found |= (unsigned)(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return found;
}

static inline int __dp4a(int a, int b, int sum) {
  for (int i = 0; i < 4; i++) sum += (int)(int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i);
  return sum;
}

static inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int i = 0; i < 4; i++) sum += (a >> 8 * i & 255) * (b >> 8 * i & 255);
  return sum;
}

// As PTX says where m16n8k32 has its operands.
template <bool SIGNED>
static void emulated_mma(int sums[4], const unsigned a[4], unsigned b0, unsigned b1) {
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  unsigned own[6] = {a[0], a[1], a[2], a[3], b0, b1};
  memcpy(fragments[warp][lane], own, sizeof own);
  warps[warp]->arrive_and_wait();
  for (int e = 0; e < 4; e++) {
    int row = g + e / 2 * 8, column = t * 2 + e % 2;
    for (int k = 0; k < 32; k++) {
      unsigned left = fragments[warp][row % 8 * 4 + k % 16 / 4][row / 8 + k / 16 * 2] >> k % 4 * 8 & 255;
      unsigned right = fragments[warp][column * 4 + k % 16 / 4][4 + k / 16] >> k % 4 * 8 & 255;
      sums[e] += (SIGNED ? (int)(int8_t)left : (int)left) * (int8_t)right;
    }
  }
  warps[warp]->arrive_and_wait();
}
static void hwptq_mma_signed(int s[4], const unsigned a[4], unsigned b0, unsigned b1) { emulated_mma<true>(s, a, b0, b1); }
static void hwptq_mma_unsigned(int s[4], const unsigned a[4], unsigned b0, unsigned b1) { emulated_mma<false>(s, a, b0, b1); }

template <class F>
static void launch(int blocks, int threads, F kernel) {
  for (int block = 0; block < blocks; block++) {
    whole_block = std::make_unique<Barrier>(threads);
    warps.clear();
    for (int w = 0; w < (threads + 31) / 32; w++) warps.push_back(std::make_unique<Barrier>(32));
    std::vector<std::thread> all;
    for (int thread = 0; thread < threads; thread++)
      all.emplace_back([=] {
        threadIdx.x = thread, blockIdx.x = block;
        kernel();
      });
    for (auto& one : all) one.join();
  }
}
