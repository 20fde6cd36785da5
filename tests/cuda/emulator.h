// A CPU in the place of a GPU: what csrc/cuda/ptx.cuh has for the kernels, so that their very code
// runs in the tests. Every thread is a fiber that runs until it has to wait for others; which runs
// next is drawn at random, from a seed. What is checked while they run:
//   - all threads that must come to a barrier or to a warp's common operation do come, to the same;
//   - two threads do not use the same byte of shared memory, one of them to write it, without a
//     barrier between (only if built with WMF_RACES; emulator.cpp);
//   - copies arrive as late as they may: when they are waited for;
//   - shared memory is full of NaNs at first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#define WMF_DEVICE inline
#define WMF_INLINE inline
#define WMF_UNROLL
#define WMF_UNROLL_TWICE
#define WMF_NO_UNROLL

#include "core/scalar.h"

// After scalar.h, in whose words it is written. A GPU has instructions of its own for this.
#include "core/falling_exp.h"

namespace wmf::emulator {

struct Grid {
  int blocks_x, blocks_y;
  int group;    // blocks of a group, neighbours in x
  int threads;  // of a block
  size_t shared_bytes;
};

// Runs `kernel` as every thread of the grid, group by group. The first thing that goes wrong, in
// words; empty if nothing does.
std::string run(const Grid& grid, uint32_t seed, const std::function<void()>& kernel);

// What the threads ask for.
int thread_index();
int block_x();
int block_y();
int blocks_x();
int rank_in_group();
unsigned char* shared_memory(int rank);  // of a block of the group

void sync_block();
bool sync_block_any(bool yes);
void sync_warp();
void sync_some(int barrier, int threads);
void sync_group();

// All 32 threads of a warp come with the same `what`; the last one calls act(arguments of all).
void together(const char* what, void* arguments, void (*act)(void* const (&arguments)[32]));

void copy_async(void* to, const void* from);  // 16 bytes
void end_batch();
void wait_batches(int n);

// The current thread reads or writes n bytes.
void use(const void* p, size_t n, bool writes);

float from_half(uint16_t half);

}  // namespace wmf::emulator

namespace wmf {
namespace {

inline int thread_index() { return emulator::thread_index(); }
inline int block_x() { return emulator::block_x(); }
inline int block_y() { return emulator::block_y(); }
inline int blocks_x() { return emulator::blocks_x(); }
inline int rank_in_group() { return emulator::rank_in_group(); }
inline unsigned char* shared_memory() { return emulator::shared_memory(rank_in_group()); }

inline void sync_block() { emulator::sync_block(); }
inline bool sync_block_any(bool yes) { return emulator::sync_block_any(yes); }
inline void sync_warp() { emulator::sync_warp(); }
inline void sync_some(int barrier, int threads) { emulator::sync_some(barrier, threads); }
inline void sync_group() { emulator::sync_group(); }

template <class T>
T* in_block(T* p, int rank) {
  const auto offset = reinterpret_cast<unsigned char*>(p) - shared_memory();
  return reinterpret_cast<T*>(emulator::shared_memory(rank) + offset);
}

inline float quotient(float a, float b) { return a / b; }

struct Shuffle {
  float x, result;
  int from;
};
inline float shuffle(float x, int from) {
  Shuffle mine = {x, 0.0f, from};
  emulator::together("shuffle", &mine, [](void* const(&all)[32]) {
    for (void* one : all) {
      auto* s = static_cast<Shuffle*>(one);
      s->result = static_cast<Shuffle*>(all[s->from % 32])->x;
    }
  });
  return mine.result;
}
inline float shuffle_xor(float x, int mask) { return shuffle(x, thread_index() % 32 ^ mask); }

inline int64_t take_one(int64_t* counter) { return (*counter)++; }
inline int32_t look_at(const int32_t* p) { return *p; }
inline float read_only(const float* p) { return *p; }

struct alignas(16) Chunk {
  uint32_t words[4];
};

inline void copy_async(void* to, const void* from) { emulator::copy_async(to, from); }
inline void end_batch() { emulator::end_batch(); }
template <int n>
void wait_batches() {
  emulator::wait_batches(n);
}

// As ptx.cuh says; by rounding the float's bits.
inline uint16_t to_half(float x) {
  x = x > 65504.0f ? 65504.0f : x;
  x = x < -65504.0f ? -65504.0f : x;
  const uint32_t word = as_word(x);
  const uint32_t sign = word >> 16 & 0x8000u, magnitude = word & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7fffu);
  uint32_t half;
  if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24; this addition rounds to it
    half = as_word(as_float(magnitude) + 0.5f) - as_word(0.5f);
  } else {
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    half = (rounded >> 13) - (112u << 10);
  }
  return static_cast<uint16_t>(sign | half);
}

template <int kMatrices>
struct Matrices {
  const void* row;
  uint32_t* to;
  static void load(void* const (&all)[32]) {
    for (int l = 0; l < 32; ++l) {
      for (int m = 0; m < kMatrices; ++m) {
        const void* row = static_cast<Matrices*>(all[m * 8 + l / 4])->row;
        __builtin_memcpy(static_cast<Matrices*>(all[l])->to + m,
                         static_cast<const unsigned char*>(row) + l % 4 * 4, 4);
      }
    }
  }
};
template <int kMatrices>
void load_matrices(uint32_t (&to)[kMatrices], const void* row) {
  if (thread_index() % 32 < kMatrices * 8) emulator::use(row, 16, false);
  Matrices<kMatrices> mine = {row, to};
  emulator::together("load_matrices", &mine, Matrices<kMatrices>::load);
}

struct Product {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
  static void add(void* const (&all)[32]) {
    const auto half = [](uint32_t word, int which) {
      return emulator::from_half(static_cast<uint16_t>(word >> (16 * which)));
    };
    float a[16][16], b[16][8];
    for (int l = 0; l < 32; ++l) {
      const auto* p = static_cast<Product*>(all[l]);
      const int g = l / 4, t = l % 4;
      for (int i = 0; i < 2; ++i) {
        for (int r = 0; r < 4; ++r) a[g + r % 2 * 8][2 * t + i + r / 2 * 8] = half(p->a[r], i);
        for (int r = 0; r < 2; ++r) b[2 * t + i + r * 8][g] = half(p->b[r], i);
      }
    }
    for (int l = 0; l < 32; ++l) {
      float* d = static_cast<Product*>(all[l])->d;
      for (int i = 0; i < 4; ++i) {
        const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
        for (int k = 0; k < 16; ++k) d[i] += a[row][k] * b[k][column];
      }
    }
  }
};
inline void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  Product mine = {d, a, {b0, b1}};
  emulator::together("multiply_add", &mine, Product::add);
}

}  // namespace
}  // namespace wmf
