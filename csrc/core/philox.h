// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// Noise is a function of where it is used, not of what was drawn before: key = seed, counter =
// (rollout, step, dimension, purpose). Hence it is the same for every batch, thread, slot and
// device.
//
// `U` is a 32-bit unsigned word (core/scalar.h), or a vector of them (cpu/simd.h); the includer
// provides mul_wide for it.
#pragma once

#include <cstdint>

namespace wmf {
namespace {  // a copy per unit: see model.h

// The last word of the counter.
enum class Purpose : uint32_t { kInitialIndex = 0, kInitialLatent = 1, kMixture = 2, kDone = 3 };

template <class U>
struct PhiloxWords {
  U w0, w1, w2, w3;
};

template <class U>
WMF_INLINE PhiloxWords<U> philox(PhiloxWords<U> c, uint64_t seed) {
  uint32_t key0 = static_cast<uint32_t>(seed);
  uint32_t key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    U high0, low0, high1, low1;
    mul_wide(c.w0, 0xD2511F53u, &high0, &low0);
    mul_wide(c.w2, 0xCD9E8D57u, &high1, &low1);
    c = PhiloxWords<U>{high1 ^ c.w1 ^ key0, low1, high0 ^ c.w3 ^ key1, low0};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

}  // namespace
}  // namespace wmf
