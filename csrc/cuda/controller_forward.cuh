// P controllers, each on its own rows; a warp to a row. The sums are those of a dream.
#pragma once

// First: it has the words that core/ is written in.
#include "cuda/ptx.cuh"

#include "cuda/control.cuh"

namespace wmf::cuda {

struct ControllerTask {
  ControlLayout control;
  int64_t rows, rows_per_member;
  const float* params;     // (P, n_params)
  const float *z, *h, *c;  // (N, Z), (N, H), (N, H); null if not a feature
  float* action;           // (N, A)
};

namespace {

// Shared memory: (kWarps, U) floats.
WMF_DEVICE void controller_rows(const ControllerTask& t) {
  const ControlLayout& l = t.control;
  const int64_t row = int64_t{block_x()} * kWarps + warp_index();
  if (row >= t.rows) return;
  const float* params = t.params + row / t.rows_per_member * l.n_params;
  const float* z = t.z + row * l.latent;
  const float* h = t.h + row * l.hidden;
  const float* c = t.c + row * l.hidden;
  const int latent_blocks = (l.latent + kLatentBlock - 1) / kLatentBlock;
  const int unit_blocks = (l.hidden + kUnitBlock - 1) / kUnitBlock;
  float* units = reinterpret_cast<float*>(shared_memory()) + warp_index() * l.units;

  for (int j = 0; j < l.outputs; ++j) {
    float y = l.bias1 >= 0 ? read_only(params + l.bias1 + j) : 0.0f;
    if (l.z >= 0) {
      for (int block = 0; block < latent_blocks; block += 8) {
        const int latent = block * kLatentBlock + lane();
        const float x = latent < l.latent ? z[latent] : 0.0f;
        const float sum = sum_of_four(latent_product(l, params, latent, j, x));
        y = add_in_order(y, sum, latent_blocks - block);
      }
    }
    if (l.h >= 0 || l.c >= 0) {
      for (int block = 0; block < unit_blocks; block += 8) {
        const int unit = (block + lane() / 4) * kUnitBlock + lane() % 4;
        UnitValues x;
        WMF_UNROLL
        for (int k = 0; k < kUnitsOfQuarter; ++k) {
          const int u = unit + 4 * k;
          x.h[k] = l.h >= 0 && u < l.hidden ? h[u] : 0.0f;
          x.c[k] = l.c >= 0 && u < l.hidden ? c[u] : 0.0f;
        }
        y = add_in_order(y, sum_of_four(unit_products(l, params, unit, j, x)), unit_blocks - block);
      }
    }
    if (lane() == 0) {
      if (l.units > 0) {
        units[j] = tanh(y);
      } else {
        t.action[row * l.action + j] = act(l, j, y);
      }
    }
  }
  if (l.units == 0) return;
  sync_warp();
  for (int j = lane(); j < l.action; j += 32) {
    t.action[row * l.action + j] = act(l, j, second_layer(l, params, units, j));
  }
}

}  // namespace
}  // namespace wmf::cuda
