// The exponential of the gates, with fused multiply-add where the level has it.
//
// The includer provides F, Pair, clamp(x, low, high), fma(a, b, c) = a b + c and
// add_to_exponent(x, n) (cpu/simd.h, core/scalar.h).
#pragma once

namespace wmf {
namespace {

// exp(-slope x) in [e^-80, e^80] to 2e-7 of itself; a NaN stays one.
template <class V>
WMF_INLINE V falling_exp(V x, float slope) {
  const float kLog2E = 1.44269504f, kLn2 = 0.693147181f;
  const float kRound = 12582912.0f;  // 1.5 * 2^23: see split_exponent in vector_math.h
  x = clamp(x, -80.0f / slope, 80.0f / slope);
  const V shifted = fma(x, -slope * kLog2E, kRound);
  const V n = shifted - kRound;
  // exp(slope s), |slope s| <= ln 2 / 2: a minimax polynomial, in an order that waits little.
  const V s = fma(n, -kLn2 / slope, -x);
  const V s2 = s * s;
  const float slope2 = slope * slope, slope3 = slope2 * slope;
  const V p01 = fma(s, slope, 1.0f);
  const V p23 = fma(s, 0.166671369f * slope3, 0.499992508f * slope2);
  const V p45 = fma(s, 0.00831126666f * slope3 * slope2, 0.0418892047f * slope2 * slope2);
  const V p = fma(fma(p45, s2, p23), s2, p01);
  // p is in [0.7, 1.42] and |n| < 117: no exponent overflows.
  return add_to_exponent(p, shifted);
}

}  // namespace
}  // namespace wmf
