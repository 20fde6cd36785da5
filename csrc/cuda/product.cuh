// The products: pairs of 16 weight rows times tiles of 8 slots, and the stream of weights that
// feeds them.
#pragma once

// First: it has the words that core/ is written in.
#include "cuda/ptx.cuh"

#include "cuda/layout.h"

namespace wmf::cuda {
namespace {

// --- operands ----------------------------------------------------------------------------------

// acc[half][tile][..] of a pair and some tiles of 8 slots, as the matrix unit hands it out: with
// lane = 4 g + t, slots 2t and 2t + 1 of every tile, and rows g, 8 + g, 16 + g, 24 + g, which are
// the gates i, f, g, o of the LSTM's unit g:
//   [0][n][s] row g, [0][n][2 + s] row 8 + g, [1][n][s] row 16 + g, [1][n][2 + s] row 24 + g.
template <int kTiles>
using Sums = float[2][kTiles][4];

struct Half {
  typedef uint16_t Number;
  static constexpr int kDepth = 16;
  static WMF_DEVICE Number make(float x) { return to_half(x); }

  // sums += one stage of weights times rows (kTiles * 8 slots, row_bytes apart, at the stage's k).
  template <int kTiles>
  static WMF_DEVICE void multiply(Sums<kTiles>& sums, const Chunk* stage, const unsigned char* rows,
                                  int row_bytes) {
    const Chunk w0 = stage[lane()], w1 = stage[32 + lane()];
    if constexpr (kTiles == 1) {
      uint32_t x[2];
      load_matrices(x, rows + lane() % 8 * row_bytes + lane() / 8 % 2 * 16);
      multiply_add(sums[0][0], w0.words, x[0], x[1]);
      multiply_add(sums[1][0], w1.words, x[0], x[1]);
    } else {
      // Matrices: slots 0-7 at k 0-7, at k 8-15, then slots 8-15 likewise.
      const unsigned char* row =
          rows + (lane() / 16 * 8 + lane() % 8) * row_bytes + lane() / 8 % 2 * 16;
      WMF_UNROLL
      for (int n = 0; n < kTiles; n += 2) {
        uint32_t x[4];
        load_matrices(x, row + n * 8 * row_bytes);
        multiply_add(sums[0][n], w0.words, x[0], x[1]);
        multiply_add(sums[1][n], w1.words, x[0], x[1]);
        multiply_add(sums[0][n + 1], w0.words, x[2], x[3]);
        multiply_add(sums[1][n + 1], w1.words, x[2], x[3]);
      }
    }
  }
};

struct Single {
  typedef float Number;
  static constexpr int kDepth = 8;
  static WMF_DEVICE Number make(float x) { return x; }

  template <int kTiles>
  static WMF_DEVICE void multiply(Sums<kTiles>& sums, const Chunk* stage, const unsigned char* rows,
                                  int row_bytes) {
    const unsigned char* row = rows + lane() % 4 * 2 * row_bytes;
    WMF_UNROLL
    for (int k = 0; k < kDepth; k += 4) {
      Chunk w[4];
      WMF_UNROLL
      for (int i = 0; i < 4; ++i) w[i] = stage[(k + i) * 8 + lane() / 4];
      WMF_UNROLL
      for (int n = 0; n < kTiles; ++n) {
        WMF_UNROLL
        for (int s = 0; s < 2; ++s) {
          const Chunk x = *reinterpret_cast<const Chunk*>(row + (n * 8 + s) * row_bytes + k * 4);
          WMF_UNROLL
          for (int i = 0; i < 4; ++i) {
            const float xi = as_float(x.words[i]);
            sums[0][n][s] = fma(as_float(w[i].words[0]), xi, sums[0][n][s]);
            sums[0][n][2 + s] = fma(as_float(w[i].words[1]), xi, sums[0][n][2 + s]);
            sums[1][n][s] = fma(as_float(w[i].words[2]), xi, sums[1][n][s]);
            sums[1][n][2 + s] = fma(as_float(w[i].words[3]), xi, sums[1][n][2 + s]);
          }
        }
      }
    }
  }
};

// --- the stream of weights ---------------------------------------------------------------------

// The pairs that one stream works on in a step, in order: of the LSTM, `first + q`, `first + q +
// streams`, ... below `first + count`, then of the head likewise.
struct PairRange {
  int first, count;
};

struct Work {
  PairRange lstm, head;  // the block's own pairs
  int stream, streams;
  int lstm_stages, head_stages;              // per pair
  const Chunk *lstm_weights, *head_weights;  // pair 0's first stage

  WMF_DEVICE int pairs_of(const PairRange& r) const {
    return r.count > stream ? (r.count - stream - 1) / streams + 1 : 0;
  }
  WMF_DEVICE int stages() const {
    return pairs_of(lstm) * lstm_stages + pairs_of(head) * head_stages;
  }
};

// The first number from n on that is `stream` modulo `streams`.
WMF_DEVICE int first_of_stream(int n, int stream, int streams) {
  return n + (stream - n % streams + streams) % streams;
}

constexpr int kStageChunks = kStageBytes / 16;

// The stages of a Work one after the other, round and round.
struct Cursor {
  int pair = 0, stage = 0;  // pair: counted within the range
  bool in_head = false;

