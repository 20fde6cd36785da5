// How a dream is spread over a device: which groups of blocks, how many slots, who multiplies what.
// Plain arithmetic on the host. It decides speed only: results are the same, bit for bit.
#pragma once

#include <algorithm>
#include <functional>

#include "cuda/layout.h"

namespace wmf::cuda {

struct Plan {
  DreamLayout shared;
  int groups;           // launched
  double microseconds;  // estimated, for the whole dream, if no rollout ends before its last step
};

struct PlanDevice {
  int sm, processors;
  int shared_memory;  // bytes that a block can have
  // How many groups of that size run at the same time.
  std::function<int(const DreamLayout&)> groups_at_once;
};

// Clocks that a block takes for a step: estimates from the numbers of an H100 (csrc/README.md,
// CUDA), good enough to choose by, and never measured.
inline double step_clocks(const PackedLayout& m, const ControlLayout& c, const DreamLayout& l) {
  const double own_units = largest_share(m.unit_blocks, l.group);
  const double own_latents = largest_share(m.latent_blocks, l.group);
  const double stages = own_units * kPairsPerUnitBlock * m.lstm_stages +
                        own_latents * m.head_block_pairs * m.head_stages;
  const double tiles = l.shape.tiles * l.shape.parts;
  // Products: shared memory gives 128 bytes a clock; mma.sync does some 1,270 multiply-adds of
  // halves, the plain units 128 of floats.
  const double bytes = stages * l.shape.parts * (kStageBytes + l.shape.tiles * 256.0);
  const double multiply_adds = stages * tiles * 8 * kPairRows * m.stage_depth;
  const double rate = m.operand_bytes == 2 ? 1270.0 : 100.0;
  // One warp after the other: from one stage's operands to the next takes some time whatever is
  // asked for.
  const double busiest = stages_per_stream(m, l.group, l.shape.streams);
  const double alone =
      busiest * (m.operand_bytes == 2 ? 50.0 + 16.0 * l.shape.tiles : 80.0 + 128.0 * l.shape.tiles);
  // L2 gives a processor some 25 bytes a clock.
  const double streamed = stages * (1.0 - l.resident / busiest) * kStageBytes / 25.0;
  const double products = std::max({bytes / 128.0, multiply_adds / rate, alone, streamed});
  // The rest, at some 80 numbers a clock: per unit the gates and the parts of the sums, per latent
  // the noise and the sample.
  const double numbers = l.slots * (own_units * kUnitBlock * (70.0 + 6.0 * l.partials) +
                                    own_latents * kLatentBlock * (250.0 + 40.0 * m.mixtures));
  const double actions = l.slots * c.outputs * (60.0 + 4.0 * (m.unit_blocks + m.latent_blocks));
  const double meetings = l.group > 1 ? 1500.0 : 600.0;
  return products + (numbers + actions) / 80.0 + meetings;
}

// The best of the plans for `total` rollouts of at most `max_steps` steps. group, slots: 0, or the
// only ones to consider. groups is 0 if none fits into the device.
inline Plan choose_plan(const PackedLayout& m, const ControlLayout& c, const PlanDevice& device,
                        int64_t total, int64_t max_steps, int group, int slots) {
  // The ways in which 8 warps can share a product: tiles, parts.
  constexpr int kShapes[][2] = {{1, 1}, {2, 1}, {1, 2}, {4, 1}, {2, 2},
                                {1, 4}, {4, 2}, {2, 4}, {4, 4}};
  Plan best{};
  for (int g = 1; g <= (device.sm >= 90 ? kMaxGroup : 1); g *= 2) {
    if (group != 0 && g != group) continue;
    if (g > m.unit_blocks || g > device.processors) continue;
    for (const auto& [tiles, parts] : kShapes) {
      const int s = tiles * parts * 8;
      if (slots != 0 && s != slots) continue;
      Plan plan{};
      const Shape shape = {tiles, parts, kWarps / parts};
      plan.shared = dream_layout(m, c, g, s, shape, device.shared_memory);
      if (plan.shared.size > device.shared_memory) continue;
      const int at_once = device.groups_at_once(plan.shared);
      if (at_once < 1) continue;
      const int64_t needed = (total + s - 1) / s;
      plan.groups = static_cast<int>(std::min<int64_t>(at_once, needed));
      const double waves = static_cast<double>((needed + at_once - 1) / at_once);
      // Clocks at 1.7 GHz.
      plan.microseconds =
          waves * static_cast<double>(max_steps) * step_clocks(m, c, plan.shared) / 1700.0;
      if (best.groups == 0 || plan.microseconds < best.microseconds) best = plan;
    }
  }
  return best;
}

}  // namespace wmf::cuda
