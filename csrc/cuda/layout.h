// Where things lie: M's packed weights in global memory, and one block's share of a dream in shared
// memory. Computed on the host, handed to the kernels by value.
//
// A row of M's input is [h (Hp) | z (Z) | action (A) | restart (1 if predicts_done) | zeros], Hp =
// H rounded up to whole unit blocks, in the products' operands (halves or floats).
//
// The rows of a weight matrix are taken 32 at a time, a "pair" of the matrix unit's 16 rows:
//   LSTM: pair p holds units 8 p ... 8 p + 7, row gate * 8 + unit, gates i, f, g, o. A thread thus
//         gets all four gates of a unit, and the LSTM is finished in its registers;
//   head: latent block b is latents 4 b ... 4 b + 3, with rows latent * 3 K + [logmix K | mu K |
//         logstd K], zeros up to whole pairs.
// Along k a pair is cut into stages of 1 KiB, which is what a warp asks for at a time:
//   halves: 16 k; [2 x 16 rows][thread][16 bytes], each thread's part of the matrix unit's operand;
//   floats: 8 k; [k][unit][gate], the head's rows likewise.
//
// What is added up across units is added up per unit block of 32 (or latent block of 4), and the
// blocks' sums in their order. So results do not depend on how many thread blocks share the units.
#pragma once

#include <cstdint>

#include "core/model.h"

