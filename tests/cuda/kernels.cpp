// The GPU's kernels on the emulator, as C functions for tests/ops/test_cuda_emulated.py. Each
// returns what went wrong, in words, or an empty text; it is valid until the next call.
#include <cstring>
#include <string>
#include <type_traits>

#include "cuda/controller_forward.cuh"
#include "cuda/dream_rollout.cuh"
#include "cuda/mdn_rnn_step.cuh"
#include "cuda/mixture_sample.cuh"
#include "cuda/pack.cuh"
#include "cuda/plan.h"

namespace {

using namespace wmf;
using namespace wmf::cuda;

std::string result;

const char* play(const emulator::Grid& grid, uint32_t seed, const std::function<void()>& kernel) {
  result = emulator::run(grid, seed, kernel);
  return result.c_str();
}

int blocks(int64_t n, int per_block) { return static_cast<int>((n + per_block - 1) / per_block); }

// f(operand type, number of tiles)
template <class Function>
void with_kernel(Precision precision, int tiles, const Function& f) {
  const auto with_tiles = [&](auto operand) {
    if (tiles == 1) f(operand, std::integral_constant<int, 1>{});
    if (tiles == 2) f(operand, std::integral_constant<int, 2>{});
    if (tiles == 4) f(operand, std::integral_constant<int, 4>{});
  };
  if (precision == Precision::kFp16) {
    with_tiles(Half{});
  } else {
    with_tiles(Single{});
  }
}

// What Python hands over: numbers as int64, in the order of core/model.h.
MdnRnnDims dims_of(const int64_t* d) {
  return MdnRnnDims{d[0], d[1], d[2], d[3], d[4] != 0, d[5] != 0};
}
Precision precision_of(int half) { return half != 0 ? Precision::kFp16 : Precision::kFp32; }

// numbers: Z, H, A, U, bias; squash: [scale A | shift A | low A | high A].
ControllerSpec spec_of(const char* features, const int64_t* numbers, const float* squash) {
  ControllerSpec s{};
  s.n_features = static_cast<int64_t>(std::strlen(features));
  std::memcpy(s.features, features, std::strlen(features));
  s.latent = numbers[0];
  s.hidden = numbers[1];
  s.action = numbers[2];
  s.hidden_units = numbers[3];
  s.bias = numbers[4] != 0;
  s.scale = squash;
  s.shift = squash + s.action;
  s.low = squash + 2 * s.action;
  s.high = squash + 3 * s.action;
  return s;
}

}  // namespace

