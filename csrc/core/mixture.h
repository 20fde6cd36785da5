// A tempered sample from a mixture of normals.
//
// The includer provides F and its helpers (cpu/simd.h, core/scalar.h): every operation here is
// rounded the same everywhere, so the same mixture gives the same sample on every device.
#pragma once

#include "core/noise.h"
#include "core/vector_math.h"

namespace wmf {
namespace {

// What a temperature tau does to a sample.
struct Temper {
  float inverse;  // 1 / tau, finite even for the smallest tau
  float sqrt;
};

WMF_INLINE Temper temper(float tau) {
  const float inverse = 1.0f / tau;
  return Temper{inverse < 3e38f ? inverse : 3e38f, first_lane(sqrt(splat(tau)))};
}

// As many latents as F has lanes. Numbers of the K components are `stride` floats apart;
// cumulative: room for K more, `cumulative_stride` apart, which may be the logmix. pi =
// softmax(logmix / tau), k by the inverse of the cumulative distribution on unnormalised weights,
// z' = mu_k + exp(min(logstd_k, 10)) sqrt(tau) normal. A NaN in the logmix, the chosen mu or
// logstd makes z' NaN, and so do logmix without a softmax (+infinity, or -infinity alone).
WMF_INLINE F sample_apart(const float* logmix, const float* mu, const float* logstd, int64_t stride,
                          float* cumulative, int64_t cumulative_stride, int64_t n_mixtures,
                          Temper tau, const Noise& noise) {
  F largest = load(logmix);
  for (int64_t k = 1; k < n_mixtures; ++k) {
    const F next = load(logmix + k * stride);
    largest = next > largest ? next : largest;
  }
  F total = splat(0.0f);
  for (int64_t k = 0; k < n_mixtures; ++k) {
    total = total + exp_not_above_0((load(logmix + k * stride) - largest) * tau.inverse);
    store(cumulative + k * cumulative_stride, total);
  }
  const F target = noise.uniform * total;  // < total, since uniform <= 1 - 2^-24
  F mean = load(mu), log_deviation = load(logstd);
  for (int64_t k = 1; k < n_mixtures; ++k) {
    const auto further = load(cumulative + (k - 1) * cumulative_stride) <= target;
    mean = further ? load(mu + k * stride) : mean;
    log_deviation = further ? load(logstd + k * stride) : log_deviation;
  }
  mean = total == total ? mean : total;
  return mean + (exp(min(log_deviation, splat(10.0f))) * tau.sqrt) * noise.normal;
}

// The same with [logmix K | mu K | logstd K] in one; the logmix are overwritten.
WMF_INLINE F sample_group(float* mixture, int64_t stride, int64_t n_mixtures, Temper tau,
                          const Noise& noise) {
  const float* mu = mixture + n_mixtures * stride;
  return sample_apart(mixture, mu, mu + n_mixtures * stride, stride, mixture, stride, n_mixtures,
                      tau, noise);
}

}  // namespace
}  // namespace wmf
