// One step of M for a block of rows, and a tempered sample from its head.
#pragma once

#include "cpu/gemm.h"

// After simd.h (by way of gemm.h), in whose types it is written.
#include "core/noise.h"

namespace wmf {
namespace {

// A share of a product's panels: part `index` of `of`.
struct Part {
  int64_t index, of;
};
constexpr Part kWhole{0, 1};

// The panels of a part; `first` is what its first panel's number was.
WMF_INLINE Panels share(const Panels& m, Part part, int64_t* first) {
  *first = m.panels * part.index / part.of;
  const int64_t end = m.panels * (part.index + 1) / part.of;
  return Panels{m.weights + *first * m.depth * 4 * W, m.bias + *first * 4 * W, m.depth,
                end - *first};
}

// c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c').
// x (rows, l.row) input rows; x_next: the same for the next step, of which h is written; cell
// (rows, l.hidden) is updated in place. Gate pre-activations never leave the registers.
void lstm(const Layout& l, const float* packed, const float* x, float* x_next, float* cell,
          int64_t rows, float* partial, Part part) {
  int64_t first;
  const Panels m = share(lstm_panels(l, packed), part, &first);
  const auto update = [&](int64_t row, int64_t panel, const F(&gate)[4]) WMF_INLINE_LAMBDA {
    const int64_t unit = (first + panel) * W;
    float* c = cell + row * l.hidden + unit;
    const F c_next = sigmoid(gate[1]) * load(c) + sigmoid(gate[0]) * tanh(gate[2]);
    store(c, c_next);
    store(x_next + row * l.row + unit, sigmoid(gate[3]) * tanh(c_next));
  };
  multiply(m, x, l.row, rows, partial, update);
}

WMF_INLINE int64_t head_row(const Layout& l) { return l.head_panels * 4 * W; }

// x: rows whose h is the LSTM's output; out (rows, head_row): groups of [logmix K | mu K | logstd
// K] vectors.
void head(const Layout& l, const float* packed, const float* x, int64_t rows, float* out,
          float* partial, Part part) {
  int64_t first;
  const Panels m = share(head_panels(l, packed), part, &first);
  const int64_t stride = head_row(l);
  const auto write = [&](int64_t row, int64_t panel, const F(&y)[4]) WMF_INLINE_LAMBDA {
    for (int v = 0; v < 4; ++v) store(out + row * stride + ((first + panel) * 4 + v) * W, y[v]);
  };
  multiply(m, x, l.row, rows, partial, write);
}

WMF_INLINE float done_logit(const Layout& l, const float* packed, const float* h) {
  return sum(dot(h, packed + l.done_weights, l.hidden, splat(0.0f))) + packed[l.done_bias];
}

// W latents of one row. mixture: [logmix K | mu K | logstd K] vectors; the logmix are overwritten.
// pi = softmax(logmix / tau), k by the inverse of the cumulative distribution on unnormalised
// weights, z' = mu_k + exp(min(logstd_k, 10)) sqrt(tau) normal.
WMF_INLINE F sample_group(float* mixture, int64_t n_mixtures, float tau, float sqrt_tau,
                          const Noise& noise) {
  F largest = load(mixture);
  for (int64_t k = 1; k < n_mixtures; ++k) {
    const F logmix = load(mixture + k * W);
    largest = logmix > largest ? logmix : largest;
  }
  F total = splat(0.0f);
  for (int64_t k = 0; k < n_mixtures; ++k) {
    total = total + exp((load(mixture + k * W) - largest) / tau);
    store(mixture + k * W, total);
  }
  const F target = noise.uniform * total;  // < total, since uniform <= 1 - 2^-24
  const float* mu_row = mixture + n_mixtures * W;
  const float* logstd_row = mu_row + n_mixtures * W;
  F mu = load(mu_row), logstd = load(logstd_row);
  for (int64_t k = 1; k < n_mixtures; ++k) {
    const I further = load(mixture + (k - 1) * W) <= target;
    mu = further ? load(mu_row + k * W) : mu;
    logstd = further ? load(logstd_row + k * W) : logstd;
  }
  return mu + (exp(min(logstd, splat(10.0f))) * sqrt_tau) * noise.normal;
}

// All latents of one row of `head`'s output -> z (l.latent). `out` is overwritten.
WMF_INLINE void sample_row(const Layout& l, int64_t n_mixtures, float* out, float tau,
                           float sqrt_tau, uint64_t seed, uint32_t rollout, uint32_t step,
                           float* z) {
  for (int64_t d = 0; d < l.latent; d += W) {
    const Noise n = noise(seed, rollout, step, static_cast<uint32_t>(d), Purpose::kMixture);
    store(z + d, sample_group(out + d * 3 * n_mixtures, n_mixtures, tau, sqrt_tau, n));
  }
}

WMF_INLINE void copy(float* to, const float* from, int64_t n) {
  __builtin_memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

WMF_INLINE void fill_zero(float* to, int64_t n) {
  __builtin_memset(to, 0, static_cast<std::size_t>(n) * sizeof(float));
}

// --- mdn_rnn_step ------------------------------------------------------------------------------

int64_t step_scratch_size(const MdnRnnDims& d) {
  const Layout l = layout(d);
  const int64_t per_row = 2 * l.row + l.hidden + head_row(l) + partial_size(1);
  return kMaxBlockRows * per_row + 5 * 16;
}

void step_rows(const PackedMdnRnn& m, const StepArrays& a, int64_t row_begin, int64_t row_end,
               float* scratch) {
  const MdnRnnDims& d = m.dims;
  const Layout l = layout(d);
  Arena arena{scratch};
  float* x = arena.take(kMaxBlockRows * l.row);
  float* x_next = arena.take(kMaxBlockRows * l.row);
  float* cell = arena.take(kMaxBlockRows * l.hidden);
  float* out = arena.take(kMaxBlockRows * head_row(l));
  float* partial = arena.take(partial_size(kMaxBlockRows));

  for (int64_t first = row_begin; first < row_end; first += kMaxBlockRows) {
    const int64_t rows = row_end - first < kMaxBlockRows ? row_end - first : kMaxBlockRows;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t n = first + r;
      float* row = x + r * l.row;
      fill_zero(row, l.row);
      copy(row, a.h + n * d.hidden, d.hidden);
      copy(row + l.hidden, a.z + n * d.latent, d.latent);
      copy(row + l.hidden + l.latent, a.action + n * d.action, d.action);
      if (a.restart != nullptr) row[l.depth - 1] = a.restart[n];
      fill_zero(cell + r * l.hidden, l.hidden);
      copy(cell + r * l.hidden, a.c + n * d.hidden, d.hidden);
    }

    lstm(l, m.data, x, x_next, cell, rows, partial, kWhole);
    head(l, m.data, x_next, rows, out, partial, kWhole);

    for (int64_t r = 0; r < rows; ++r) {
      const int64_t n = first + r;
      copy(a.h_next + n * d.hidden, x_next + r * l.row, d.hidden);
      copy(a.c_next + n * d.hidden, cell + r * l.hidden, d.hidden);
      if (d.predicts_done) a.done_logit[n] = done_logit(l, m.data, x_next + r * l.row);
      for (int64_t z = 0; z < d.latent; ++z) {
        const float* from = out + r * head_row(l) + z / W * 3 * d.mixtures * W + z % W;
        const int64_t to = (n * d.latent + z) * d.mixtures;
        for (int64_t k = 0; k < d.mixtures; ++k) {
          a.logmix[to + k] = from[k * W];
          a.mu[to + k] = from[(d.mixtures + k) * W];
          a.logstd[to + k] = from[(2 * d.mixtures + k) * W];
        }
      }
    }
  }
}

// --- mixture_sample ----------------------------------------------------------------------------

int64_t sample_scratch_size(int64_t mixtures) { return aligned(3 * mixtures * W); }

void sample_rows(const SampleArrays& a, float* scratch) {
  const float sqrt_tau = __builtin_sqrtf(a.temperature);
  for (int64_t n = 0; n < a.rows; ++n) {
    for (int64_t d = 0; d < a.latent; d += W) {
      const int64_t lanes = a.latent - d < W ? a.latent - d : W;
      fill_zero(scratch, 3 * a.mixtures * W);
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t from = (n * a.latent + d + lane) * a.mixtures;
        for (int64_t k = 0; k < a.mixtures; ++k) {
          scratch[k * W + lane] = a.logmix[from + k];
          scratch[(a.mixtures + k) * W + lane] = a.mu[from + k];
          scratch[(2 * a.mixtures + k) * W + lane] = a.logstd[from + k];
        }
      }
      const Noise noises = noise(a.seed, a.rollout + static_cast<uint32_t>(n), a.step,
                                 static_cast<uint32_t>(d), Purpose::kMixture);
      float z[W];
      store(z, sample_group(scratch, a.mixtures, a.temperature, sqrt_tau, noises));
      copy(a.z + n * a.latent + d, z, lanes);
    }
  }
}

}  // namespace
}  // namespace wmf