namespace wmf::cuda {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kUnitBlock = 32, kLatentBlock = 4;
constexpr int kPairUnits = 8, kPairRows = 32;
constexpr int kPairsPerUnitBlock = kUnitBlock / kPairUnits;
constexpr int kStageFloats = 256;
constexpr int kStageBytes = 4 * kStageFloats;
constexpr int kMaxGroup = 16;
constexpr int kMaxActions = 64;  // the squash travels with the kernel's arguments

inline int round_up(int64_t n, int multiple) {
  return static_cast<int>((n + multiple - 1) / multiple) * multiple;
}

struct PackedLayout {
  int latent, action, hidden, mixtures;  // Z, A, H, K
  int done, reward;                      // 1 if M predicts it
  int outcomes;       // done + reward: the head's rows before the mixtures, in floats
  int operand_bytes;  // 2 or 4
  int stage_depth;    // numbers along k in a stage
  int padded_hidden;  // Hp
  int depth;          // length of a row
  int row_bytes;      // between rows in shared memory: 16 * an odd number
  int unit_blocks, latent_blocks;
  int head_block_pairs;          // pairs of a latent block
  int lstm_stages, head_stages;  // of one pair
  // Offsets in floats.
  int64_t lstm_weights;     // [pair][stage][256]
  int64_t lstm_bias;        // [pair][32]
  int64_t head_weights;     // [pair][stage][256]
  int64_t head_bias;        // [pair][32]
  int64_t outcome_weights;  // [outcome][outcome_row]: Hp weights, the bias, zeros
  int outcome_row;
  int64_t size;
};

// precision: kFp32 or kFp16.
inline PackedLayout packed_layout(const MdnRnnDims& d, Precision precision) {
  PackedLayout l{};
  l.latent = static_cast<int>(d.latent);
  l.action = static_cast<int>(d.action);
  l.hidden = static_cast<int>(d.hidden);
  l.mixtures = static_cast<int>(d.mixtures);
  l.done = d.predicts_done ? 1 : 0;
  l.reward = d.predicts_reward ? 1 : 0;
  l.outcomes = l.done + l.reward;
  l.operand_bytes = precision == Precision::kFp16 ? 2 : 4;
  l.stage_depth = precision == Precision::kFp16 ? 16 : 8;
  l.padded_hidden = round_up(d.hidden, kUnitBlock);
  l.depth = round_up(l.padded_hidden + d.latent + d.action + l.done, l.stage_depth);
  l.row_bytes = l.depth * l.operand_bytes + 16;
  l.unit_blocks = l.padded_hidden / kUnitBlock;
  l.latent_blocks = round_up(d.latent, kLatentBlock) / kLatentBlock;
  l.head_block_pairs = round_up(kLatentBlock * 3 * d.mixtures, kPairRows) / kPairRows;
  l.lstm_stages = l.depth / l.stage_depth;
  l.head_stages = l.padded_hidden / l.stage_depth;
  const int64_t lstm_pairs = l.unit_blocks * kPairsPerUnitBlock;
  const int64_t head_pairs = int64_t{l.latent_blocks} * l.head_block_pairs;
  l.lstm_weights = 0;
  l.lstm_bias = l.lstm_weights + lstm_pairs * l.lstm_stages * kStageFloats;
  l.head_weights = l.lstm_bias + lstm_pairs * kPairRows;
  l.head_bias = l.head_weights + head_pairs * l.head_stages * kStageFloats;
  l.outcome_weights = l.head_bias + head_pairs * kPairRows;
  l.outcome_row = l.padded_hidden + 32;
  l.size = l.outcome_weights + int64_t{l.outcomes} * l.outcome_row;
  return l;
}

// Which of a controller's parameters are what. Offsets in floats into one member's parameters.
struct ControlLayout {
  int latent, hidden, action;
  int outputs;  // of the layer that sees the features: U, or A if it is the only one
  int units;    // U; 0 for a linear controller
  int bias1;    // -1 if there are none
  int z, h, c;  // first weight of the feature's first input; -1 if it is none. Input i's weight
                // for output j is at z + i * outputs + j
  int bias2, weights2;  // of the second layer, if there is one
  int64_t n_params;
  float scale[kMaxActions], shift[kMaxActions], low[kMaxActions], high[kMaxActions];
};

// spec.action <= kMaxActions.
inline ControlLayout control_layout(const ControllerSpec& s) {
  ControlLayout l{};
  l.latent = static_cast<int>(s.latent);
  l.hidden = static_cast<int>(s.hidden);
  l.action = static_cast<int>(s.action);
  l.units = static_cast<int>(s.hidden_units);
  l.outputs = l.units > 0 ? l.units : l.action;
  l.bias1 = l.bias2 = l.z = l.h = l.c = -1;
  int64_t next = 0;
  if (s.bias) {
    l.bias1 = 0;
    next += l.outputs;
  }
  for (int64_t f = 0; f < s.n_features; ++f) {
    int& first = s.features[f] == 'z' ? l.z : s.features[f] == 'h' ? l.h : l.c;
    first = static_cast<int>(next);
    next += (s.features[f] == 'z' ? s.latent : s.hidden) * l.outputs;
  }
  if (l.units > 0) {
    if (s.bias) {
      l.bias2 = static_cast<int>(next);
      next += s.action;
    }
    l.weights2 = static_cast<int>(next);
    next += s.hidden_units * s.action;
  }
  l.n_params = next;
  for (int64_t j = 0; j < s.action; ++j) {
    l.scale[j] = s.scale[j];
    l.shift[j] = s.shift[j];
    l.low[j] = s.low[j];
    l.high[j] = s.high[j];
  }
  return l;
}

// How a block's warps share a product: `streams` warps side by side, each with pairs of its own,
// times `parts` along the slots, each with `tiles` tiles of 8 slots. streams * parts = kWarps.
struct Shape {
  int tiles, parts, streams;
};

// One block's shared memory in a dream. Offsets in bytes.
struct DreamLayout {
  int group, slots;  // G blocks share the units and latents of S slots
  Shape shape;
  int slot_stride;     // between units (latents, logits) in arrays of [unit][slot] floats
  int lstm_chunk;      // unit blocks that are worked on at a time
  int head_chunk;      // latent blocks, likewise
  int resident;        // stages of each stream's weights that stay in shared memory
  int ring;            // stages in flight for the others: 4 or 8
  int partials;        // per (block, slot): outputs of the controller's layer, followed by outcomes
  int rows[2];         // [slot] rows of operands, of this step and the next
  int cell;            // [own unit][slot] c
  int hidden;          // [unit of the chunk][slot] h
  int logits;          // [row of the chunk][slot]
  int unit_partial;    // [2][unit block][slot][partials]
  int latent_partial;  // [latent block][slot][outputs]
  int units;           // [slot][U], the controller's first layer
  int rollout;         // [slot] int64, -1 for none
  int mail;            // [slot] int64, what becomes of a slot: see dream_rollout.cuh
  int noise_id;        // [slot]
  int member;          // [slot]
  int step;            // [slot]
  int rewards;         // [slot], the sum so far, in the group's first block
  int resident_weights;  // [stream][resident] stages
  int ring_weights;      // [stream][ring] stages
  int size;
};

inline int largest_share(int n, int group) { return (n + group - 1) / group; }

// Stages of weights that the busiest stream of the busiest block reads in a step.
inline int stages_per_stream(const PackedLayout& m, int group, int streams) {
  const int lstm = largest_share(m.unit_blocks, group) * kPairsPerUnitBlock;
  const int head = largest_share(m.latent_blocks, group) * m.head_block_pairs;
  return (lstm + streams - 1) / streams * m.lstm_stages +
         (head + streams - 1) / streams * m.head_stages;
}

// As much of the weights stays in shared memory as fits into `limit` bytes. size > limit if the
// rest alone is too large.
inline DreamLayout dream_layout(const PackedLayout& m, const ControlLayout& c, int group, int slots,
                                Shape shape, int limit) {
  DreamLayout l{};
  l.group = group;
  l.slots = slots;
  l.shape = shape;
  // 8 or 24 modulo 32, so that neither 8 units x 4 slots nor 4 units x 8 slots meet in a bank.
  l.slot_stride = slots == 8 ? 8 : slots + 8;
  const int own_units = largest_share(m.unit_blocks, group);
  const int own_latents = largest_share(m.latent_blocks, group);
  l.lstm_chunk = own_units < 2 ? own_units : 2;
  l.head_chunk = m.head_block_pairs < kWarps ? kWarps / m.head_block_pairs : 1;
  if (l.head_chunk > own_latents) l.head_chunk = own_latents;
  l.partials = c.outputs + m.outcomes;

  int64_t next = 0;
  const auto take = [&next](int64_t bytes) {
    const int64_t here = next;
    next += (bytes + 127) / 128 * 128;
    return static_cast<int>(here < INT32_MAX ? here : INT32_MAX);
  };
  const int64_t line = 4 * l.slot_stride;
  l.rows[0] = take(int64_t{slots} * m.row_bytes);
  l.rows[1] = take(int64_t{slots} * m.row_bytes);
  l.cell = take(int64_t{own_units} * kUnitBlock * line);
  // h of a chunk has been read by all when the head's first logit is written, and the other way
  // round.
  const int64_t chunk_units = int64_t{l.lstm_chunk} * kUnitBlock;
  const int64_t chunk_rows = int64_t{l.head_chunk} * m.head_block_pairs * kPairRows;
  l.hidden = take((chunk_units > chunk_rows ? chunk_units : chunk_rows) * line);
  l.logits = l.hidden;
  l.unit_partial = take(int64_t{2} * m.unit_blocks * slots * l.partials * 4);
  l.latent_partial = take(int64_t{m.latent_blocks} * slots * c.outputs * 4);
  l.units = take(int64_t{slots} * c.units * 4);
  l.rollout = take(slots * 8);
  l.mail = take(slots * 8);
  l.noise_id = take(slots * 4);
  l.member = take(slots * 4);
  l.step = take(slots * 4);
  l.rewards = take(m.reward != 0 ? slots * 4 : 0);

  const int64_t all = stages_per_stream(m, group, shape.streams);
  const int lstm_pairs = own_units * kPairsPerUnitBlock;
  const int head_pairs = own_latents * m.head_block_pairs;
  const int pairs = lstm_pairs > head_pairs ? lstm_pairs : head_pairs;
  // Streams behind the last pair have nothing to do, and need no room.
  const int64_t stage = int64_t{pairs < shape.streams ? pairs : shape.streams} * kStageBytes;
  const int64_t room = next < limit ? (limit - next) / stage : 0;  // stages for each stream
  if (room >= all) {
    l.resident = static_cast<int>(all);
    l.ring = 4;  // not used
  } else {
    l.ring = room >= 8 ? 8 : 4;
    l.resident = static_cast<int>(room > l.ring ? room - l.ring : 0);
  }
  l.resident_weights = take(l.resident * stage);
  l.ring_weights = take(room >= all ? 0 : l.ring * stage);
  l.size = static_cast<int>(next < INT32_MAX ? next : INT32_MAX);
  return l;
}

}  // namespace wmf::cuda
