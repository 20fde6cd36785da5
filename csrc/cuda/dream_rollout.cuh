// Whole dreams: a group of blocks owns some slots, each slot plays one rollout, and a rollout that
// ends gives its slot to the next one waiting. Groups know nothing of each other but the counter of
// rollouts taken. A rollout does not know its slot: its noise comes from its id, and every number
// is computed from its own row in an order that depends on the model only.
//
// In a group of G blocks each owns 1 / G of the units and of the latents, for all slots, and all of
// them hold all rows. A step:
//   control  every block computes all actions from the parts of the controllers' sums
//   LSTM     of the own units; h goes to all blocks, and so do the parts of the controllers', the
//            done logits' and the rewards' sums that come from them       -> the group meets
//   head     of the own latents, sampled on the spot; z and its parts go to all blocks. Meanwhile
//            the group's first block finds out which rollouts end, and says in every block's mail
//            what becomes of each slot                                    -> the group meets
//   refill   slots that got a new rollout start it; every block does this for itself
// Rows, and the parts that come from units, are kept twice, for even and odd steps, because a block
// may still read those of the last step when others write those of this one. All else that others
// write is separated from its readers by one of the two meetings.
#pragma once

// First: it has the words that core/ is written in.
#include "cuda/ptx.cuh"

#include "core/gates.h"
#include "core/mixture.h"
#include "cuda/control.cuh"
#include "cuda/product.cuh"

namespace wmf::cuda {

// The mail: what becomes of a slot; a rollout's number, or one of these.
constexpr int64_t kStays = -2, kEmpty = -1;

struct DreamTask {
  PackedLayout model;
  ControlLayout control;
  DreamLayout shared;
  const float* packed;                 // PackedLayout
  const float* params;                 // (P, n_params)
  const float* initial_mu;             // (I, Z)
  const float* initial_logvar;         // (I, Z)
  int64_t n_initial, rollouts, total;  // I, R, P * R
  uint64_t seed;
  float temperature, done_threshold, done_temperature;
  int32_t max_steps;
  bool common_noise;
  float* returns;         // (P, R)
  int32_t* lengths;       // (P, R)
  int64_t* next_rollout;  // 0 at first
  const int32_t* stop;    // the host's; not 0: give up. May be null
};

namespace {

// One block's view of the dream.
struct DreamBlock {
  const DreamTask& task;
  unsigned char* memory;
  int rank;                                 // in the group
  int first_unit_block, n_unit_blocks;      // own
  int first_latent_block, n_latent_blocks;  // own

  template <class T>
  WMF_DEVICE T* at(int offset) const {
    return reinterpret_cast<T*>(memory + offset);
  }
  WMF_DEVICE int64_t* rollout() const { return at<int64_t>(task.shared.rollout); }
  WMF_DEVICE int64_t* mail() const { return at<int64_t>(task.shared.mail); }
  WMF_DEVICE uint32_t* noise_id() const { return at<uint32_t>(task.shared.noise_id); }
  WMF_DEVICE int* member() const { return at<int>(task.shared.member); }
  WMF_DEVICE int* step() const { return at<int>(task.shared.step); }
  WMF_DEVICE float* rewards() const { return at<float>(task.shared.rewards); }
  WMF_DEVICE float* cell() const { return at<float>(task.shared.cell); }
  WMF_DEVICE float* unit_part(int which, int block, int slot) const {
    const int blocks = task.model.unit_blocks;
    return at<float>(task.shared.unit_partial) +
           ((which * blocks + block) * task.shared.slots + slot) * task.shared.partials;
  }
  WMF_DEVICE float* latent_part(int block, int slot) const {
    return at<float>(task.shared.latent_partial) +
           (block * task.shared.slots + slot) * task.control.outputs;
  }
  template <class Number>
  WMF_DEVICE Number* row(int which, int slot) const {
    return at<Number>(task.shared.rows[which] + slot * task.model.row_bytes);
  }
  WMF_DEVICE const float* params(int slot) const {
    return task.params + member()[slot] * task.control.n_params;
  }

