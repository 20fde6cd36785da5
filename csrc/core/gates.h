// The LSTM's update, after its matrix product:
//
//   c' = sigmoid(f) c + sigmoid(i) tanh(g)        h' = sigmoid(o) tanh(c')
//
// Five exponentials and three divisions, with fused multiply-add where the level has it: what
// matters here is an absolute error of the order of float's (2e-7 in sigmoid and tanh, tested in
// tests/test_vector_math.py), and speed, because this stands between two products. vector_math.h
// has the functions whose results are the same everywhere.
//
// The includer provides F, I, clamp(x, low, high) and fma(a, b, c) = a b + c (cpu/simd.h).
#pragma once

namespace wmf {
namespace {

// exp(-slope x) in [e^-80, e^80] to 2e-7 of itself; a NaN stays one.
WMF_INLINE F falling_exp(F x, float slope) {
  const float kLog2E = 1.44269504f, kLn2 = 0.693147181f;
  const float kRound = 12582912.0f;  // 1.5 * 2^23: see split_exponent in vector_math.h
  x = clamp(x, -80.0f / slope, 80.0f / slope);
  const F shifted = fma(x, splat(-slope * kLog2E), splat(kRound));
  const F n = shifted - kRound;
  // exp(slope s), |slope s| <= ln 2 / 2: a minimax polynomial, in an order that waits little.
  const F s = fma(n, splat(-kLn2 / slope), -x);
  const F s2 = s * s;
  const float slope2 = slope * slope;
  const F p01 = fma(s, splat(slope), splat(1.0f));
  const F p23 = fma(s, splat(0.166671369f * slope * slope2), splat(0.499992508f * slope2));
  const F p45 = fma(s, splat(0.00831126666f * slope * slope2 * slope2),
                    splat(0.0418892047f * slope2 * slope2));
  const F p = fma(fma(p45, s2, p23), s2, p01);
  // n stands in the low bits of `shifted`; a shift by 23 leaves those alone and makes them the
  // exponent. p is in [0.7, 1.42] and |n| < 117, so no exponent overflows.
  return as_float(as_int(p) + as_int(as_word(shifted) << 23));
}

// sigmoid(a) tanh(b) as one division. The product below may overflow: the quotient is then 0, as
// it should.
WMF_INLINE F sigmoid_tanh(F a, F b) {
  const F ea = falling_exp(a, 1.0f), eb = falling_exp(b, 2.0f);
  return (1.0f - eb) / ((1.0f + ea) * (1.0f + eb));
}

WMF_INLINE F next_cell(F i, F f, F g, F c) {
  return c / (1.0f + falling_exp(f, 1.0f)) + sigmoid_tanh(i, g);
}

WMF_INLINE F next_hidden(F o, F c) { return sigmoid_tanh(o, c); }

}  // namespace
}  // namespace wmf
