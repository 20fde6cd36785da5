// One step of M for a block of rows, and a tempered sample from its head.
#pragma once

#include "cpu/gemm.h"

// After simd.h (by way of gemm.h), in whose types they are written.
#include "core/falling_exp.h"

#include "core/gates.h"
#include "core/mixture.h"
#include "core/noise.h"

namespace wmf {
namespace {

// A share of a product's panels: part `index` of `of`.
struct Part {
  int64_t index, of;
};
constexpr Part kWhole{0, 1};

// The panels of a part; `first` is what its first panel's number was.
template <class Format>
WMF_INLINE Panels share(Panels m, Part part, int64_t* first) {
  *first = m.panels * part.index / part.of;
  m.panels = m.panels * (part.index + 1) / part.of - *first;
  m.weights += *first * m.words * 4 * W;
  m.constants += *first * Format::kConstants * 4 * W;
  return m;
}

// One step's rows on their way through M.
struct StepRows {
  Rows now;     // input rows
  Rows next;    // the same for the next step, of which the LSTM writes h
  float* cell;  // (rows, l.hidden), updated in place
  float* out;   // (rows, head_row): the head's groups of [logmix K | mu K | logstd K] vectors
  int64_t rows;
  bool backwards;  // see multiply_few
};

WMF_INLINE int64_t head_row(const Layout& l) { return l.head_panels * 4 * W; }

// The LSTM. Gate pre-activations never leave the registers.
template <class Format>
void lstm(const Layout& l, const float* packed, const StepRows& s, Part part) {
  int64_t first;
  const Panels m = share<Format>(lstm_panels(l, packed), part, &first);
  const auto write = [&](int64_t row, int64_t unit, F c, F h) WMF_INLINE_LAMBDA {
    store(s.cell + row * l.hidden + unit, c);
    store(s.next.x + row * l.row + unit, h);
    Format::write_hidden(s.next.q + row * l.word_row, unit, h);
  };
  const auto update = [&](int64_t row, int64_t panel, const auto& gates) WMF_INLINE_LAMBDA {
    constexpr int64_t kRows = sizeof gates / sizeof gates[0];
    const int64_t unit = (first + panel) * W;
    const float* cell = s.cell + row * l.hidden + unit;
    WMF_UNROLL
    for (int64_t r = 0; r + 1 < kRows; r += 2) {
      const auto gate = [&](int v) WMF_INLINE_LAMBDA { return Pair{gates[r][v], gates[r + 1][v]}; };
      const Pair c = {load(cell + r * l.hidden), load(cell + (r + 1) * l.hidden)};
      const Pair c_next = next_cell(gate(0), gate(1), gate(2), c);
      const Pair h_next = next_hidden(gate(3), c_next);
      write(row + r, unit, c_next.a, h_next.a);
      write(row + r + 1, unit, c_next.b, h_next.b);
    }
    if constexpr (kRows % 2 == 1) {
      const F(&gate)[4] = gates[kRows - 1];
      const F c = load(cell + (kRows - 1) * l.hidden);
      const F c_next = next_cell(gate[0], gate[1], gate[2], c);
      write(row + kRows - 1, unit, c_next, next_hidden(gate[3], c_next));
    }
  };
  multiply<Format>(m, s.now.q, l.word_row, s.rows, s.backwards, update);
}

// The head on the h that the LSTM has written into the next rows.
template <class Format>
void head(const Layout& l, const float* packed, const StepRows& s, Part part) {
  int64_t first;
  const Panels m = share<Format>(head_panels(l, packed), part, &first);
  const int64_t stride = head_row(l);
  const auto write = [&](int64_t row, int64_t panel, const auto& outputs) WMF_INLINE_LAMBDA {
    float* out = s.out + row * stride + (first + panel) * 4 * W;
    for (const F(&y)[4] : outputs) {
      WMF_UNROLL
      for (int v = 0; v < 4; ++v) store(out + v * W, y[v]);
      out += stride;
    }
  };
  multiply<Format>(m, s.next.q, l.word_row, s.rows, s.backwards, write);
}

// z, action and restart of one input row into the product's words.
template <class Format>
WMF_INLINE void write_inputs(const Layout& l, const Rows& rows, int64_t row) {
  Format::write_inputs(rows.q + row * l.word_row + l.hidden_words, rows.x + row * l.row + l.hidden,
                       l.inputs);
}

// h of one input row, likewise.
template <class Format>
WMF_INLINE void write_hidden(const Layout& l, const Rows& rows, int64_t row) {
  for (int64_t unit = 0; unit < l.hidden; unit += W) {
    Format::write_hidden(rows.q + row * l.word_row, unit, load(rows.x + row * l.row + unit));
  }
}

// The head's row i of those before the mixtures.
WMF_INLINE float outcome(const Layout& l, const float* packed, int64_t i, const float* h) {
  const float* weights = packed + l.outcome_weights + i * l.outcome_row;
  return sum(dot(h, weights, l.hidden)) + packed[l.outcome_biases + i];
}

// Only of an M that predicts it, both.
WMF_INLINE float done_logit(const Layout& l, const float* packed, const float* h) {
  return outcome(l, packed, 0, h);
}

WMF_INLINE float reward(const Layout& l, const float* packed, const float* h) {
  return outcome(l, packed, l.outcomes - 1, h);
}

// All latents of one row of `head`'s output -> z (l.latent). `out` is overwritten.
WMF_INLINE void sample_row(const Layout& l, int64_t n_mixtures, float* out, Temper tau,
                           uint64_t seed, uint32_t rollout, uint32_t step, float* z) {
  for (int64_t d = 0; d < l.latent; d += W) {
    const Noise n = noise(seed, rollout, step, static_cast<uint32_t>(d), Purpose::kMixture);
    store(z + d, sample_group(out + d * 3 * n_mixtures, W, n_mixtures, tau, n));
  }
}

WMF_INLINE void copy(float* to, const float* from, int64_t n) {
  __builtin_memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

WMF_INLINE void fill_zero(float* to, int64_t n) {
  __builtin_memset(to, 0, static_cast<std::size_t>(n) * sizeof(float));
}

WMF_INLINE bool any_nan(const float* x, int64_t n) {
  bool any = false;
  for (int64_t i = 0; i < n; ++i) any |= x[i] != x[i];
  return any;
}

WMF_INLINE void fill_nan(float* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = __builtin_nanf("");
}

// --- mdn_rnn_step ------------------------------------------------------------------------------

template <class Format>
int64_t step_scratch_size(const MdnRnnDims& d, int64_t rows) {
  const Layout l = layout<Format>(d);
  const int64_t per_row = 2 * row_size<Format>(l) + l.hidden + head_row(l);
  return (rows < kMaxBlockRows ? rows : kMaxBlockRows) * per_row + 6 * 16;
}

template <class Format>
void step_rows(const PackedMdnRnn& m, const StepArrays& a, int64_t row_begin, int64_t row_end,
               float* scratch) {
  const MdnRnnDims& d = m.dims;
  const Layout l = layout<Format>(d);
  const int64_t block = row_end - row_begin < kMaxBlockRows ? row_end - row_begin : kMaxBlockRows;
  Arena arena{scratch};
  StepRows s{};
  s.now = take_rows<Format>(&arena, l, block);
  s.next = take_rows<Format>(&arena, l, block);
  s.cell = arena.take(block * l.hidden);
  s.out = arena.take(block * head_row(l));

  for (int64_t first = row_begin; first < row_end; first += block) {
    s.rows = row_end - first < block ? row_end - first : block;
    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t n = first + r;
      float* row = s.now.x + r * l.row;
      fill_zero(row, l.row);
      copy(row, a.h + n * d.hidden, d.hidden);
      copy(row + l.hidden, a.z + n * d.latent, d.latent);
      copy(row + l.hidden + l.latent, a.action + n * d.action, d.action);
      if (a.restart != nullptr) row[l.depth - 1] = a.restart[n];
      write_hidden<Format>(l, s.now, r);
      write_inputs<Format>(l, s.now, r);
      fill_zero(s.cell + r * l.hidden, l.hidden);
      copy(s.cell + r * l.hidden, a.c + n * d.hidden, d.hidden);
    }

    lstm<Format>(l, m.data, s, kWhole);
    if (l.hidden != d.hidden) {
      // Units beyond H have weights of 0, of which an infinite input makes NaN.
      for (int64_t r = 0; r < s.rows; ++r) {
        float* last = s.next.x + r * l.row + l.hidden - W;
        fill_zero(last + W - (l.hidden - d.hidden), l.hidden - d.hidden);
        Format::write_hidden(s.next.q + r * l.word_row, l.hidden - W, load(last));
      }
    }
    head<Format>(l, m.data, s, kWhole);

    for (int64_t r = 0; r < s.rows; ++r) {
      const int64_t n = first + r;
      const float* h = s.next.x + r * l.row;
      copy(a.h_next + n * d.hidden, h, d.hidden);
      copy(a.c_next + n * d.hidden, s.cell + r * l.hidden, d.hidden);
      if (d.predicts_done) a.done_logit[n] = done_logit(l, m.data, h);
      if (d.predicts_reward) a.reward[n] = reward(l, m.data, h);
      for (int64_t z = 0; z < d.latent; ++z) {
        const float* from = s.out + r * head_row(l) + z / W * 3 * d.mixtures * W + z % W;
        const int64_t to = (n * d.latent + z) * d.mixtures;
        for (int64_t k = 0; k < d.mixtures; ++k) {
          a.logmix[to + k] = from[k * W];
          a.mu[to + k] = from[(d.mixtures + k) * W];
          a.logstd[to + k] = from[(2 * d.mixtures + k) * W];
        }
      }
      // A product reads all of its operands, so a NaN among them is one in every result; but not by
      // itself in a format of integers.
      if constexpr (!Format::kHasNan) {
        const bool inputs = any_nan(s.now.x + r * l.row, l.depth);
        if (inputs) {
          fill_nan(a.h_next + n * d.hidden, d.hidden);
          fill_nan(a.c_next + n * d.hidden, d.hidden);
          if (d.predicts_done) fill_nan(a.done_logit + n, 1);
          if (d.predicts_reward) fill_nan(a.reward + n, 1);
        }
        if (inputs || any_nan(h, d.hidden)) {
          const int64_t mixture = d.latent * d.mixtures;
          fill_nan(a.logmix + n * mixture, mixture);
          fill_nan(a.mu + n * mixture, mixture);
          fill_nan(a.logstd + n * mixture, mixture);
        }
      }
    }
  }
}

// --- mixture_sample ----------------------------------------------------------------------------

int64_t sample_scratch_size(int64_t mixtures) { return aligned(3 * mixtures * W); }

void sample_rows(const SampleArrays& a, float* scratch) {
  const Temper tau = temper(a.temperature);
  for (int64_t n = 0; n < a.rows; ++n) {
    const NoiseId id = noise_id(a.noise, n);
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
      const Noise noises =
          noise(id.seed, id.rollout, id.step, static_cast<uint32_t>(d), Purpose::kMixture);
      float z[W];
      store(z, sample_group(scratch, W, a.mixtures, tau, noises));
      copy(a.z + n * a.latent + d, z, lanes);
    }
  }
}

}  // namespace
}  // namespace wmf
