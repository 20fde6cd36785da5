// Tempered samples, one latent to a thread.
#pragma once

// First: it has the words that core/ is written in.
#include "cuda/ptx.cuh"

#include "core/mixture.h"
#include "core/model.h"
#include "cuda/layout.h"

namespace wmf::cuda {

struct SampleTask {
  SampleArrays arrays;
  int threads;  // of a block; each has room for K floats in shared memory
};

namespace {

WMF_DEVICE void sample(const SampleTask& t) {
  const SampleArrays& a = t.arrays;
  const int64_t i = int64_t{block_x()} * t.threads + thread_index();
  if (i >= a.rows * a.latent) return;
  const int64_t row = i / a.latent;
  const int latent = static_cast<int>(i % a.latent);
  const NoiseId id = noise_id(a.noise, row);
  const Noise n =
      noise(id.seed, id.rollout, id.step, static_cast<uint32_t>(latent), Purpose::kMixture);
  const int64_t from = i * a.mixtures;
  float* cumulative = reinterpret_cast<float*>(shared_memory()) + thread_index();
  a.z[i] = sample_apart(a.logmix + from, a.mu + from, a.logstd + from, 1, cumulative, t.threads,
                        a.mixtures, temper(a.temperature), n);
}

}  // namespace
}  // namespace wmf::cuda