  WMF_DEVICE void meet() const {
    if (task.shared.group > 1) {
      sync_group();
    } else {
      sync_block();
    }
  }
  // p's counterpart in block `other` of the group.
  template <class T>
  WMF_DEVICE T* in(int other, T* p) const {
    return other == rank ? p : in_block(p, other);
  }
  // Writes x at p in every block of the group.
  template <class T>
  WMF_DEVICE void tell_all(T* p, T x) const {
    for (int other = 0; other < task.shared.group; ++other) *in(other, p) = x;
  }
};

// The actions of all slots, and the restart flags, into the rows.
template <class Operand>
WMF_DEVICE void control(const DreamBlock& b, int which) {
  typedef typename Operand::Number Number;
  const DreamTask& t = b.task;
  const ControlLayout& l = t.control;
  const int first = t.model.padded_hidden + l.latent;  // an action's place in a row
  float* units = b.at<float>(t.shared.units);
  for (int i = thread_index(); i < t.shared.slots * l.outputs; i += kThreads) {
    const int slot = i / l.outputs, j = i % l.outputs;
    float y = l.bias1 >= 0 ? read_only(b.params(slot) + l.bias1 + j) : 0.0f;
    if (l.z >= 0) {
      for (int k = 0; k < t.model.latent_blocks; ++k) y += b.latent_part(k, slot)[j];
    }
    if (l.h >= 0 || l.c >= 0) {
      for (int k = 0; k < t.model.unit_blocks; ++k) y += b.unit_part(which, k, slot)[j];
    }
    if (l.units > 0) {
      units[i] = tanh(y);
    } else {
      b.row<Number>(which, slot)[first + j] = Operand::make(act(l, j, y));
    }
  }
  if (t.model.done != 0) {
    for (int slot = thread_index(); slot < t.shared.slots; slot += kThreads) {
      const float restart = b.step()[slot] == 0 ? 1.0f : 0.0f;
      b.row<Number>(which, slot)[first + l.action] = Operand::make(restart);
    }
  }
  sync_block();
  if (l.units == 0) return;
  for (int i = thread_index(); i < t.shared.slots * l.action; i += kThreads) {
    const int slot = i / l.action, j = i % l.action;
    const float y = second_layer(l, b.params(slot), units + slot * l.units, j);
    b.row<Number>(which, slot)[first + j] = Operand::make(act(l, j, y));
  }
  sync_block();
}

// Two slots side by side.
struct alignas(8) Two {
  float a, b;
};

// c' and h' of one pair's units, from its products. `unit`: this thread's, among the own ones;
// `place`: the same in the chunk.
template <class Operand, int kTiles>
WMF_DEVICE void update_units(const DreamBlock& b, const Sums<kTiles>& sums, const Biases& bias,
                             int next, int first_slot, int unit, int place) {
  typedef typename Operand::Number Number;
  const DreamLayout& l = b.task.shared;
  float* cells = b.cell() + unit * l.slot_stride;
  float* hidden = b.at<float>(l.hidden) + place * l.slot_stride;
  const int column = b.first_unit_block * kUnitBlock + unit;
  WMF_UNROLL
  for (int n = 0; n < kTiles; ++n) {
    const int slot = first_slot + n * 8 + lane() % 4 * 2;
    Two* cell = reinterpret_cast<Two*>(cells + slot);
    const auto c_next = [&](int s, float c) {
      return next_cell(sums[0][n][s] + bias.row[0], sums[0][n][2 + s] + bias.row[1],
                       sums[1][n][s] + bias.row[2], c);
    };
    const Two c = {c_next(0, cell->a), c_next(1, cell->b)};
    const Two h = {next_hidden(sums[1][n][2] + bias.row[3], c.a),
                   next_hidden(sums[1][n][3] + bias.row[3], c.b)};
    *cell = c;
    *reinterpret_cast<Two*>(hidden + slot) = h;
    b.row<Number>(next, slot)[column] = Operand::make(h.a);
    b.row<Number>(next, slot + 1)[column] = Operand::make(h.b);
  }
}

// What the units of one chunk mean to the other blocks, the controllers and the outcomes.
template <class Operand>
WMF_DEVICE void publish_units(const DreamBlock& b, int next, int first, int count) {
  const DreamTask& t = b.task;
  const DreamLayout& s = t.shared;
  const ControlLayout& l = t.control;
  // h, 16 bytes at a time, to the other blocks.
  if (s.group > 1) {
    const int per_slot =
        count * kUnitBlock * static_cast<int>(sizeof(typename Operand::Number)) / 16;
    const int column = (b.first_unit_block + first) * kUnitBlock;
    for (int i = thread_index(); i < s.slots * per_slot; i += kThreads) {
      Chunk* p =
          reinterpret_cast<Chunk*>(b.row<typename Operand::Number>(next, i / per_slot) + column) +
          i % per_slot;
      const Chunk h = *p;
      for (int other = 0; other < s.group; ++other) {
        if (other != b.rank) *b.in(other, p) = h;
      }
    }
  }
  // Four threads to a unit block of a slot.
  const bool sees_units = l.h >= 0 || l.c >= 0;
  for (int i = thread_index(); i < count * s.slots * 4; i += kThreads) {
    const int quarter = i % 4, slot = i / 4 % s.slots, block = i / 4 / s.slots;
    const int own = (first + block) * kUnitBlock + quarter;
    const int unit = b.first_unit_block * kUnitBlock + own;
    const float* hidden =
        b.at<float>(s.hidden) + (block * kUnitBlock + quarter) * s.slot_stride + slot;
    const float* cell = b.cell() + own * s.slot_stride + slot;
    UnitValues x;
    WMF_UNROLL
    for (int k = 0; k < kUnitsOfQuarter; ++k) {
      x.h[k] = hidden[4 * k * s.slot_stride];
      x.c[k] = cell[4 * k * s.slot_stride];
    }
    float* part = b.unit_part(next, b.first_unit_block + first + block, slot);
    const float* params = b.params(slot);
    for (int j = sees_units ? 0 : l.outputs; j < s.partials; ++j) {
      float sum = 0.0f;
      if (j < l.outputs) {
        sum = unit_products(l, params, unit, j, x);
      } else {
        const float* weights =
            t.packed + t.model.outcome_weights + (j - l.outputs) * t.model.outcome_row;
        WMF_UNROLL
        for (int k = 0; k < kUnitsOfQuarter; ++k) {
          sum = fma(read_only(weights + unit + 4 * k), x.h[k], sum);
        }
      }
      sum = sum_of_four(sum);
      for (int other = quarter; other < s.group; other += 4) *b.in(other, part + j) = sum;
    }
  }
}

// z of one latent of a slot, into the rows and the controllers' sums of the group's blocks `from`
// to `to` - 1. Four neighbouring threads have a latent block together, and all of a warp come
// along.
template <class Operand>
WMF_DEVICE void publish_latent(const DreamBlock& b, int next, int slot, int latent, float z,
                               int from, int to) {
  const DreamTask& t = b.task;
  const ControlLayout& l = t.control;
  if (latent < l.latent) {
    auto* p = b.row<typename Operand::Number>(next, slot) + t.model.padded_hidden + latent;
    const auto number = Operand::make(z);
    for (int other = from; other < to; ++other) *b.in(other, p) = number;
  }
  if (l.z < 0) return;
  float* part = b.latent_part(latent / kLatentBlock, slot);
  const float* params = b.params(slot);
  for (int j = 0; j < l.outputs; ++j) {
    const float sum = sum_of_four(latent_product(l, params, latent, j, z));
    for (int other = from + latent % 4; other < to; other += 4) *b.in(other, part + j) = sum;
  }
}

// The done logit (0) or the reward of a slot, from its parts.
WMF_DEVICE float slot_outcome(const DreamBlock& b, int next, int slot, int which) {
  const PackedLayout& l = b.task.model;
  float result =
      read_only(b.task.packed + l.outcome_weights + which * l.outcome_row + l.padded_hidden);
  for (int k = 0; k < l.unit_blocks; ++k) {
    result += b.unit_part(next, k, slot)[b.task.control.outputs + which];
  }
  return result;
}

// The first block of the group: which rollouts have ended, and what comes after them.
WMF_DEVICE void find_ends(const DreamBlock& b, int next, bool stopped) {
  const DreamTask& t = b.task;
  for (int slot = thread_index(); slot < t.shared.slots; slot += kThreads) {
    int64_t mail = kStays;
    const int64_t rollout = b.rollout()[slot];
    if (rollout >= 0) {
      const int step = b.step()[slot];
      bool done = false;
      if (t.model.done != 0) {
        done = is_done(NoiseId{t.seed, b.noise_id()[slot], static_cast<uint32_t>(step)},
                       slot_outcome(b, next, slot, 0), t.done_threshold, t.done_temperature);
      }
      if (t.model.reward != 0) b.rewards()[slot] += slot_outcome(b, next, slot, t.model.done);
      if (done || step + 1 >= t.max_steps) {
        t.returns[rollout] = t.model.reward != 0 ? b.rewards()[slot] : static_cast<float>(step + 1);
        t.lengths[rollout] = step + 1;
        mail = stopped ? t.total : take_one(t.next_rollout);
        if (mail >= t.total) mail = kEmpty;
      }
      if (stopped) mail = kEmpty;
    }
    b.tell_all(b.mail() + slot, mail);
  }
}

// Follows the mail; false if no slot has a rollout any more. `next`: rows and parts of the step to
// come.
template <class Operand>
WMF_DEVICE bool refill(const DreamBlock& b, int next) {
  typedef typename Operand::Number Number;
  const DreamTask& t = b.task;
  const DreamLayout& s = t.shared;
  bool changed = false;
  for (int slot = thread_index(); slot < s.slots; slot += kThreads) {
    const int64_t mail = b.mail()[slot];
    if (mail == kStays) {
      ++b.step()[slot];
    } else {
      changed = true;
      b.rollout()[slot] = mail;
      if (mail != kEmpty) {
        b.noise_id()[slot] = static_cast<uint32_t>(t.common_noise ? mail % t.rollouts : mail);
        b.member()[slot] = static_cast<int>(mail / t.rollouts);
        b.step()[slot] = 0;
        if (t.model.reward != 0) b.rewards()[slot] = 0.0f;
      }
    }
  }
  if (!sync_block_any(changed)) return true;

  // A warp starts a rollout: z_0, h = c = 0.
  for (int slot = warp_index(); slot < s.slots; slot += kWarps) {
    if (b.mail()[slot] < 0) continue;
    auto* h = reinterpret_cast<Chunk*>(b.row<Number>(next, slot));
    const int chunks = t.model.padded_hidden * static_cast<int>(sizeof(Number)) / 16;
    for (int i = lane(); i < chunks; i += 32) h[i] = Chunk{};
    for (int i = lane(); i < b.n_unit_blocks * kUnitBlock; i += 32) {
      b.cell()[i * s.slot_stride + slot] = 0.0f;
    }
    for (int i = lane(); i < t.model.unit_blocks; i += 32) {
      for (int j = 0; j < t.control.outputs; ++j) b.unit_part(next, i, slot)[j] = 0.0f;
    }
    const uint32_t id = b.noise_id()[slot];
    const int64_t first = initial_index(t.seed, id, t.n_initial) * t.model.latent;
    const int last = t.model.latent_blocks * kLatentBlock;
    for (int i = 0; i < last; i += 32) {
      const int latent = i + lane();
      const bool exists = latent < t.model.latent;
      const float mu = exists ? read_only(t.initial_mu + first + latent) : 0.0f;
      const float logvar = exists ? read_only(t.initial_logvar + first + latent) : 0.0f;
      const float z = initial_latent(t.seed, id, static_cast<uint32_t>(latent), mu, logvar);
      publish_latent<Operand>(b, next, slot, latent, z, b.rank,
                              latent < last ? b.rank + 1 : b.rank);
    }
  }
  bool active = false;
  for (int slot = thread_index(); slot < s.slots; slot += kThreads) {
    active = active || b.rollout()[slot] >= 0;
  }
  return sync_block_any(active);
}

// The rollout's LSTM: c and h of the own units.
template <class Operand, int kTiles>
WMF_DEVICE void lstm(const DreamBlock& b, WeightStream& weights, int now, int next) {
  const DreamTask& t = b.task;
  const DreamLayout& s = t.shared;
  const int stream = warp_index() % s.shape.streams;
  const int first_slot = warp_index() / s.shape.streams * kTiles * 8;
  const unsigned char* rows = b.row<unsigned char>(now, first_slot);
  for (int first = 0; first < b.n_unit_blocks; first += s.lstm_chunk) {
    const int left = b.n_unit_blocks - first, count = left < s.lstm_chunk ? left : s.lstm_chunk;
    const int begin = first * kPairsPerUnitBlock, end = begin + count * kPairsPerUnitBlock;
    for (int pair = first_of_stream(begin, stream, s.shape.streams); pair < end;
         pair += s.shape.streams) {
      const int global = b.first_unit_block * kPairsPerUnitBlock + pair;
      const Biases bias(t.packed + t.model.lstm_bias + global * kPairRows);
      float sums[2][kTiles][4];
      multiply_pair<Operand, kTiles>(sums, weights, t.model.lstm_stages, rows, t.model.row_bytes);
      update_units<Operand, kTiles>(b, sums, bias, next, first_slot, pair * kPairUnits + lane() / 4,
                                    (pair - begin) * kPairUnits + lane() / 4);
    }
    sync_block();
    publish_units<Operand>(b, next, first, count);
    if (count < left) sync_block();  // the next chunk's h will lie where this one's does
  }
}

// The head and the samples of the own latents.
template <class Operand, int kTiles>
WMF_DEVICE void head(const DreamBlock& b, WeightStream& weights, Temper tau, int next) {
  const DreamTask& t = b.task;
  const DreamLayout& s = t.shared;
  const int stream = warp_index() % s.shape.streams;
  const int first_slot = warp_index() / s.shape.streams * kTiles * 8;
  const unsigned char* rows = b.row<unsigned char>(next, first_slot);
  float* logits = b.at<float>(s.logits);
  for (int first = 0; first < b.n_latent_blocks; first += s.head_chunk) {
    const int left = b.n_latent_blocks - first, count = left < s.head_chunk ? left : s.head_chunk;
    const int begin = first * t.model.head_block_pairs;
    const int end = begin + count * t.model.head_block_pairs;
    for (int pair = first_of_stream(begin, stream, s.shape.streams); pair < end;
         pair += s.shape.streams) {
      const int global = b.first_latent_block * t.model.head_block_pairs + pair;
      const Biases bias(t.packed + t.model.head_bias + global * kPairRows);
      float sums[2][kTiles][4];
      multiply_pair<Operand, kTiles>(sums, weights, t.model.head_stages, rows, t.model.row_bytes);
      float* to = logits + ((pair - begin) * kPairRows + lane() / 4) * s.slot_stride + first_slot +
                  lane() % 4 * 2;
      WMF_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        WMF_UNROLL
        for (int i = 0; i < 4; ++i) {
          const float* sum = &sums[i / 2][n][i % 2 * 2];
          *reinterpret_cast<Two*>(to + 8 * i * s.slot_stride + n * 8) =
              Two{sum[0] + bias.row[i], sum[1] + bias.row[i]};
        }
      }
    }
    sync_block();
    const int mixture_rows = 3 * t.model.mixtures;
    for (int i = thread_index(); i < count * s.slots * kLatentBlock; i += kThreads) {
      const int slot = i / kLatentBlock % s.slots, block = i / kLatentBlock / s.slots;
      const int latent = (b.first_latent_block + first + block) * kLatentBlock + i % kLatentBlock;
      float* mixture = logits + slot +
                       s.slot_stride * (block * t.model.head_block_pairs * kPairRows +
                                        i % kLatentBlock * mixture_rows);
      const Noise n = noise(t.seed, b.noise_id()[slot], static_cast<uint32_t>(b.step()[slot]),
                            static_cast<uint32_t>(latent), Purpose::kMixture);
      const float z = sample_group(mixture, s.slot_stride, t.model.mixtures, tau, n);
      publish_latent<Operand>(b, next, slot, latent, z, 0, s.group);
    }
    if (count < left) sync_block();  // likewise
  }
}

WMF_DEVICE DreamBlock dream_block(const DreamTask& t) {
  const int rank = t.shared.group > 1 ? rank_in_group() : 0;
  const auto share = [&](int n, int i) { return n * i / t.shared.group; };
  const int unit = share(t.model.unit_blocks, rank), latent = share(t.model.latent_blocks, rank);
  return DreamBlock{t,
                    shared_memory(),
                    rank,
                    unit,
                    share(t.model.unit_blocks, rank + 1) - unit,
                    latent,
                    share(t.model.latent_blocks, rank + 1) - latent};
}

template <class Operand, int kTiles>
WMF_DEVICE void dream_rollout(const DreamTask& t) {
  const DreamLayout& s = t.shared;
  const DreamBlock b = dream_block(t);
  const Temper tau = temper(t.temperature);

  // What no rollout has written yet is read too: it must not be a NaN by accident.
  for (int i = thread_index(); i < s.resident_weights / 16; i += kThreads) {
    b.at<Chunk>(0)[i] = Chunk{};
  }
  const int stream = warp_index() % s.shape.streams;
  const Work work = {
      {b.first_unit_block * kPairsPerUnitBlock, b.n_unit_blocks * kPairsPerUnitBlock},
      {b.first_latent_block * t.model.head_block_pairs,
       b.n_latent_blocks * t.model.head_block_pairs},
      stream,
      s.shape.streams,
      t.model.lstm_stages,
      t.model.head_stages,
      reinterpret_cast<const Chunk*>(t.packed + t.model.lstm_weights),
      reinterpret_cast<const Chunk*>(t.packed + t.model.head_weights)};
  WeightStream weights(work, warp_index() / s.shape.streams, s.shape.parts,
                       b.at<Chunk>(s.resident_weights) + stream * s.resident * kStageChunks,
                       s.resident, b.at<Chunk>(s.ring_weights) + stream * s.ring * kStageChunks,
                       s.ring);

  b.meet();  // also: all of the group's blocks run, and may be written to
  for (int slot = thread_index(); slot < s.slots; slot += kThreads) {
    b.rollout()[slot] = kEmpty;
    if (b.rank == 0) {
      const int64_t n = take_one(t.next_rollout);
      b.tell_all(b.mail() + slot, n < t.total ? n : kEmpty);
    }
  }
  b.meet();

  int now = 0;
  bool active = refill<Operand>(b, now);
  for (uint32_t round = 0; active; ++round) {
    const int next = 1 - now;
    // The host's memory is far: it is asked now and then.
    const bool stopped =
        b.rank == 0 && t.stop != nullptr && round % 64 == 63 && look_at(t.stop) != 0;
    weights.rewind();
    control<Operand>(b, now);
    lstm<Operand, kTiles>(b, weights, now, next);
    b.meet();
    if (b.rank == 0) find_ends(b, next, stopped);
    head<Operand, kTiles>(b, weights, tau, next);
    b.meet();
    active = refill<Operand>(b, next);
    now = next;
  }
  wait_batches<0>();  // of weights that are not needed any more
}

}  // namespace
}  // namespace wmf::cuda
