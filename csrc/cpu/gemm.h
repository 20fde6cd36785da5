// Rows times packed weights, with something done to each result while it is still in registers.
//
// Every output is one chain bias + x_0 w_0 + x_1 w_1 + ... in this order, whatever the number of
// rows, so a row's result does not depend on its neighbours. Speed comes from many chains at once:
// a tile of R rows x P panels x 4 vectors of accumulators, as many as the registers hold.
#pragma once

#include "cpu/kernels.h"
#include "cpu/layout.h"

namespace wmf {
namespace {

// 32 vector registers carry 6 x 4 accumulators, 16 carry 3 x 4; the rest holds weights and one
// input.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 3;
#endif

// With few rows a tile takes several panels, or one chain would wait for another.
constexpr int panels_per_tile(int rows) {
  return rows == 1 ? (kTileRows < 4 ? kTileRows : 4) : kTileRows / rows;
}

// So much of a panel is read over and over by all tiles before the next part: it has to stay in L1.
constexpr int64_t kChunkBytes = 20 * 1024;
constexpr int64_t kChunkDepth = kChunkBytes / static_cast<int64_t>(sizeof(F) * 4);

WMF_INLINE int64_t partial_size(int64_t rows) { return rows * 4 * W; }

// The part k0 <= k < k1 of rows row ... row + R - 1 and panels panel ... panel + P - 1.
template <int R, int P, class Epilogue>
void multiply_tile(const Panels& m, const float* x, int64_t x_stride, int64_t row, int64_t panel,
                   int64_t k0, int64_t k1, float* partial, const Epilogue& epilogue) {
  F acc[R][P][4];
  WMF_UNROLL
  for (int r = 0; r < R; ++r) {
    WMF_UNROLL
    for (int p = 0; p < P; ++p) {
      const float* start = k0 == 0 ? m.bias + (panel + p) * 4 * W : partial + (row + r) * 4 * W;
      WMF_UNROLL
      for (int v = 0; v < 4; ++v) acc[r][p][v] = load(start + v * W);
    }
  }

  const int64_t panel_size = m.depth * 4 * W;
  const float* w = m.weights + panel * panel_size + k0 * 4 * W;
  const float* xk = x + row * x_stride + k0;
  for (int64_t k = k0; k < k1; ++k, ++xk, w += 4 * W) {
    F wv[P][4];
    WMF_UNROLL
    for (int p = 0; p < P; ++p) {
      WMF_UNROLL
      for (int v = 0; v < 4; ++v) wv[p][v] = load(w + p * panel_size + v * W);
    }
    WMF_UNROLL
    for (int r = 0; r < R; ++r) {
      const F xr = splat(xk[r * x_stride]);
      WMF_UNROLL
      for (int p = 0; p < P; ++p) {
        WMF_UNROLL
        for (int v = 0; v < 4; ++v) acc[r][p][v] = fma(xr, wv[p][v], acc[r][p][v]);
      }
    }
  }

  WMF_UNROLL
  for (int r = 0; r < R; ++r) {
    WMF_UNROLL
    for (int p = 0; p < P; ++p) {
      if (k1 == m.depth) {
        epilogue(row + r, panel + p, acc[r][p]);
      } else {
        WMF_UNROLL
        for (int v = 0; v < 4; ++v) store(partial + (row + r) * 4 * W + v * W, acc[r][p][v]);
      }
    }
  }
}

// multiply_tile for a number of rows known at run time, 1 <= rows <= R, one panel.
template <int R, class Epilogue>
WMF_INLINE void multiply_rows(int64_t rows, const Panels& m, const float* x, int64_t x_stride,
                              int64_t row, int64_t panel, int64_t k0, int64_t k1, float* partial,
                              const Epilogue& epilogue) {
  if constexpr (R > 1) {
    if (rows < R) {
      multiply_rows<R - 1>(rows, m, x, x_stride, row, panel, k0, k1, partial, epilogue);
      return;
    }
  }
  multiply_tile<R, 1>(m, x, x_stride, row, panel, k0, k1, partial, epilogue);
}

// All panels for R rows, several panels at a time.
template <int R, class Epilogue>
WMF_INLINE void multiply_few(int64_t rows, const Panels& m, const float* x, int64_t x_stride,
                             float* partial, const Epilogue& epilogue) {
  if constexpr (R > 1) {
    if (rows < R) {
      multiply_few<R - 1>(rows, m, x, x_stride, partial, epilogue);
      return;
    }
  }
  constexpr int P = panels_per_tile(R);
  int64_t panel = 0;
  for (; panel + P <= m.panels; panel += P) {
    multiply_tile<R, P>(m, x, x_stride, 0, panel, 0, m.depth, partial, epilogue);
  }
  for (; panel < m.panels; ++panel) {
    multiply_tile<R, 1>(m, x, x_stride, 0, panel, 0, m.depth, partial, epilogue);
  }
}

// For every row and panel: epilogue(row, panel, F (&y)[4]), y = bias + x w.
// x (rows, x_stride); partial: partial_size(rows) floats of scratch.
template <class Epilogue>
void multiply(const Panels& m, const float* x, int64_t x_stride, int64_t rows, float* partial,
              const Epilogue& epilogue) {
  constexpr int kFewRows = kTileRows / 2 > 0 ? kTileRows / 2 : 1;
  if (rows <= kFewRows) {
    multiply_few<kFewRows>(rows, m, x, x_stride, partial, epilogue);
    return;
  }
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t chunk = tiles == 1 ? m.depth : kChunkDepth;
  for (int64_t panel = 0; panel < m.panels; ++panel) {
    for (int64_t k0 = 0; k0 < m.depth; k0 += chunk) {
      const int64_t k1 = k0 + chunk < m.depth ? k0 + chunk : m.depth;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t begin = rows * tile / tiles, end = rows * (tile + 1) / tiles;
        multiply_rows<kTileRows>(end - begin, m, x, x_stride, begin, panel, k0, k1, partial,
                                 epilogue);
      }
    }
  }
}

// The dot product of n floats, n a multiple of W, continued from acc.
WMF_INLINE F dot(const float* a, const float* b, int64_t n, F acc) {
  for (int64_t i = 0; i < n; i += W) acc = fma(load(a + i), load(b + i), acc);
  return acc;
}

}  // namespace
}  // namespace wmf
