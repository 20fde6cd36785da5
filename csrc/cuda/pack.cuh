// M's weights from PyTorch's order into PackedLayout's.
#pragma once

// First: it has the words that core/ is written in.
#include "cuda/ptx.cuh"

#include "cuda/layout.h"

namespace wmf::cuda {

struct PackTask {
  PackedLayout model;
  MdnRnnWeights weights;  // device pointers
  float* packed;          // (model.size)
};

namespace {

// The weight of the LSTM's row `row` of pair `pair` at place k of an input row; 0 for padding.
WMF_DEVICE float lstm_weight(const PackTask& t, int pair, int row, int k) {
  const PackedLayout& l = t.model;
  const int unit = pair * kPairUnits + row % kPairUnits, gate = row / kPairUnits;
  if (unit >= l.hidden) return 0.0f;
  const int64_t from = int64_t{gate} * l.hidden + unit;
  if (k < l.padded_hidden) return k < l.hidden ? t.weights.weight_hh[from * l.hidden + k] : 0.0f;
  const int inputs = l.latent + l.action + l.done, input = k - l.padded_hidden;
  return input < inputs ? t.weights.weight_ih[from * inputs + input] : 0.0f;
}

// Where row `row` of pair `pair` is in head_weight; -1 for padding.
WMF_DEVICE int64_t head_row(const PackedLayout& l, int pair, int row) {
  const int mixture_rows = 3 * l.mixtures;
  const int block = pair / l.head_block_pairs;
  const int in_block = pair % l.head_block_pairs * kPairRows + row;
  const int latent = block * kLatentBlock + in_block / mixture_rows;
  if (in_block >= kLatentBlock * mixture_rows || latent >= l.latent) return -1;
  return l.outcomes + int64_t{latent} * mixture_rows + in_block % mixture_rows;
}

WMF_DEVICE float head_weight(const PackTask& t, int pair, int row, int k) {
  const int64_t from = head_row(t.model, pair, row);
  return from < 0 || k >= t.model.hidden ? 0.0f : t.weights.head_weight[from * t.model.hidden + k];
}

// Float `i` of a pair's stage beginning at k, as layout.h says. weight(row, k).
template <class Weight>
WMF_DEVICE float stage_word(const PackedLayout& l, int i, int k, const Weight& weight) {
  if (l.operand_bytes == 4) return weight(i % 4 * 8 + i / 4 % 8, k + i / 32);
  // Word `word` of thread 4 g + t of the operand of rows 16 half ... 16 half + 15 (ptx.cuh).
  const int half = i / 128, thread = i / 4 % 32, word = i % 4;
  const int row = half * 16 + thread / 4 + word % 2 * 8;
  const int column = k + thread % 4 * 2 + word / 2 * 8;
  const uint32_t low = to_half(weight(row, column)), high = to_half(weight(row, column + 1));
  return as_float(low | high << 16);
}

// Thread n of all writes number n, n + all, ...
WMF_DEVICE void pack(const PackTask& t) {
  const PackedLayout& l = t.model;
  const int64_t all = int64_t{blocks_x()} * kThreads;
  for (int64_t n = int64_t{block_x()} * kThreads + thread_index(); n < l.size; n += all) {
    float x = 0.0f;
    if (n < l.lstm_bias) {
      const int64_t stage = (n - l.lstm_weights) / kStageFloats;
      const int pair = static_cast<int>(stage / l.lstm_stages);
      x = stage_word(l, static_cast<int>(n % kStageFloats),
                     static_cast<int>(stage % l.lstm_stages) * l.stage_depth,
                     [&](int row, int k) { return lstm_weight(t, pair, row, k); });
    } else if (n < l.head_weights) {
      const int i = static_cast<int>(n - l.lstm_bias);
      const int unit = i / kPairRows * kPairUnits + i % kPairUnits;
      const int gate = i % kPairRows / kPairUnits;
      if (unit < l.hidden) x = t.weights.bias[int64_t{gate} * l.hidden + unit];
    } else if (n < l.head_bias) {
      const int64_t stage = (n - l.head_weights) / kStageFloats;
      const int pair = static_cast<int>(stage / l.head_stages);
      x = stage_word(l, static_cast<int>((n - l.head_weights) % kStageFloats),
                     static_cast<int>(stage % l.head_stages) * l.stage_depth,
                     [&](int row, int k) { return head_weight(t, pair, row, k); });
    } else if (n < l.outcome_weights) {
      const int i = static_cast<int>(n - l.head_bias);
      const int64_t row = head_row(l, i / kPairRows, i % kPairRows);
      if (row >= 0) x = t.weights.head_bias[row];
    } else {
      const int row = static_cast<int>(n - l.outcome_weights) / l.outcome_row;
      const int i = static_cast<int>(n - l.outcome_weights) % l.outcome_row;
      if (i < l.hidden) x = t.weights.head_weight[row * l.hidden + i];
      if (i == l.padded_hidden) x = t.weights.head_bias[row];
    }
    t.packed[n] = x;
  }
}

}  // namespace
}  // namespace wmf::cuda
