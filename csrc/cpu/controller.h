// C: a linear map of the features, with an optional tanh layer before it, and a squash.
//
// M is shared by all rollouts but every member of the population has its own C, so there is no
// matrix product to share: it is a dot product per action, with parameters packed per slot as
//   [units][inputs, each feature padded to W] [bias: units] and, with a hidden layer, the same
//   again.
#pragma once

#include "cpu/mdn_rnn.h"

// After simd.h, as gates.h.
#include "core/squash.h"

namespace wmf {
namespace {

struct ControllerLayout {
  int64_t latent, hidden;                          // Zp, Hp
  int64_t inputs;                                  // length of a padded input
  int64_t units;                                   // U padded; 0 for a linear controller
  int64_t weights1, bias1, weights2, bias2, size;  // offsets, in floats
};

WMF_INLINE ControllerLayout controller_layout(const ControllerSpec& s) {
  ControllerLayout l{};
  l.latent = round_up(s.latent, W);
  l.hidden = round_up(s.hidden, W);
  for (int64_t f = 0; f < s.n_features; ++f) l.inputs += s.features[f] == 'z' ? l.latent : l.hidden;
  l.units = round_up(s.hidden_units, W);
  const int64_t outputs1 = s.hidden_units > 0 ? s.hidden_units : s.action;
  l.weights1 = 0;
  l.bias1 = l.weights1 + aligned(outputs1 * l.inputs);
  l.weights2 = l.bias1 + aligned(outputs1);
  l.bias2 = l.weights2 + aligned(s.action * l.units);
  l.size = l.bias2 + aligned(l.units > 0 ? s.action : 0);
  return l;
}

// One flat parameter vector -> packed (size floats).
void pack_controller(const ControllerSpec& s, const float* params, float* packed) {
  const ControllerLayout l = controller_layout(s);
  fill_zero(packed, l.size);
  const int64_t outputs1 = s.hidden_units > 0 ? s.hidden_units : s.action;
  if (s.bias) {
    copy(packed + l.bias1, params, outputs1);
    params += outputs1;
  }
  int64_t place = 0;  // of a feature's first input
  for (int64_t f = 0; f < s.n_features; ++f) {
    const int64_t n = s.features[f] == 'z' ? s.latent : s.hidden;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < outputs1; ++j) {
        packed[l.weights1 + j * l.inputs + place + i] = *params++;
      }
    }
    place += round_up(n, W);
  }
  if (s.hidden_units == 0) return;
  if (s.bias) {
    copy(packed + l.bias2, params, s.action);
    params += s.action;
  }
  for (int64_t i = 0; i < s.hidden_units; ++i) {
    for (int64_t j = 0; j < s.action; ++j) packed[l.weights2 + j * l.units + i] = *params++;
  }
}

// Room for the outputs of both layers.
WMF_INLINE int64_t controller_buffer_size(const ControllerSpec& s) {
  return aligned(round_up(s.hidden_units, W)) + aligned(round_up(s.action, W));
}

// One row. z (Zp), h (Hp), c (Hp) padded with zeros; action (A).
void control(const ControllerSpec& s, const ControllerLayout& l, const float* packed,
             const float* z, const float* h, const float* c, float* buffer, float* action) {
  float* units = buffer;
  float* y = buffer + aligned(l.units);

  const int64_t outputs1 = l.units > 0 ? s.hidden_units : s.action;
  float* layer1 = l.units > 0 ? units : y;
  fill_zero(layer1, round_up(outputs1, W));
  for (int64_t j = 0; j < outputs1; ++j) {
    const float* w = packed + l.weights1 + j * l.inputs;
    F products = splat(0.0f);
    for (int64_t f = 0; f < s.n_features; ++f) {
      const float* input = s.features[f] == 'z' ? z : s.features[f] == 'h' ? h : c;
      const int64_t n = s.features[f] == 'z' ? l.latent : l.hidden;
      products += dot(input, w, n);
      w += n;
    }
    layer1[j] = sum(products) + packed[l.bias1 + j];
  }
  if (l.units > 0) {
    for (int64_t j = 0; j < l.units; j += W) store(units + j, tanh(load(units + j)));
    fill_zero(y, round_up(s.action, W));
    for (int64_t j = 0; j < s.action; ++j) {
      const F products = dot(units, packed + l.weights2 + j * l.units, l.units);
      y[j] = sum(products) + packed[l.bias2 + j];
    }
  }

  for (int64_t j = 0; j < s.action; j += W) store(y + j, tanh(load(y + j)));
  for (int64_t j = 0; j < s.action; ++j) {
    action[j] = squash(y[j], s.scale[j], s.shift[j], s.low[j], s.high[j]);
  }
}

// --- controller_forward
// ---------------------------------------------------------------------------------

int64_t controller_scratch_size(const ControllerSpec& s) {
  const ControllerLayout l = controller_layout(s);
  return l.size + aligned(l.latent) + 2 * aligned(l.hidden) + controller_buffer_size(s);
}

void control_rows(const ControllerArrays& a, float* scratch) {
  const ControllerSpec& s = a.spec;
  const ControllerLayout l = controller_layout(s);
  Arena arena{scratch};
  float* packed = arena.take(l.size);
  float* z = arena.take(l.latent);
  float* h = arena.take(l.hidden);
  float* c = arena.take(l.hidden);
  float* buffer = arena.next;
  fill_zero(z, l.latent);
  fill_zero(h, l.hidden);
  fill_zero(c, l.hidden);

  const int64_t rows_per_member = a.rows / a.members;
  for (int64_t n = 0; n < a.rows; ++n) {
    if (n % rows_per_member == 0) {
      pack_controller(s, a.params + n / rows_per_member * a.n_params, packed);
    }
    if (a.z != nullptr) copy(z, a.z + n * s.latent, s.latent);
    if (a.h != nullptr) copy(h, a.h + n * s.hidden, s.hidden);
    if (a.c != nullptr) copy(c, a.c + n * s.hidden, s.hidden);
    control(s, l, packed, z, h, c, buffer, a.action + n * s.action);
  }
}

}  // namespace
}  // namespace wmf
