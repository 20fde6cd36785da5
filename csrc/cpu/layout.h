// Where things lie in memory: M's packed weights, and the rows that the kernels work on.
//
// A row of M's input is [h (Hp) | z (Zp) | action (A) | restart (1 if predicts_done)] in floats, so
// that the LSTM is one product over `depth` numbers and its output h lands at the front of the next
// row. Hp and Zp are H and Z rounded up to W; the surplus weights are 0. The same row in the words
// of a product's format (formats.h) is [words of h | words of the rest].
//
// A weight matrix is cut into panels of 4 vectors, each panel [words][4][W] and contiguous:
//   LSTM: panel p holds the gates i, f, g, o of the hidden units p W ... p W + W - 1;
//   head: latents in groups of W, per group 3 K vectors (logmix, mu, logstd, each K); vector v of
//   all groups is in panel v / 4.
// The head's outcomes, the done logit and the reward, are apart: rows of floats in every format.
#pragma once

#include "cpu/formats.h"

namespace wmf {
namespace {

WMF_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Every array starts on a cache line: sizes are multiples of 16 floats, on every level.
WMF_INLINE int64_t aligned(int64_t n) { return round_up(n, 16); }

// y = W x + bias for the outputs of `panels` panels; borrowed.
struct Panels {
  const float* weights;    // [panels][words][4][W]
  const float* constants;  // [panels][Format::kConstants][4][W]
  int64_t hidden_words;    // the words of h come first
  int64_t words;
  int64_t panels;
};

struct Layout {
  int64_t hidden, latent;  // Hp, Zp
  int64_t inputs;          // what follows h in an input row: Zp + A (+ 1)
  int64_t depth;           // length of an input row
  int64_t row;             // distance between input rows, in floats
  int64_t word_row;        // distance between rows of words
  int64_t hidden_words, words;
  int64_t lstm_panels, head_panels;
  int64_t outcomes;     // the head's rows before the mixtures: done logit, reward
  int64_t outcome_row;  // distance between their weights
  // Offsets into the packed weights, in words.
  int64_t lstm_constants, lstm_weights, head_constants, head_weights;
  int64_t outcome_weights, outcome_biases, size;
};

template <class Format>
WMF_INLINE Layout layout(const MdnRnnDims& d) {
  Layout l{};
  l.hidden = round_up(d.hidden, W);
  l.latent = round_up(d.latent, W);
  l.inputs = l.latent + d.action + (d.predicts_done ? 1 : 0);
  l.depth = l.hidden + l.inputs;
  l.row = aligned(l.depth);
  l.hidden_words = Format::hidden_words(l.hidden);
  l.words = l.hidden_words + Format::input_words(l.inputs);
  l.word_row = aligned(l.hidden_words + Format::input_words(round_up(l.inputs, W)));
  l.lstm_panels = l.hidden / W;
  l.head_panels = (l.latent / W * 3 * d.mixtures + 3) / 4;
  l.lstm_constants = 0;
  l.lstm_weights = l.lstm_constants + aligned(l.lstm_panels * Format::kConstants * 4 * W);
  l.head_constants = l.lstm_weights + aligned(l.lstm_panels * l.words * 4 * W);
  l.head_weights = l.head_constants + aligned(l.head_panels * Format::kConstants * 4 * W);
  l.outcomes = (d.predicts_done ? 1 : 0) + (d.predicts_reward ? 1 : 0);
  l.outcome_row = aligned(l.hidden);
  l.outcome_weights = l.head_weights + aligned(l.head_panels * l.hidden_words * 4 * W);
  l.outcome_biases = l.outcome_weights + l.outcomes * l.outcome_row;
  l.size = l.outcome_biases + aligned(l.outcomes);
  return l;
}

WMF_INLINE Panels lstm_panels(const Layout& l, const float* packed) {
  return Panels{packed + l.lstm_weights, packed + l.lstm_constants, l.hidden_words, l.words,
                l.lstm_panels};
}

WMF_INLINE Panels head_panels(const Layout& l, const float* packed) {
  return Panels{packed + l.head_weights, packed + l.head_constants, l.hidden_words, l.hidden_words,
                l.head_panels};
}

// Fills `packed` (layout.size words, zeroed).
template <class Format>
void pack_mdn_rnn(const MdnRnnWeights& w, float* packed) {
  const MdnRnnDims& d = w.dims;
  const Layout l = layout<Format>(d);
  const int64_t n_inputs = d.latent + d.action + (d.predicts_done ? 1 : 0);  // X

  for (int64_t unit = 0; unit < d.hidden; ++unit) {
    for (int64_t gate = 0; gate < 4; ++gate) {
      const int64_t row = gate * d.hidden + unit;  // of PyTorch's matrices
      const int64_t panel = unit / W, lane = gate * W + unit % W;
      const auto weight = [&](int64_t k) {
        if (k < l.hidden) return k < d.hidden ? w.weight_hh[row * d.hidden + k] : 0.0f;
        const int64_t input = k - l.hidden;
        if (input < l.latent) return input < d.latent ? w.weight_ih[row * n_inputs + input] : 0.0f;
        return w.weight_ih[row * n_inputs + d.latent + input - l.latent];
      };
      Format::pack(weight, l.hidden, l.inputs, w.bias[row],
                   packed + l.lstm_weights + panel * l.words * 4 * W + lane,
                   packed + l.lstm_constants + panel * Format::kConstants * 4 * W + lane);
    }
  }

  const int64_t per_latent = 3 * d.mixtures;
  for (int64_t z = 0; z < d.latent; ++z) {
    for (int64_t j = 0; j < per_latent; ++j) {
      const int64_t row = l.outcomes + z * per_latent + j;
      const int64_t vector = z / W * per_latent + j;
      const int64_t panel = vector / 4, lane = vector % 4 * W + z % W;
      const auto weight = [&](int64_t k) {
        return k < d.hidden ? w.head_weight[row * d.hidden + k] : 0.0f;
      };
      Format::pack(weight, l.hidden, 0, w.head_bias[row],
                   packed + l.head_weights + panel * l.hidden_words * 4 * W + lane,
                   packed + l.head_constants + panel * Format::kConstants * 4 * W + lane);
    }
  }
  for (int64_t i = 0; i < l.outcomes; ++i) {
    float* row = packed + l.outcome_weights + i * l.outcome_row;
    for (int64_t k = 0; k < d.hidden; ++k) row[k] = w.head_weight[i * d.hidden + k];
    packed[l.outcome_biases + i] = w.head_bias[i];
  }
}

// Cuts one allocation into aligned arrays.
struct Arena {
  float* next;
  WMF_INLINE float* take(int64_t n) {
    float* p = next;
    next += aligned(n);
    return p;
  }
};

// Input rows as floats, and as the words that the product reads. In Fp32 these are the same memory.
struct Rows {
  float* x;  // (rows, l.row)
  Word* q;   // (rows, l.word_row)
};

// Floats that `take_rows` needs per row.
template <class Format>
WMF_INLINE int64_t row_size(const Layout& l) {
  return l.row + (Format::kRowIsOperand ? 0 : l.word_row);
}

template <class Format>
WMF_INLINE Rows take_rows(Arena* arena, const Layout& l, int64_t n) {
  float* x = arena->take(n * l.row);
  float* q = Format::kRowIsOperand ? x : arena->take(n * l.word_row);
  return Rows{x, reinterpret_cast<Word*>(q)};
}

}  // namespace
}  // namespace wmf
