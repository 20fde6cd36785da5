// Rows times packed weights, with something done to each result while it is still in registers.
//
// Every output is one chain start + x_0 w_0 + x_1 w_1 + ... in this order, whatever the number of
// rows, so a row's result does not depend on its neighbours. Speed comes from many chains at once:
// a tile of R rows x P panels x 4 vectors of sums, as many as the registers hold.
#pragma once

#include "cpu/kernels.h"
#include "cpu/layout.h"

namespace wmf {
namespace {

// 32 vector registers carry 6 x 4 sums, 16 carry 3 x 4; the rest holds weights and one input.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 3;
#endif

// With few rows a tile takes several panels, or one chain would wait for another; for one row no
// more than needed, since fewer streams are read faster.
template <class Format>
constexpr int panels_per_tile(int rows) {
  if (rows > 1) return kTileRows / rows;
  return kTileRows < Format::kPanelsOfOneRow ? kTileRows : Format::kPanelsOfOneRow;
}

// Rows row ... row + R - 1 and panels panel ... panel + P - 1. A panel is read from L2 by each
// tile: at 4 vectors for 24 multiplications that is fast enough, and no sum is ever written and
// read back.
template <class Format, int R, int P, class Epilogue>
void multiply_tile(const Panels& m, const Word* x, int64_t x_stride, int64_t row, int64_t panel,
                   const Epilogue& epilogue) {
  typedef typename Format::Sum Sum;
  const float* constants = m.constants + panel * Format::kConstants * 4 * W;
  Sum sum[R][P][4];
  WMF_UNROLL
  for (int r = 0; r < R; ++r) {
    WMF_UNROLL
    for (int p = 0; p < P; ++p) {
      WMF_UNROLL
      for (int v = 0; v < 4; ++v) {
        sum[r][p][v] = Format::start(constants + (p * Format::kConstants * 4 + v) * W);
      }
    }
  }

  const int64_t panel_size = m.words * 4 * W;
  const float* w = m.weights + panel * panel_size;
  const Word* xk = x + row * x_stride;
  const auto add = [&](int64_t words, const auto& multiply) WMF_INLINE_LAMBDA {
    for (const Word* end = xk + words; xk < end; ++xk, w += 4 * W) {
      U wv[P][4];
      WMF_UNROLL
      for (int p = 0; p < P; ++p) {
        WMF_UNROLL
        for (int v = 0; v < 4; ++v) wv[p][v] = load_words(w + p * panel_size + v * W);
      }
      WMF_UNROLL
      for (int r = 0; r < R; ++r) {
        const U xr = splat(xk[r * x_stride]);
        WMF_UNROLL
        for (int p = 0; p < P; ++p) {
          WMF_UNROLL
          for (int v = 0; v < 4; ++v) sum[r][p][v] = multiply(sum[r][p][v], xr, wv[p][v]);
        }
      }
    }
  };
  const auto hidden = [](Sum s, U a, U b)
                          WMF_INLINE_LAMBDA { return Format::multiply_hidden(s, a, b); };
  const auto input = [](Sum s, U a, U b)
                         WMF_INLINE_LAMBDA { return Format::multiply_input(s, a, b); };
  if constexpr (Format::kSameWords) {
    add(m.words, hidden);
  } else {
    add(m.hidden_words, hidden);
    add(m.words - m.hidden_words, input);
  }

  WMF_UNROLL
  for (int p = 0; p < P; ++p) {
    F y[R][4];
    WMF_UNROLL
    for (int r = 0; r < R; ++r) {
      WMF_UNROLL
      for (int v = 0; v < 4; ++v) {
        y[r][v] = Format::finish(sum[r][p][v], constants + (p * Format::kConstants * 4 + v) * W);
      }
    }
    epilogue(row, panel + p, y);
  }
}

// multiply_tile for a number of rows known at run time, 1 <= rows <= R, one panel.
template <class Format, int R, class Epilogue>
WMF_INLINE void multiply_rows(int64_t rows, const Panels& m, const Word* x, int64_t x_stride,
                              int64_t row, int64_t panel, const Epilogue& epilogue) {
  if constexpr (R > 1) {
    if (rows < R) {
      multiply_rows<Format, R - 1>(rows, m, x, x_stride, row, panel, epilogue);
      return;
    }
  }
  multiply_tile<Format, R, 1>(m, x, x_stride, row, panel, epilogue);
}

// All panels for R rows, several panels at a time. Backwards from the last panel or forwards from
// the first: with few rows the time goes into reading the weights, and whoever turns round at each
// end meets, at the start of the next pass, what the caches still hold of the one before.
template <class Format, int R, class Epilogue>
WMF_INLINE void multiply_few(int64_t rows, const Panels& m, const Word* x, int64_t x_stride,
                             bool backwards, const Epilogue& epilogue) {
  if constexpr (R > 1) {
    if (rows < R) {
      multiply_few<Format, R - 1>(rows, m, x, x_stride, backwards, epilogue);
      return;
    }
  }
  constexpr int P = panels_per_tile<Format>(R);
  const int64_t groups = m.panels / P;
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t group = backwards ? groups - 1 - i : i;
    multiply_tile<Format, R, P>(m, x, x_stride, 0, group * P, epilogue);
  }
  for (int64_t panel = groups * P; panel < m.panels; ++panel) {
    multiply_tile<Format, R, 1>(m, x, x_stride, 0, panel, epilogue);
  }
}

// For every R rows and panel: epilogue(row, panel, F (&y)[R][4]), y = bias + x w, of the rows row
// ... row + R - 1. x (rows, x_stride) words.
template <class Format, class Epilogue>
void multiply(const Panels& m, const Word* x, int64_t x_stride, int64_t rows, bool backwards,
              const Epilogue& epilogue) {
  constexpr int kFewRows = kTileRows / 2 > 0 ? kTileRows / 2 : 1;
  if (rows <= kFewRows) {
    multiply_few<Format, kFewRows>(rows, m, x, x_stride, backwards, epilogue);
    return;
  }
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t panel = 0; panel < m.panels; ++panel) {
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = rows * tile / tiles, end = rows * (tile + 1) / tiles;
      multiply_rows<Format, kTileRows>(end - begin, m, x, x_stride, begin, panel, epilogue);
    }
  }
}

// The dot product of n floats, n a multiple of W: four chains, added up in a fixed order.
WMF_INLINE F dot(const float* a, const float* b, int64_t n) {
  F s0 = splat(0.0f), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
    s0 = fma(load(a + i), load(b + i), s0);
    s1 = fma(load(a + i + W), load(b + i + W), s1);
    s2 = fma(load(a + i + 2 * W), load(b + i + 2 * W), s2);
    s3 = fma(load(a + i + 3 * W), load(b + i + 3 * W), s3);
  }
  for (; i < n; i += W) s0 = fma(load(a + i), load(b + i), s0);
  return (s0 + s1) + (s2 + s3);
}

}  // namespace
}  // namespace wmf
