// exp, log, tanh, sigmoid and cos(2 pi u) for vectors, in multiplications, additions, divisions and
// square roots only: every one of these is rounded the same everywhere, so the results are bitwise
// the same on every level and architecture (-ffp-contract=off keeps the compiler from fusing them).
//
// The includer provides F (float), I (int32), U (uint32), vectors (cpu/simd.h) or single numbers
// (core/scalar.h), and their helpers. Error bounds against float64, tested over the full range in
// tests/ops/test_vector_math.py:
//   exp, log 2 ulp; tanh 3 ulp; sigmoid 3 ulp where the result is normal, else 5e-39 absolute;
//   cos_2pi 2.5e-7 absolute.
// Polynomial coefficients: weighted minimax fits, rounded to float.
#pragma once

namespace wmf {
namespace {

// x = n ln 2 + r, |r| <= ln 2 / 2. Returns n (as integers) and stores r.
// Valid for |x| < 2^21; n ln2_high is exact since ln2_high has 9 bits.
WMF_INLINE I split_exponent(F x, F* r) {
  const float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194442e-4f;
  const float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const F shifted = x * kLog2E + kRound;
  const F n = shifted - kRound;
  *r = (x - n * kLn2High) - n * kLn2Low;
  return as_int(shifted) - as_int(splat(kRound));
}

// exp(r) - 1 for |r| <= 0.3475.
WMF_INLINE F expm1_polynomial(F r) {
  F q = r * 0.00139467372f + 0.00836675614f;
  q = q * r + 0.0416662768f;
  q = q * r + 0.16666542f;
  q = q * r + 0.5f;
  return r + (r * r) * q;
}

// 2^n for -126 <= n <= 127; infinity for n = 128.
WMF_INLINE F power_of_two(I n) { return as_float(as_word(n + 127) << 23); }

WMF_INLINE F exp(F x) {
  // Beyond these the result is infinite or zero anyway. A NaN passes both comparisons.
  x = x > 89.0f ? splat(89.0f) : x;
  x = x < -104.0f ? splat(-104.0f) : x;
  F r;
  const I n = split_exponent(x, &r);
  // Two factors, because 2^n alone would not reach denormal results nor 2^128.
  const I half = n >> 1;
  return (1.0f + expm1_polynomial(r)) * power_of_two(half) * power_of_two(n - half);
}

// exp(x) for x <= 0, as one factor: 0 where the result is not a normal number (below e^-87).
WMF_INLINE F exp_not_above_0(F x) {
  const auto vanishes = x < -87.0f;
  F r;
  const I n = split_exponent(vanishes ? splat(0.0f) : x, &r);
  const F y = (1.0f + expm1_polynomial(r)) * power_of_two(n);
  return vanishes ? splat(0.0f) : y;
}

// 1 / (1 + exp(-x)), with one factor 2^n where exp has two: below x = -88.4 the exponential is
// infinite a little early, and above 87 it vanishes beside 1 anyway.
WMF_INLINE F sigmoid(F x) {
  F y = -x;
  y = y > 88.7f ? splat(88.7f) : y;
  y = y < -87.0f ? splat(-87.0f) : y;
  F r;
  const I n = split_exponent(y, &r);
  return 1.0f / (1.0f + (1.0f + expm1_polynomial(r)) * power_of_two(n));
}

// tanh(|x|) = -m / (2 + m) with m = exp(-2|x|) - 1, which loses no digits near 0.
WMF_INLINE F tanh(F x) {
  const I sign = as_int(x) & static_cast<int32_t>(0x80000000u);
  F magnitude = as_float(as_int(x) ^ sign);
  magnitude = magnitude > 10.0f ? splat(10.0f) : magnitude;  // tanh(10) rounds to 1
  F r;
  const F scale = power_of_two(split_exponent(-2.0f * magnitude, &r));
  const F m = scale * expm1_polynomial(r) + (scale - 1.0f);
  const F y = -m / (2.0f + m);
  return as_float((as_int(y) & 0x7fffffff) | sign);
}

// Natural logarithm. x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = 2 atanh(f /
// (2 + f)).
WMF_INLINE F log(F x) {
  const float kInfinity = __builtin_inff();
  const auto denormal = x < 1.17549435e-38f;
  const I bits = as_int(denormal ? x * 8388608.0f : x);  // * 2^23, exact
  const I e = (bits - 0x3f3504f3) >> 23;                 // 0x3f3504f3 = sqrt(1/2)
  const F f = as_float(bits - as_int(as_word(e) << 23)) - 1.0f;
  const F exponent = to_float(denormal ? e - 23 : e);

  const F s = f / (2.0f + f);
  const F t = s * s;
  F p = t * 0.235827759f + 0.285372764f;
  p = p * t + 0.400003344f;
  p = p * t + 0.666666627f;
  const F half_square = 0.5f * f * f;
  F y = s * (half_square + t * p) + exponent * -2.12194442e-4f;  // ln 2 = 0.693359375 - 2.12...e-4
  y = (y - half_square) + f;
  y = y + exponent * 0.693359375f;

  y = x == kInfinity ? x : y;
  y = x == 0.0f ? splat(-kInfinity) : y;
  y = x >= 0.0f ? y : splat(__builtin_nanf(""));  // negative or NaN
  return y;
}

// cos(2 pi u) for 0 <= u <= 1. By symmetry it is sin(2 pi d), d = |u - 1/2| - 1/4, |d| <= 1/4,
// exact.
WMF_INLINE F cos_2pi(F u) {
  const F centred = u - 0.5f;
  const F d = as_float(as_int(centred) & 0x7fffffff) - 0.25f;
  const F t = d * d;
  F p = t * -14.3813906f + 42.0077972f;
  p = p * t + -76.7041702f;
  p = p * t + 81.6052246f;
  p = p * t + -41.3417015f;
  p = p * t + 6.28318548f;
  return d * p;
}

}  // namespace
}  // namespace wmf
