// The kernels of one level, as a table of plain functions. kernels.cpp fills it in, once per level.
#pragma once

#include "core/model.h"

namespace wmf {

enum class MathFunction { kExp, kLog, kTanh, kSigmoid, kCos2Pi, kGateSigmoid, kGateTanh };

// Most rows that one block may hold. Its states stay in L2 and amortise one pass over the weights.
constexpr int64_t kMaxBlockRows = 48;

// Most rollouts that a team steps together (cpu/team.h). With so few the time goes into reading the
// weights, of which each thread of a team reads its share only; with more, rollouts of their own
// keep threads as busy without meetings.
constexpr int64_t kMaxTeamRows = 6;

// Threads that do each step of one block together (cpu/team.h). Alone: {1}. The leader writes
// `size`, `step` and `over` while the others wait at a meeting; the counters are for __atomic
// builtins only.
struct DreamTeam {
  int32_t size;
  int32_t over;      // not 0: the others may go
  const void* step;  // the leader's StepRows (cpu/mdn_rnn.h), borrowed
  alignas(64) int32_t arrived;
  alignas(64) uint32_t phase;
};

struct Kernels {
  // Packing: how many 4-byte words, and the packing itself. `packed` is 64-byte aligned, zeroed by
  // the caller.
  int64_t (*packed_size)(const MdnRnnDims&, Precision);
  void (*pack)(const MdnRnnWeights&, Precision, float* packed);
  int64_t (*encoder_packed_size)(int64_t latent, Precision);
  void (*pack_encoder)(const EncoderWeights&, Precision, float* packed);

  // Every `scratch` is 64-byte aligned, of the size that the function before it returns, not
  // initialised.
  int64_t (*step_scratch_size)(const PackedMdnRnn&, int64_t rows);
  void (*step)(const PackedMdnRnn&, const StepArrays&, int64_t row_begin, int64_t row_end,
               float* scratch);

  int64_t (*encoder_scratch_size)(const PackedEncoder&, int64_t rows);
  void (*encode)(const PackedEncoder&, const EncoderArrays&, int64_t row_begin, int64_t row_end,
                 float* scratch);

  int64_t (*sample_scratch_size)(int64_t mixtures);
  void (*sample)(const SampleArrays&, float* scratch);

  void (*done)(const DoneArrays&);
  void (*initial)(const InitialArrays&);

  int64_t (*controller_scratch_size)(const ControllerSpec&);
  void (*controller)(const ControllerArrays&, float* scratch);

  // One thread's part of a dream, `slots` rollouts at a time, until none is left or progress->stop.
  // `poll(context)` is called once per step. It leads `team`, whose other threads are in `assist`
  // until it ends; with more than one thread, slots <= kMaxTeamRows.
  int64_t (*dream_scratch_size)(const DreamArrays&, int64_t slots);
  void (*dream)(const DreamArrays&, int64_t slots, DreamProgress* progress, DreamTeam* team,
                void (*poll)(void*), void* context, float* scratch);
  void (*assist)(const DreamArrays&, DreamTeam* team, int64_t index);

  // Loops that do nothing but multiply in registers, or read: the machine's limits for this level.
  // The number of operations done (a multiply-add is two), or of bytes read.
  int64_t (*peak)(Precision, int64_t rounds);
  int64_t (*read)(const float* data, int64_t n);  // n a multiple of 128

  // For the tests.
  void (*math)(MathFunction, const float* x, float* y, int64_t n);
  void (*philox)(const uint32_t* counter, uint64_t seed, uint32_t* words,
                 int64_t n);  // (n, 4) each
};

}  // namespace wmf
