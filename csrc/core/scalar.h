// One number at a time, with the names of cpu/simd.h: what core/'s arithmetic is made of on a GPU,
// and in the tests that run the GPU's kernels on a CPU.
//
// The compiler may fuse nothing on its own here (nvcc -fmad=false, -ffp-contract=off): results are
// bitwise those of the vectors. WMF_INLINE comes from the includer.
#pragma once

#include <cstdint>

namespace wmf {
namespace {

using F = float;
using I = int32_t;
using U = uint32_t;

WMF_INLINE F load(const float* p) { return *p; }
WMF_INLINE void store(float* p, F x) { *p = x; }

WMF_INLINE F splat(float x) { return x; }
WMF_INLINE U splat(uint32_t x) { return x; }
WMF_INLINE U lane_index() { return 0; }
WMF_INLINE float first_lane(F x) { return x; }
WMF_INLINE uint32_t first_lane(U x) { return x; }

#if defined(__CUDA_ARCH__)
WMF_INLINE F as_float(I x) { return __int_as_float(x); }
WMF_INLINE F as_float(U x) { return __uint_as_float(x); }
WMF_INLINE I as_int(F x) { return __float_as_int(x); }
WMF_INLINE U as_word(F x) { return __float_as_uint(x); }
WMF_INLINE F sqrt(F x) { return __fsqrt_rn(x); }
WMF_INLINE F fma(F a, F b, F c) { return __fmaf_rn(a, b, c); }
WMF_INLINE void mul_wide(U a, uint32_t m, U* high, U* low) {
  *high = __umulhi(a, m);
  *low = a * m;
}
#else
WMF_INLINE F as_float(U x) {
  F y;
  __builtin_memcpy(&y, &x, sizeof y);
  return y;
}
WMF_INLINE F as_float(I x) { return as_float(static_cast<U>(x)); }
WMF_INLINE U as_word(F x) {
  U y;
  __builtin_memcpy(&y, &x, sizeof y);
  return y;
}
WMF_INLINE I as_int(F x) { return static_cast<I>(as_word(x)); }
WMF_INLINE F sqrt(F x) { return __builtin_sqrtf(x); }
WMF_INLINE F fma(F a, F b, F c) { return __builtin_fmaf(a, b, c); }
WMF_INLINE void mul_wide(U a, uint32_t m, U* high, U* low) {
  const uint64_t product = static_cast<uint64_t>(a) * m;
  *high = static_cast<U>(product >> 32);
  *low = static_cast<U>(product);
}
#endif

WMF_INLINE I as_int(U x) { return static_cast<I>(x); }
WMF_INLINE U as_word(I x) { return static_cast<U>(x); }
WMF_INLINE F to_float(U x) { return static_cast<F>(static_cast<I>(x)); }  // x < 2^31
WMF_INLINE F to_float(I x) { return static_cast<F>(x); }

WMF_INLINE F min(F a, F b) { return a > b ? b : a; }  // a NaN in a stays one

// A NaN stays one.
WMF_INLINE F clamp(F x, float low, float high) {
  x = x > high ? high : x;
  return x < low ? low : x;
}

// x * 2^n, where n is in the low bits of m (1.5 * 2^23 + n): a shift by 23 makes it an exponent.
WMF_INLINE F add_to_exponent(F x, F m) { return as_float(as_word(x) + (as_word(m) << 23)); }

}  // namespace
}  // namespace wmf
