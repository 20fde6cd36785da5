// The descriptions that cross the layers: plain data, no behaviour, no owner.
//
// Units that are compiled for a higher instruction set include this file, so nothing here may emit
// code: an inline function, compiled once per level, could be merged by the linker into the one
// with AVX-512.
#pragma once

#include <cstdint>

namespace wmf {

// M = LSTM + mixture density head. X = Z + A (+ 1 if predicts_done), O = 3 K Z (+ 1 if
// predicts_done) (+ 1 if predicts_reward).
struct MdnRnnDims {
  int64_t latent;    // Z
  int64_t action;    // A
  int64_t hidden;    // H
  int64_t mixtures;  // K
  bool predicts_done;
  bool predicts_reward;
};

// M's parameters as the user gives them; row-major, borrowed.
struct MdnRnnWeights {
  MdnRnnDims dims;
  const float* weight_ih;  // (4H, X), gates i, f, g, o; inputs z, action, restart
  const float* weight_hh;  // (4H, H)
  const float* bias;       // (4H)
  // (O, H): done logit, reward, then per latent [logmix K | mu K | logstd K].
  const float* head_weight;
  const float* head_bias;  // (O)
};

// V's encoder as the paper has it: four convolutions of 4 x 4 windows two pixels apart, 32, 64, 128
// and 256 outputs, ReLU after each, and then mu and logvar of all that is left, 2 x 2 x 256.
constexpr int64_t kFrameSize = 64, kFrameChannels = 3, kEncoderLayers = 5;

// The encoder's parameters as the user gives them; row-major, borrowed.
struct EncoderWeights {
  int64_t latent;                       // Z
  const float* weight[kEncoderLayers];  // (outputs, channels, 4, 4), the last (2Z, 256, 2, 2)
  const float* bias[kEncoderLayers];    // (outputs)
};

// The number format of the convolutions', the LSTM's and the head's products. All else is float.
// kBf16 and kInt8 are the CPU's, kFp16 is CUDA's.
enum class Precision : int32_t { kFp32, kBf16, kInt8, kFp16 };

// With more, the int32 sums of int8 could overflow.
constexpr int64_t kMaxInt8Hidden = 32768, kMaxInt8Inputs = 65536;

// M's parameters in the order in which one level's kernels read them (cpu/layout.h); borrowed.
struct PackedMdnRnn {
  MdnRnnDims dims;
  Precision precision;
  const float* data;  // 64-byte aligned; 4-byte words, most of them floats only in fp32
};

// The encoder's parameters in the order in which one level's kernels read them (cpu/encoder.h);
// borrowed.
struct PackedEncoder {
  int64_t latent;
  Precision precision;  // kFp32 or kBf16
  const float* data;    // 64-byte aligned; 4-byte words
};

// N independent frames through the encoder.
struct EncoderArrays {
  int64_t rows;           // N
  const uint8_t* frames;  // (N, 64, 64, 3)
  float* mu;              // (N, Z)
  float* logvar;          // (N, Z)
};

// N independent rows through M once. Inputs and outputs do not overlap.
struct StepArrays {
  int64_t rows;          // N
  const float* z;        // (N, Z)
  const float* action;   // (N, A)
  const float* h;        // (N, H)
  const float* c;        // (N, H)
  const float* restart;  // (N), or null for all 0
  float* logmix;         // (N, Z, K)
  float* mu;             // (N, Z, K)
  float* logstd;         // (N, Z, K)
  float* done_logit;     // (N), null unless predicts_done
  float* h_next;         // (N, H)
  float* c_next;         // (N, H)
  float* reward;         // (N), null unless predicts_reward
};

// Whose noise N rows use: row n is rollout `rollout + n` in step `step` under `seed`, or what
// `rows` says.
struct NoiseIds {
  uint64_t seed;
  uint32_t rollout;  // id of row 0
  uint32_t step;
  const uint32_t* rows;  // null, or (N, 4): low and high word of the seed, rollout, step
};

// Tempered samples for N rows.
struct SampleArrays {
  int64_t rows, latent, mixtures;  // N, Z, K
  const float* logmix;             // (N, Z, K)
  const float* mu;                 // (N, Z, K)
  const float* logstd;             // (N, Z, K)
  float temperature;               // > 0
  NoiseIds noise;
  float* z;  // (N, Z)
};

// Which of N rollouts end in a step; the rule is that of DreamArrays.
struct DoneArrays {
  int64_t rows;             // N
  const float* done_logit;  // (N)
  float done_threshold;
  float done_temperature;  // >= 0
  NoiseIds noise;
  int32_t* done;  // (N), 1 or 0
};

// The first latents of N rollouts; the noise's step is not used.
struct InitialArrays {
  int64_t rows, latent, n_initial;  // N, Z, I
  const float* initial_mu;          // (I, Z)
  const float* initial_logvar;      // (I, Z)
  NoiseIds noise;
  float* z;  // (N, Z)
};

// How a flat parameter vector is read as a controller; see ops.ControllerSpec.
struct ControllerSpec {
  char features[3];  // of 'z', 'h', 'c', in the order of the parameters
  int64_t n_features;
  int64_t latent, hidden, action;  // Z, H, A
  int64_t hidden_units;            // U; 0 for a linear controller
  bool bias;
  const float* scale;  // (A): action = clip(scale * tanh(y) + shift, low, high)
  const float* shift;  // (A)
  const float* low;    // (A)
  const float* high;   // (A)
};

// P controllers on N rows; row n belongs to controller n / (N / P).
struct ControllerArrays {
  ControllerSpec spec;
  int64_t members, n_params, rows;  // P, n_params, N
  const float* params;              // (P, n_params)
  const float* z;                   // (N, Z), null if not a feature
  const float* h;                   // (N, H), null if not a feature
  const float* c;                   // (N, H), null if not a feature
  float* action;                    // (N, A)
};

// A whole generation in the dream.
struct DreamArrays {
  PackedMdnRnn model;
  ControllerSpec spec;
  int64_t members, n_params;    // P, n_params
  const float* params;          // (P, n_params)
  int64_t n_initial;            // I
  const float* initial_mu;      // (I, Z)
  const float* initial_logvar;  // (I, Z)
  int64_t rollouts;             // R
  uint64_t seed;
  float temperature;  // > 0
  int32_t max_steps;  // >= 1
  // A rollout ends with probability sigmoid((logit - done_threshold) / done_temperature), which at
  // temperature 0 means: when logit > done_threshold.
  float done_threshold;
  float done_temperature;  // >= 0
  bool common_noise;       // rollout r of every member shares its noise
  float* returns;          // (P, R), sums of the rewards that M predicts; else the lengths
  int32_t* lengths;        // (P, R)
};

// What the threads of one dream share. Read and written with __atomic builtins only.
struct DreamProgress {
  int64_t next_rollout;  // of P * R; a thread with a free slot takes it and adds one
  int32_t stop;          // not 0: end now
};

}  // namespace wmf
