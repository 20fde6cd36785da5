// Philox words -> one uniform and one standard normal per latent dimension.
#pragma once

#include "core/model.h"
#include "core/philox.h"
#include "core/vector_math.h"

namespace wmf {
namespace {

// One row of NoiseIds.
struct NoiseId {
  uint64_t seed;
  uint32_t rollout, step;
};

WMF_INLINE NoiseId noise_id(const NoiseIds& ids, int64_t n) {
  if (ids.rows == nullptr) {
    return NoiseId{ids.seed, ids.rollout + static_cast<uint32_t>(n), ids.step};
  }
  const uint32_t* row = ids.rows + 4 * n;
  return NoiseId{row[0] | static_cast<uint64_t>(row[1]) << 32, row[2], row[3]};
}

struct Noise {
  F uniform;  // in [0, 1), a multiple of 2^-24
  F normal;
};

// The noise of the dimensions first_dim ... first_dim + W - 1.
WMF_INLINE Noise noise(uint64_t seed, uint32_t rollout, uint32_t step, uint32_t first_dim,
                       Purpose purpose) {
  const PhiloxWords<U> counter = {splat(rollout), splat(step), lane_index() + first_dim,
                                  splat(static_cast<uint32_t>(purpose))};
  const PhiloxWords<U> words = philox(counter, seed);
  const float kUnit = 5.9604644775390625e-8f;           // 2^-24: 24 bits are exact in a float
  const F u1 = to_float((words.w1 >> 8) + 1u) * kUnit;  // in (0, 1]: its logarithm is finite
  const F u2 = to_float(words.w2 >> 8) * kUnit;
  return Noise{to_float(words.w0 >> 8) * kUnit, sqrt(-2.0f * log(u1)) * cos_2pi(u2)};  // Box-Muller
}

// Whether a rollout ends in this step, given the sigmoid's argument in every lane.
WMF_INLINE bool ends(uint64_t seed, uint32_t rollout, uint32_t step, float scaled_logit) {
  const U zero = splat(0u);
  const PhiloxWords<U> counter = {splat(rollout), splat(step), zero,
                                  splat(static_cast<uint32_t>(Purpose::kDone))};
  const F uniform = to_float(philox(counter, seed).w0 >> 8) * 5.9604644775390625e-8f;  // [0, 1)
  return first_lane(uniform) < first_lane(sigmoid(splat(scaled_logit)));
}

// Whether a rollout ends in this step, by the rule of DreamArrays. A NaN ends nothing.
WMF_INLINE bool is_done(const NoiseId& id, float logit, float threshold, float temperature) {
  const float above = logit - threshold;
  if (temperature == 0.0f) return above > 0.0f;
  return ends(id.seed, id.rollout, id.step, above / temperature);
}

// floor(w0 / 2^32 * n): which of the n stored first latents this rollout starts from.
WMF_INLINE int64_t initial_index(uint64_t seed, uint32_t rollout, int64_t n) {
  const U zero = splat(0u);
  const PhiloxWords<U> counter = {splat(rollout), zero, zero,
                                  splat(static_cast<uint32_t>(Purpose::kInitialIndex))};
  const uint64_t word = first_lane(philox(counter, seed).w0);
  return static_cast<int64_t>((word * static_cast<uint64_t>(n)) >> 32);
}

// A first latent's dimensions first_dim ... first_dim + W - 1, from the stored normal distribution.
WMF_INLINE F initial_latent(uint64_t seed, uint32_t rollout, uint32_t first_dim, F mu, F logvar) {
  return mu +
         exp(0.5f * logvar) * noise(seed, rollout, 0, first_dim, Purpose::kInitialLatent).normal;
}

}  // namespace
}  // namespace wmf
