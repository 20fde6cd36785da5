// Compiled once per level, with that level's flags, WMF_LANES, and WMF_KERNELS, the name of its
// table.
//
// Nothing but the table may leave this unit: everything it includes is in unnamed namespaces or
// emits no code. A function shared with other units and compiled here for AVX-512 would crash older
// machines.
#include "cpu/kernels.h"

#include "cpu/dream.h"
#include "cpu/encoder.h"
#include "cpu/peaks.h"

namespace wmf {
namespace {

// From here on the precision is a type: one copy of the code for each.

int64_t packed_size(const MdnRnnDims& dims, Precision precision) {
  return with_format(precision, [&](auto f) { return layout<decltype(f)>(dims).size; });
}

void pack(const MdnRnnWeights& weights, Precision precision, float* packed) {
  with_format(precision, [&](auto f) { pack_mdn_rnn<decltype(f)>(weights, packed); });
}

int64_t step_scratch_size(const PackedMdnRnn& m, int64_t rows) {
  return with_format(m.precision,
                     [&](auto f) { return step_scratch_size<decltype(f)>(m.dims, rows); });
}

void step(const PackedMdnRnn& m, const StepArrays& a, int64_t row_begin, int64_t row_end,
          float* scratch) {
  with_format(m.precision,
              [&](auto f) { step_rows<decltype(f)>(m, a, row_begin, row_end, scratch); });
}

int64_t encoder_packed_size(int64_t latent, Precision precision) {
  return with_float_format(precision,
                           [&](auto f) { return encoder_layout<decltype(f)>(latent).size; });
}

void pack_encoder(const EncoderWeights& weights, Precision precision, float* packed) {
  with_float_format(precision, [&](auto f) { pack_encoder<decltype(f)>(weights, packed); });
}

int64_t encoder_scratch_size(const PackedEncoder& m, int64_t rows) {
  return with_float_format(
      m.precision, [&](auto f) { return encoder_scratch_size<decltype(f)>(m.latent, rows); });
}

void encode(const PackedEncoder& m, const EncoderArrays& a, int64_t row_begin, int64_t row_end,
            float* scratch) {
  with_float_format(m.precision,
                    [&](auto f) { encode_rows<decltype(f)>(m, a, row_begin, row_end, scratch); });
}

int64_t dream_scratch_size(const DreamArrays& a, int64_t slots) {
  return with_format(a.model.precision,
                     [&](auto f) { return dream_scratch_size<decltype(f)>(a, slots); });
}

void dream(const DreamArrays& a, int64_t slots, DreamProgress* progress, DreamTeam* team,
           void (*poll)(void*), void* context, float* scratch) {
  with_format(a.model.precision, [&](auto f) {
    dream<decltype(f)>(a, slots, progress, team, poll, context, scratch);
  });
}

void assist(const DreamArrays& a, DreamTeam* team, int64_t index) {
  with_format(a.model.precision, [&](auto f) { assist<decltype(f)>(a, team, index); });
}

int64_t peak(Precision precision, int64_t rounds) {
  return with_format(precision, [&](auto f) { return peak<decltype(f)>(rounds); });
}

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
      case MathFunction::kGateSigmoid:  // c = 1, and nothing added
        v = next_cell(splat(0.0f), v, splat(0.0f), splat(1.0f));
        break;
      case MathFunction::kGateTanh:  // behind a gate that is open
        v = next_hidden(splat(100.0f), v);
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
    encoder_packed_size,
    pack_encoder,
    step_scratch_size,
    step,
    encoder_scratch_size,
    encode,
    sample_scratch_size,
    sample_rows,
    done_rows,
    initial_rows,
    controller_scratch_size,
    control_rows,
    dream_scratch_size,
    dream,
    assist,
    peak,
    read,
    math,
    philox_words,
};

}  // namespace wmf
