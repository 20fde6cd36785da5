// One step of M for independent rows, as two kernels: the LSTM, then the head on the new h. A block
// takes a tile of rows, and 8 pairs of weights, one for each warp. The arithmetic is the dream's.
#pragma once

// First: it has the words that core/ is written in.
#include "cuda/ptx.cuh"

#include "core/gates.h"
#include "cuda/control.cuh"
#include "cuda/product.cuh"

namespace wmf::cuda {

constexpr int kStepRing = 8;  // stages in flight for each warp

struct StepTask {
  PackedLayout model;
  const float* packed;  // PackedLayout
  StepArrays arrays;    // h does not overlap h_next; c may be c_next
};

// Shared memory of a block with `rows` rows, in bytes.
inline int64_t step_shared_bytes(const PackedLayout& l, int rows) {
  return int64_t{rows} * l.row_bytes + 128 + kWarps * kStepRing * kStageBytes;
}

namespace {

WMF_DEVICE Chunk* step_ring(const PackedLayout& l, int rows) {
  const int begin = (rows * l.row_bytes + 127) / 128 * 128;
  return reinterpret_cast<Chunk*>(shared_memory() + begin) +
         warp_index() * kStepRing * kStageChunks;
}

// This warp's pair of a weight matrix with `pairs` pairs: none if pair_count is 0.
WMF_DEVICE Work step_work(const PackedLayout& l, const float* packed, int pairs, bool is_head) {
  const int first = block_y() * kWarps, left = pairs - first;
  const PairRange range = {first, left < kWarps ? left : kWarps}, none = {0, 0};
  return Work{is_head ? none : range,
              is_head ? range : none,
              warp_index(),
              kWarps,
              l.lstm_stages,
              l.head_stages,
              reinterpret_cast<const Chunk*>(packed + l.lstm_weights),
              reinterpret_cast<const Chunk*>(packed + l.head_weights)};
}

// Number k of an input row.
WMF_DEVICE float input(const PackedLayout& l, const StepArrays& a, int64_t n, int k) {
  if (k < l.padded_hidden) return k < l.hidden ? a.h[n * l.hidden + k] : 0.0f;
  k -= l.padded_hidden;
  if (k < l.latent) return a.z[n * l.latent + k];
  k -= l.latent;
  if (k < l.action) return a.action[n * l.action + k];
  return k == l.action && l.done != 0 && a.restart != nullptr ? a.restart[n] : 0.0f;
}

template <class Operand, int kTiles>
WMF_DEVICE void lstm_rows(const StepTask& t) {
  typedef typename Operand::Number Number;
  const PackedLayout& l = t.model;
  const StepArrays& a = t.arrays;
  const int64_t first_row = int64_t{block_x()} * kTiles * 8;
  unsigned char* rows = shared_memory();
  for (int i = thread_index(); i < kTiles * 8 * l.depth; i += kThreads) {
    const int row = i / l.depth, k = i % l.depth;
    const float x = first_row + row < a.rows ? input(l, a, first_row + row, k) : 0.0f;
    reinterpret_cast<Number*>(rows + row * l.row_bytes)[k] = Operand::make(x);
  }
  sync_block();
  const Work work = step_work(l, t.packed, l.unit_blocks * kPairsPerUnitBlock, false);
  WeightStream weights(work, 0, 1, nullptr, 0, step_ring(l, kTiles * 8), kStepRing);
  if (work.stages() == 0) return;
  const int pair = work.lstm.first + warp_index();
  const Biases bias(t.packed + l.lstm_bias + pair * kPairRows);
  float sums[2][kTiles][4];
  multiply_pair<Operand, kTiles>(sums, weights, l.lstm_stages, rows, l.row_bytes);
  wait_batches<0>();
  const int unit = pair * kPairUnits + lane() / 4;
  WMF_UNROLL
  for (int n = 0; n < kTiles; ++n) {
    WMF_UNROLL
    for (int s = 0; s < 2; ++s) {
      const int64_t row = first_row + n * 8 + lane() % 4 * 2 + s;
      if (row >= a.rows || unit >= l.hidden) continue;
      const float c = next_cell(sums[0][n][s] + bias.row[0], sums[0][n][2 + s] + bias.row[1],
                                sums[1][n][s] + bias.row[2], a.c[row * l.hidden + unit]);
      a.c_next[row * l.hidden + unit] = c;
      a.h_next[row * l.hidden + unit] = next_hidden(sums[1][n][2 + s] + bias.row[3], c);
    }
  }
}

// Outcome i of a row, by one warp.
WMF_DEVICE float outcome(const PackedLayout& l, const float* packed, int i, const float* h) {
  const float* weights = packed + l.outcome_weights + i * l.outcome_row;
  float result = read_only(weights + l.padded_hidden);
  for (int block = 0; block < l.unit_blocks; block += 8) {
    const int unit = (block + lane() / 4) * kUnitBlock + lane() % 4;
    float sum = 0.0f;
    WMF_UNROLL
    for (int k = 0; k < kUnitsOfQuarter; ++k) {
      const int u = unit + 4 * k;
      const bool exists = u < l.hidden;
      sum = fma(exists ? read_only(weights + u) : 0.0f, exists ? h[u] : 0.0f, sum);
    }
    result = add_in_order(result, sum_of_four(sum), l.unit_blocks - block);
  }
  return result;
}

template <class Operand, int kTiles>
WMF_DEVICE void head_rows(const StepTask& t) {
  typedef typename Operand::Number Number;
  const PackedLayout& l = t.model;
  const StepArrays& a = t.arrays;
  const int64_t first_row = int64_t{block_x()} * kTiles * 8;
  unsigned char* rows = shared_memory();
  for (int i = thread_index(); i < kTiles * 8 * l.padded_hidden; i += kThreads) {
    const int row = i / l.padded_hidden, k = i % l.padded_hidden;
    const bool exists = first_row + row < a.rows && k < l.hidden;
    const float x = exists ? a.h_next[(first_row + row) * l.hidden + k] : 0.0f;
    reinterpret_cast<Number*>(rows + row * l.row_bytes)[k] = Operand::make(x);
  }
  if (block_y() == 0) {
    for (int i = warp_index(); i < kTiles * 8 * l.outcomes; i += kWarps) {
      const int64_t row = first_row + i / l.outcomes;
      if (row >= a.rows) break;
      const int which = i % l.outcomes;
      const float x = outcome(l, t.packed, which, a.h_next + row * l.hidden);
      if (lane() == 0) (which < l.done ? a.done_logit : a.reward)[row] = x;
    }
  }
  sync_block();
  const Work work = step_work(l, t.packed, l.latent_blocks * l.head_block_pairs, true);
  WeightStream weights(work, 0, 1, nullptr, 0, step_ring(l, kTiles * 8), kStepRing);
  if (work.stages() == 0) return;
  const int pair = work.head.first + warp_index();
  const Biases bias(t.packed + l.head_bias + pair * kPairRows);
  float sums[2][kTiles][4];
  multiply_pair<Operand, kTiles>(sums, weights, l.head_stages, rows, l.row_bytes);
  wait_batches<0>();
  const int mixtures = l.mixtures;
  WMF_UNROLL
  for (int i = 0; i < 4; ++i) {
    // The pair's row -> latent, and which of its 3 K numbers.
    const int in_block = pair % l.head_block_pairs * kPairRows + 8 * i + lane() / 4;
    const int latent = pair / l.head_block_pairs * kLatentBlock + in_block / (3 * mixtures);
    const int number = in_block % (3 * mixtures);
    if (in_block >= kLatentBlock * 3 * mixtures || latent >= l.latent) continue;
    float* to = number < mixtures ? a.logmix : number < 2 * mixtures ? a.mu : a.logstd;
    WMF_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      WMF_UNROLL
      for (int s = 0; s < 2; ++s) {
        const int64_t row = first_row + n * 8 + lane() % 4 * 2 + s;
        if (row >= a.rows) continue;
        to[(row * l.latent + latent) * mixtures + number % mixtures] =
            sums[i / 2][n][i % 2 * 2 + s] + bias.row[i];
      }
    }
  }
}

}  // namespace
}  // namespace wmf::cuda
