// All that the kernels say to the machine beyond plain C++, each as one function with one meaning:
// where a thread is, how threads wait for and talk to one another, asynchronous copies, and the
// matrix units. The tests put a CPU's version in its place (tests/cuda/emulator.h) and run the very
// kernels on it.
//
// Words: a warp is 32 threads; a block is kThreads threads on one processor, with memory of their
// own ("shared"); a group is 1 to 16 blocks ("cluster", from sm_90 on) that can write to each
// other's shared memory.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)

#define WMF_DEVICE __device__ __forceinline__
#define WMF_INLINE __device__ __forceinline__
#define WMF_UNROLL _Pragma("unroll")
#define WMF_UNROLL_TWICE _Pragma("unroll 2")
#define WMF_NO_UNROLL _Pragma("unroll 1")

#include "core/scalar.h"

namespace wmf {
namespace {

WMF_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
WMF_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
WMF_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
WMF_DEVICE int blocks_x() { return static_cast<int>(gridDim.x); }

// The block's dynamic shared memory; 128-byte aligned.
WMF_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char wmf_shared_memory[];
  return wmf_shared_memory;
}

// --- waiting -----------------------------------------------------------------------------------

WMF_DEVICE void sync_block() { __syncthreads(); }
// The same; whether any thread says yes.
WMF_DEVICE bool sync_block_any(bool yes) { return __syncthreads_or(yes ? 1 : 0) != 0; }
WMF_DEVICE void sync_warp() { __syncwarp(); }

// `threads` threads of the block, whole warps, that name the same barrier 1 ... 15.
WMF_DEVICE void sync_some(int barrier, int threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// All threads of a group: what they wrote before it, to their own shared memory or to another
// block's, all of them see after it.
WMF_DEVICE void sync_group() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#else
  __syncthreads();
#endif
}

// The block's place in its group.
WMF_DEVICE int rank_in_group() {
#if __CUDA_ARCH__ >= 900
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int>(rank);
#else
  return 0;
#endif
}

// What lies at p's place in the shared memory of another block of the group.
template <class T>
WMF_DEVICE T* in_block(T* p, int rank) {
#if __CUDA_ARCH__ >= 900
  uint64_t there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(reinterpret_cast<uint64_t>(p)), "r"(rank));
  return reinterpret_cast<T*>(there);
#else
  (void)rank;
  return p;
#endif
}

// --- talking -----------------------------------------------------------------------------------

WMF_DEVICE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
WMF_DEVICE float shuffle(float x, int from) { return __shfl_sync(0xffffffffu, x, from); }

// Adds one to a counter of all blocks; what it was before.
WMF_DEVICE int64_t take_one(int64_t* counter) {
  return static_cast<int64_t>(atomicAdd(reinterpret_cast<unsigned long long*>(counter), 1ull));
}

// A word that the host may write meanwhile.
WMF_DEVICE int32_t look_at(const int32_t* p) { return *static_cast<const volatile int32_t*>(p); }

// Global memory that nobody writes while the kernel runs.
WMF_DEVICE float read_only(const float* p) { return __ldg(p); }

// --- copies ------------------------------------------------------------------------------------

struct alignas(16) Chunk {
  uint32_t words[4];
};

// 16 bytes from global to shared memory; both aligned.
WMF_DEVICE void copy_async(void* to_shared, const void* from_global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to_shared))),
               "l"(__cvta_generic_to_global(from_global))
               : "memory");
}
// What this thread has copied since the last one of these is a batch.
WMF_DEVICE void end_batch() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the last n batches of this thread have arrived.
template <int n>
WMF_DEVICE void wait_batches() {
  asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

// --- number formats ----------------------------------------------------------------------------

// To IEEE half precision: to nearest, ties to even; magnitudes above 65504 are cut to it, so that
// no infinity arises that was none; a NaN stays one.
WMF_DEVICE uint16_t to_half(float x) {
  x = x > 65504.0f ? 65504.0f : x;
  x = x < -65504.0f ? -65504.0f : x;
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
  return half;
}

// --- the gates' arithmetic (core/gates.h), by the special function units
// --------------------------

// exp(-slope x) in [e^-80, e^80], to about 3e-7 of itself where it matters beside 1; a NaN stays
// one.
WMF_DEVICE float falling_exp(float x, float slope) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;"
      : "=f"(y)
      : "f"(clamp(x, -80.0f / slope, 80.0f / slope) * (-slope * 1.44269504f)));
  return y;
}

// a / b for b >= 1, infinity included, to 2 units in the last place; 0 where b > 2^126.
WMF_DEVICE float quotient(float a, float b) {
  float reciprocal;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(b));
  return a * reciprocal;
}

// --- matrix units ------------------------------------------------------------------------------

// Four 8 x 8 matrices of halves from shared memory. Thread l gives the address of row l % 8 (16
// bytes) of matrix l / 8, and gets from each the two numbers in row l / 4, columns l % 4 * 2, + 1.
WMF_DEVICE void load_matrices(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

// Two of them, with the addresses of threads 0 ... 15.
WMF_DEVICE void load_matrices(uint32_t (&to)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

// d (16 x 8) += a (16 x 16) b (16 x 8), in halves, added up in floats. With l = 4 g + t, thread l
// holds, two numbers to a word,
//   a: (g, 2t .. 2t+1), (g + 8, 2t ..), (g, 2t + 8 ..), (g + 8, 2t + 8 ..)    (row, column)
//   b: (2t .. 2t+1, g), (2t + 8 .., g)
//   d: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)                     one to a float
WMF_DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace
}  // namespace wmf

#else

#include "emulator.h"

#endif

namespace wmf {
namespace {

WMF_DEVICE int warp_index() { return thread_index() / 32; }
WMF_DEVICE int lane() { return thread_index() % 32; }

}  // namespace
}  // namespace wmf
