// Compiled once per level, with that level's flags, WMF_LANES, and WMF_KERNELS, the name of its
// table.
//
// Nothing but the table may leave this unit: everything it includes is in unnamed namespaces or
// emits no code. A function shared with other units and compiled here for AVX-512 would crash older
// machines.
#include "cpu/kernels.h"

#include "cpu/dream.h"

namespace wmf {
namespace {

int64_t packed_size(const MdnRnnDims& dims) { return layout(dims).size; }

void math(MathFunction function, const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += W) {
    const int64_t lanes = n - i < W ? n - i : W;
    float buffer[W] = {};
    copy(buffer, x + i, lanes);
    F v = load(buffer);
    switch (function) {
      case MathFunction::kExp:
        v = exp(v);
        break;
      case MathFunction::kLog:
        v = log(v);
        break;
      case MathFunction::kTanh:
        v = tanh(v);
        break;
      case MathFunction::kSigmoid:
        v = sigmoid(v);
        break;
      case MathFunction::kCos2Pi:
        v = cos_2pi(v);
        break;
    }
    store(buffer, v);
    copy(y + i, buffer, lanes);
  }
}

void philox_words(const uint32_t* counter, uint64_t seed, uint32_t* words, int64_t n) {
  for (int64_t i = 0; i < n; i += W) {
    PhiloxWords<U> c = {};
    for (int64_t lane = 0; lane < W && i + lane < n; ++lane) {
      const uint32_t* from = counter + (i + lane) * 4;
      c.w0[lane] = from[0], c.w1[lane] = from[1], c.w2[lane] = from[2], c.w3[lane] = from[3];
    }
    c = philox(c, seed);
    for (int64_t lane = 0; lane < W && i + lane < n; ++lane) {
      uint32_t* to = words + (i + lane) * 4;
      to[0] = c.w0[lane], to[1] = c.w1[lane], to[2] = c.w2[lane], to[3] = c.w3[lane];
    }
  }
}

}  // namespace

extern const Kernels WMF_KERNELS;
const Kernels WMF_KERNELS = {
    packed_size,
    pack,
    step_scratch_size,
    step_rows,
    sample_scratch_size,
    sample_rows,
    controller_scratch_size,
    control_rows,
    dream_scratch_size,
    dream,
    assist,
    math,
    philox_words,
};

}  // namespace wmf