extern "C" {

int64_t packed_floats(const int64_t* dims, int half) {
  return packed_layout(dims_of(dims), precision_of(half)).size;
}

// weights: weight_ih, weight_hh, bias, head_weight, head_bias.
const char* pack(const int64_t* dims, int half, const float* const* weights, float* packed) {
  const MdnRnnDims d = dims_of(dims);
  const MdnRnnWeights w = {d, weights[0], weights[1], weights[2], weights[3], weights[4]};
  const PackTask task = {packed_layout(d, precision_of(half)), w, packed};
  return play({3, 1, 1, kThreads, 0}, 0, [&] { wmf::cuda::pack(task); });
}

// inputs: z, action, h, c, restart; outputs: logmix, mu, logstd, done_logit, h_next, c_next,
// reward.
const char* step(const int64_t* dims, int half, const float* packed, int64_t rows,
                 const float* const* inputs, float* const* outputs, int tiles, uint32_t seed) {
  StepArrays a{};
  a.rows = rows;
  a.z = inputs[0], a.action = inputs[1], a.h = inputs[2], a.c = inputs[3], a.restart = inputs[4];
  a.logmix = outputs[0], a.mu = outputs[1], a.logstd = outputs[2], a.done_logit = outputs[3];
  a.h_next = outputs[4], a.c_next = outputs[5], a.reward = outputs[6];
  const StepTask task = {packed_layout(dims_of(dims), precision_of(half)), packed, a};
  const PackedLayout& l = task.model;
  const auto shared = static_cast<size_t>(step_shared_bytes(l, tiles * 8));
  const auto grid = [&](int pairs) {
    return emulator::Grid{blocks(rows, tiles * 8), blocks(pairs, kWarps), 1, kThreads, shared};
  };
  with_kernel(precision_of(half), tiles, [&](auto operand, auto kTiles) {
    typedef decltype(operand) Operand;
    const auto lstm = [&] { lstm_rows<Operand, decltype(kTiles)::value>(task); };
    const auto head = [&] { head_rows<Operand, decltype(kTiles)::value>(task); };
    if (*play(grid(l.unit_blocks * kPairsPerUnitBlock), seed, lstm) != '\0') return;
    play(grid(l.latent_blocks * l.head_block_pairs), seed, head);
  });
  return result.c_str();
}

// sizes: N, Z, K. mixture: logmix, mu, logstd. noise_rows: see NoiseIds.
const char* sample(const int64_t* sizes, const float* const* mixture, float temperature,
                   uint64_t noise_seed, uint32_t rollout, uint32_t step, const uint32_t* noise_rows,
                   float* z, int threads) {
  const SampleArrays a = {
      sizes[0],   sizes[1],   sizes[2],    mixture[0],
      mixture[1], mixture[2], temperature, {noise_seed, rollout, step, noise_rows},
      z};
  const SampleTask task = {a, threads};
  const auto shared = static_cast<size_t>(a.mixtures * threads) * sizeof(float);
  return play({blocks(a.rows * a.latent, threads), 1, 1, threads, shared}, 0,
              [&] { wmf::cuda::sample(task); });
}

// inputs: z, h, c, null if not a feature.
const char* controller(const char* features, const int64_t* numbers, const float* squash,
                       int64_t members, int64_t rows, const float* params,
                       const float* const* inputs, float* action, uint32_t seed) {
  const ControllerTask task = {control_layout(spec_of(features, numbers, squash)),
                               rows,
                               rows / members,
                               params,
                               inputs[0],
                               inputs[1],
                               inputs[2],
                               action};
  const auto shared = static_cast<size_t>(kWarps * task.control.units) * sizeof(float);
  return play({blocks(rows, kWarps), 1, 1, kThreads, shared}, seed, [&] { controller_rows(task); });
}

struct Dream {
  const int64_t* dims;
  int64_t half;
  const float* packed;
  const char* features;
  const int64_t* spec;
  const float* squash;
  int64_t members, rollouts, n_initial, max_steps, common_noise;
  const float *params, *initial_mu, *initial_logvar;
  uint64_t noise_seed;
  double temperature, done_threshold, done_temperature;
  float* returns;
  int32_t* lengths;
  const int32_t* stop;
  // How it is run.
  int64_t groups, group, slots, tiles, parts, shared_limit, seed;
  // What that came to: stages of a stream, those that stay, the ring's, bytes.
  int64_t stages, resident, ring, shared_bytes;
};

const char* dream(Dream* d) {
  int64_t next_rollout = 0;
  DreamTask task{};
  task.model = packed_layout(dims_of(d->dims), precision_of(static_cast<int>(d->half)));
  task.control = control_layout(spec_of(d->features, d->spec, d->squash));
  const auto group = static_cast<int>(d->group), tiles = static_cast<int>(d->tiles),
             parts = static_cast<int>(d->parts);
  const Shape shape = {tiles, parts, kWarps / parts};
  task.shared = dream_layout(task.model, task.control, group, static_cast<int>(d->slots), shape,
                             static_cast<int>(d->shared_limit));
  task.packed = d->packed;
  task.params = d->params;
  task.initial_mu = d->initial_mu;
  task.initial_logvar = d->initial_logvar;
  task.n_initial = d->n_initial;
  task.rollouts = d->rollouts;
  task.total = d->members * d->rollouts;
  task.seed = d->noise_seed;
  task.temperature = static_cast<float>(d->temperature);
  task.done_threshold = static_cast<float>(d->done_threshold);
  task.done_temperature = static_cast<float>(d->done_temperature);
  task.max_steps = static_cast<int32_t>(d->max_steps);
  task.common_noise = d->common_noise != 0;
  task.returns = d->returns;
  task.lengths = d->lengths;
  task.next_rollout = &next_rollout;
  task.stop = d->stop;
  d->stages = stages_per_stream(task.model, group, shape.streams);
  d->resident = task.shared.resident;
  d->ring = task.shared.ring;
  d->shared_bytes = task.shared.size;
  if (tiles * 8 * parts != d->slots) return "tiles * 8 * parts differs from slots";
  with_kernel(precision_of(static_cast<int>(d->half)), tiles, [&](auto operand, auto kTiles) {
    play({static_cast<int>(d->groups) * group, 1, group, kThreads,
          static_cast<size_t>(task.shared.size)},
         static_cast<uint32_t>(d->seed),
         [&] { dream_rollout<decltype(operand), decltype(kTiles)::value>(task); });
  });
  return result.c_str();
}

// What choose_plan finds for a device: group, slots, tiles, parts, groups, resident, stages, bytes.
double plan(const int64_t* dims, int half, const char* features, const int64_t* spec,
            const float* squash, int64_t total, int64_t max_steps, int sm, int processors,
            int shared_memory, int group, int slots, int64_t* found) {
  const PackedLayout model = packed_layout(dims_of(dims), precision_of(half));
  const ControlLayout control = control_layout(spec_of(features, spec, squash));
  // As an H100: groups do not cross the borders of 16 processors.
  const PlanDevice device = {sm, processors, shared_memory, [&](const DreamLayout& l) {
                               return processors / 16 * (16 / l.group);
                             }};
  const Plan p = choose_plan(model, control, device, total, max_steps, group, slots);
  const DreamLayout& l = p.shared;
  const int64_t numbers[] = {l.group,    l.slots, l.shape.tiles, l.shape.parts, p.groups,
                             l.resident, 0,       l.size};
  std::memcpy(found, numbers, sizeof numbers);
  if (p.groups > 0) found[6] = stages_per_stream(model, l.group, l.shape.streams);
  return p.microseconds;
}

// As the device rounds; n numbers.
void halves(const float* x, uint16_t* y, float* back, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    y[i] = to_half(x[i]);
    back[i] = emulator::from_half(y[i]);
  }
}

// core/ one number at a time, as on a device; against the vectors.
void scalar_math(const char* name, const float* x, float* y, int64_t n) {
  const std::string f = name;
  for (int64_t i = 0; i < n; ++i) {
    y[i] = f == "exp"       ? wmf::exp(x[i])
           : f == "log"     ? wmf::log(x[i])
           : f == "tanh"    ? wmf::tanh(x[i])
           : f == "sigmoid" ? wmf::sigmoid(x[i])
                            : cos_2pi(x[i]);
  }
}

}  // extern "C"