  WMF_DEVICE void start(const Work& w) {
    pair = w.stream;
    stage = 0;
    in_head = w.pairs_of(w.lstm) == 0;
  }
  // The address of the current stage; moves on to the next.
  WMF_DEVICE const Chunk* take(const Work& w) {
    const int stages = in_head ? w.head_stages : w.lstm_stages;
    const Chunk* base = in_head ? w.head_weights : w.lstm_weights;
    const int first = in_head ? w.head.first : w.lstm.first;
    const Chunk* here = base + (static_cast<int64_t>(first + pair) * stages + stage) * kStageChunks;
    if (++stage == stages) {
      stage = 0;
      pair += w.streams;
      if (pair >= (in_head ? w.head.count : w.lstm.count)) {
        in_head = in_head ? w.pairs_of(w.lstm) == 0 : w.pairs_of(w.head) > 0;
        pair = w.stream;
      }
    }
    return here;
  }
};

// Spreads `some` over `all` evenly: yes() is true `some` times in every `all` calls.
struct Spread {
  int some, all, sum;
  WMF_DEVICE bool yes() {
    sum += some;
    if (sum < all) return false;
    sum -= all;
    return true;
  }
};

// A stream's weights, stage by stage: some lie in shared memory for good, spread over the step, and
// the others pass through a ring of a few stages, asked for long before they are due. The warps of
// a stream (`parts` of them) fetch together and wait for one another.
class WeightStream {
 public:
  // Starts to fetch. `resident` and `ring` are this stream's own; see DreamLayout.
  WMF_DEVICE WeightStream(const Work& work, int part, int parts, Chunk* resident, int n_resident,
                          Chunk* ring, int ring_stages)
      : work_(work),
        part_(part),
        parts_(parts),
        resident_(resident),
        ring_(ring),
        ring_stages_(ring_stages) {
    const int all = work.stages();
    const int some = n_resident < all ? n_resident : all;
    all_resident_ = some == all;
    now_ = Spread{some, all, 0};
    ahead_ = Spread{some, all, 0};
    cursor_.start(work);
    Cursor cursor = cursor_;
    Spread is_resident = now_;
    Chunk* to = resident;
    WMF_NO_UNROLL
    for (int i = 0; i < all; ++i) {
      const Chunk* from = cursor.take(work);
      if (is_resident.yes()) {
        fetch(to, from);
        to += kStageChunks;
      }
    }
    end_batch();
    wait_batches<0>();
    wait_for_stream();
    next_resident_ = resident;
    if (all_resident_) return;
    for (int i = 0; i < ring_stages - 1; ++i) fetch_next(i);
  }

  // Before the first stage of a step.
  WMF_DEVICE void rewind() { next_resident_ = resident_; }

  // Whether nothing is fetched any more. The next n stages then lie side by side.
  WMF_DEVICE bool all_resident() const { return all_resident_; }
  WMF_DEVICE const Chunk* take(int n) {
    const Chunk* here = next_resident_;
    next_resident_ += n * kStageChunks;
    return here;
  }

  // The next stage; valid until the next call. All warps of the stream call it together.
  WMF_DEVICE const Chunk* next() {
    if (all_resident_ || now_.yes()) {
      const Chunk* here = next_resident_;
      next_resident_ += kStageChunks;
      return here;
    }
    if (ring_stages_ == 8) {
      wait_batches<6>();
    } else {
      wait_batches<2>();
    }
    wait_for_stream();  // also: all have read the stage before, whose place is taken now
    const int behind = slot_ == 0 ? ring_stages_ - 1 : slot_ - 1;
    fetch_next(behind);
    const Chunk* here = ring_ + slot_ * kStageChunks;
    slot_ = slot_ + 1 == ring_stages_ ? 0 : slot_ + 1;
    return here;
  }

 private:
  WMF_DEVICE void wait_for_stream() const {
    if (parts_ == 1) {
      sync_warp();
    } else {
      sync_some(1 + work_.stream, parts_ * 32);
    }
  }
  WMF_DEVICE void fetch(Chunk* to, const Chunk* from) const {
    for (int i = part_ * 32 + lane(); i < kStageChunks; i += parts_ * 32) {
      copy_async(to + i, from + i);
    }
  }
  // The next stage that is not resident, into a place of the ring.
  WMF_DEVICE void fetch_next(int place) {
    const Chunk* from = cursor_.take(work_);
    while (ahead_.yes()) from = cursor_.take(work_);
    fetch(ring_ + place * kStageChunks, from);
    end_batch();
  }

  Work work_;
  int part_, parts_;
  Chunk *resident_, *next_resident_, *ring_;
  int ring_stages_, slot_ = 0;
  bool all_resident_;
  Spread now_, ahead_;
  Cursor cursor_;
};

// The biases of a thread's four rows of a pair.
struct Biases {
  float row[4];
  WMF_DEVICE explicit Biases(const float* pair) {
    WMF_UNROLL
    for (int i = 0; i < 4; ++i) row[i] = read_only(pair + 8 * i + lane() / 4);
  }
};

// One pair's product with kTiles * 8 rows.
template <class Operand, int kTiles>
WMF_DEVICE void multiply_pair(Sums<kTiles>& sums, WeightStream& weights, int stages,
                              const unsigned char* rows, int row_bytes) {
  WMF_UNROLL
  for (int half = 0; half < 2; ++half) {
    WMF_UNROLL
    for (int n = 0; n < kTiles; ++n) {
      WMF_UNROLL
      for (int i = 0; i < 4; ++i) sums[half][n][i] = 0.0f;
    }
  }
  constexpr int kBytes = Operand::kDepth * static_cast<int>(sizeof(typename Operand::Number));
  if (weights.all_resident()) {
    const Chunk* stage = weights.take(stages);
    WMF_UNROLL_TWICE
    for (int k = 0; k < stages; ++k) {
      Operand::template multiply<kTiles>(sums, stage + k * kStageChunks, rows + k * kBytes,
                                         row_bytes);
    }
  } else {
    WMF_NO_UNROLL
    for (int k = 0; k < stages; ++k) {
      Operand::template multiply<kTiles>(sums, weights.next(), rows + k * kBytes, row_bytes);
    }
  }
}

}  // namespace
}  // namespace wmf::cuda
