// C in the kernels. What a controller sees is spread over the threads, and over the blocks of a
// group, so its sums are made of parts: one per unit block and one per latent block, each added up
// in an order that is always the same.
#pragma once

// First: it has the words that core/ is written in.
#include "cuda/ptx.cuh"

#include "core/squash.h"
#include "core/vector_math.h"
#include "cuda/layout.h"

namespace wmf::cuda {
namespace {

// The sum of four neighbouring threads, in each of them.
WMF_DEVICE float sum_of_four(float x) {
  x += shuffle_xor(x, 1);
  return x + shuffle_xor(x, 2);
}

// sum + the numbers of threads 0, 4, 8, ..., one after the other: of the first n of them, of 8 at
// most.
WMF_DEVICE float add_in_order(float sum, float x, int n) {
  for (int i = 0; i < 8 && i < n; ++i) sum += shuffle(x, 4 * i);
  return sum;
}

// A unit block is shared by four threads, `quarter` 0 ... 3: units quarter, quarter + 4, ..., + 28.
constexpr int kUnitsOfQuarter = kUnitBlock / 4;

struct UnitValues {
  float h[kUnitsOfQuarter], c[kUnitsOfQuarter];
};

// The quarter's part of output j of the layer that sees h and c. `unit` is its first unit.
WMF_DEVICE float unit_products(const ControlLayout& l, const float* params, int unit, int j,
                               const UnitValues& x) {
  float sum = 0.0f;
  WMF_UNROLL
  for (int i = 0; i < kUnitsOfQuarter; ++i) {
    const int u = unit + 4 * i;
    if (u < l.hidden) {
      if (l.h >= 0) sum = fma(read_only(params + l.h + u * l.outputs + j), x.h[i], sum);
      if (l.c >= 0) sum = fma(read_only(params + l.c + u * l.outputs + j), x.c[i], sum);
    }
  }
  return sum;
}

// One latent's part of output j; 0 behind the last latent, or if z is no feature.
WMF_DEVICE float latent_product(const ControlLayout& l, const float* params, int latent, int j,
                                float z) {
  if (l.z < 0 || latent >= l.latent) return 0.0f;
  return read_only(params + l.z + latent * l.outputs + j) * z;
}

// The second layer's output j, before its tanh; units: the first layer's U outputs.
WMF_DEVICE float second_layer(const ControlLayout& l, const float* params, const float* units,
                              int j) {
  float sum = l.bias2 >= 0 ? read_only(params + l.bias2 + j) : 0.0f;
  for (int i = 0; i < l.units; ++i) {
    sum = fma(units[i], read_only(params + l.weights2 + i * l.action + j), sum);
  }
  return sum;
}

WMF_DEVICE float act(const ControlLayout& l, int j, float y) {
  return squash(tanh(y), l.scale[j], l.shift[j], l.low[j], l.high[j]);
}

}  // namespace
}  // namespace wmf::cuda
