// Where things lie in memory: M's packed weights, and the rows that the kernels work on.
//
// A row of M's input is [h (Hp) | z (Zp) | action (A) | restart (1 if predicts_done)], so that the
// LSTM is one product over `depth` numbers and its output h lands at the front of the next row. Hp
// and Zp are H and Z rounded up to W; the surplus weights are 0.
//
// A weight matrix is cut into panels of 4 vectors, each panel [depth][4][W] and contiguous:
//   LSTM: panel p holds the gates i, f, g, o of the hidden units p W ... p W + W - 1;
//   head: latents in groups of W, per group 3 K vectors (logmix, mu, logstd, each K); vector v of
//   all
//         groups is in panel v / 4.
#pragma once

#include "core/model.h"
#include "cpu/simd.h"

namespace wmf {
namespace {

WMF_INLINE int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Every array starts on a cache line: sizes are multiples of 16 floats, on every level.
WMF_INLINE int64_t aligned(int64_t n) { return round_up(n, 16); }

// y = W x + bias for the outputs of `panels` panels; borrowed.
struct Panels {
  const float* weights;  // [panels][depth][4][W]
  const float* bias;     // [panels][4][W]
  int64_t depth;
  int64_t panels;
};

struct Layout {
  int64_t hidden, latent;  // Hp, Zp
  int64_t depth;           // of the LSTM: length of an input row
  int64_t row;             // distance between input rows, in floats
  int64_t lstm_panels, head_panels;
  // Offsets into the packed weights, in floats.
  int64_t lstm_bias, lstm_weights, head_bias, head_weights, done_weights, done_bias, size;
};

WMF_INLINE Layout layout(const MdnRnnDims& d) {
  Layout l{};
  l.hidden = round_up(d.hidden, W);
  l.latent = round_up(d.latent, W);
  l.depth = l.hidden + l.latent + d.action + (d.predicts_done ? 1 : 0);
  l.row = aligned(l.depth);
  l.lstm_panels = l.hidden / W;
  l.head_panels = (l.latent / W * 3 * d.mixtures + 3) / 4;
  l.lstm_bias = 0;
  l.lstm_weights = l.lstm_bias + aligned(l.lstm_panels * 4 * W);
  l.head_bias = l.lstm_weights + aligned(l.lstm_panels * l.depth * 4 * W);
  l.head_weights = l.head_bias + aligned(l.head_panels * 4 * W);
  l.done_weights = l.head_weights + aligned(l.head_panels * l.hidden * 4 * W);
  l.done_bias = l.done_weights + aligned(d.predicts_done ? l.hidden : 0);
  l.size = l.done_bias + aligned(1);
  return l;
}

WMF_INLINE Panels lstm_panels(const Layout& l, const float* packed) {
  return Panels{packed + l.lstm_weights, packed + l.lstm_bias, l.depth, l.lstm_panels};
}

WMF_INLINE Panels head_panels(const Layout& l, const float* packed) {
  return Panels{packed + l.head_weights, packed + l.head_bias, l.hidden, l.head_panels};
}

// Fills `packed` (layout.size floats, zeroed).
void pack(const MdnRnnWeights& w, float* packed) {
  const MdnRnnDims& d = w.dims;
  const Layout l = layout(d);
  const int64_t n_inputs = d.latent + d.action + (d.predicts_done ? 1 : 0);

  for (int64_t unit = 0; unit < d.hidden; ++unit) {
    for (int64_t gate = 0; gate < 4; ++gate) {
      const int64_t row = gate * d.hidden + unit;  // of PyTorch's matrices
      const int64_t panel = unit / W, lane = gate * W + unit % W;
      packed[l.lstm_bias + panel * 4 * W + lane] = w.bias[row];
      float* column = packed + l.lstm_weights + panel * l.depth * 4 * W + lane;
      for (int64_t k = 0; k < d.hidden; ++k) column[k * 4 * W] = w.weight_hh[row * d.hidden + k];
      for (int64_t k = 0; k < n_inputs; ++k) {
        const int64_t place = l.hidden + (k < d.latent ? k : l.latent + k - d.latent);
        column[place * 4 * W] = w.weight_ih[row * n_inputs + k];
      }
    }
  }

  const int64_t first = d.predicts_done ? 1 : 0;
  const int64_t per_latent = 3 * d.mixtures;
  for (int64_t z = 0; z < d.latent; ++z) {
    for (int64_t j = 0; j < per_latent; ++j) {
      const int64_t row = first + z * per_latent + j;
      const int64_t vector = z / W * per_latent + j;
      const int64_t panel = vector / 4, lane = vector % 4 * W + z % W;
      packed[l.head_bias + panel * 4 * W + lane] = w.head_bias[row];
      float* column = packed + l.head_weights + panel * l.hidden * 4 * W + lane;
      for (int64_t k = 0; k < d.hidden; ++k) column[k * 4 * W] = w.head_weight[row * d.hidden + k];
    }
  }
  if (d.predicts_done) {
    for (int64_t k = 0; k < d.hidden; ++k) packed[l.done_weights + k] = w.head_weight[k];
    packed[l.done_bias] = w.head_bias[0];
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

}  // namespace
}  // namespace wmf
