// The machine's limits, measured: multiplications in registers alone, and reading alone. What a
// benchmark's figures are fractions of.
#pragma once

#include "cpu/gemm.h"

namespace wmf {
namespace {

// As many chains as a tile of the product has; none waits for its own last result.
constexpr int kChains = kTileRows * 4;

// Makes the compiler believe that x is used, and changed.
WMF_INLINE void keep(U* x) {
#if defined(__x86_64__)
  __asm__ volatile("" : "+v"(*x));
#else
  __asm__ volatile("" : "+w"(*x));
#endif
}

template <class Vector>
WMF_INLINE Vector changed(Vector x) {
  U word = reinterpret_cast<U>(x);
  keep(&word);
  return reinterpret_cast<Vector>(word);
}

template <class Format>
int64_t peak(int64_t rounds) {
  typedef typename Format::Sum Sum;
  Sum sums[kChains] = {};
  U x = splat(0x01010101u), w = x;  // small numbers in every format
  keep(&x);
  keep(&w);
  for (Sum& sum : sums) sum = changed(sum);  // all different, as far as the compiler knows
  for (int64_t i = 0; i < rounds; ++i) {
    WMF_UNROLL
    for (int j = 0; j < kChains; ++j) sums[j] = Format::multiply_hidden(sums[j], x, w);
  }
  for (Sum& sum : sums) sum = changed(sum);
  return rounds * kChains * W * Format::kOperations;
}

int64_t read(const float* data, int64_t n) {
  U sums[8] = {};
  for (int64_t i = 0; i < n; i += 8 * W) {
    WMF_UNROLL
    for (int j = 0; j < 8; ++j) sums[j] ^= load_words(data + i + j * W);
  }
  for (U& sum : sums) keep(&sum);
  return n * static_cast<int64_t>(sizeof(float));
}

}  // namespace
}  // namespace wmf
