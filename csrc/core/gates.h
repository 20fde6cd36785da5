// The LSTM's update, after its matrix product:
//
//   c' = sigmoid(f) c + sigmoid(i) tanh(g)        h' = sigmoid(o) tanh(c')
//
// Five exponentials and three divisions. What matters here is an absolute error of the order of
// float's (2e-7 in sigmoid and tanh, tested in tests/ops/test_vector_math.py), and speed, because
// this stands between two products. vector_math.h has the functions whose results are the same
// everywhere.
//
// Each function is a chain of operations that wait for one another, so it can be had for one number
// or vector or for a pair of them at once (V = F or Pair): the processor then always has something
// to do.
//
// The includer provides F, Pair, and before this file falling_exp(x, slope) = exp(-slope x) in
// [e^-80, e^80] to 2e-7 of itself, where a NaN stays one (core/falling_exp.h), and quotient(a, b).
#pragma once

namespace wmf {
namespace {

// sigmoid(a) tanh(b) as one division. The product below may overflow: the quotient is then 0, as
// it should.
template <class V>
WMF_INLINE V sigmoid_tanh(V a, V b) {
  const V ea = falling_exp(a, 1.0f), eb = falling_exp(b, 2.0f);
  return quotient(1.0f - eb, (1.0f + ea) * (1.0f + eb));
}

template <class V>
WMF_INLINE V next_cell(V i, V f, V g, V c) {
  return quotient(c, 1.0f + falling_exp(f, 1.0f)) + sigmoid_tanh(i, g);
}

template <class V>
WMF_INLINE V next_hidden(V o, V c) {
  return sigmoid_tanh(o, c);
}

}  // namespace
}  // namespace wmf
