// Whole dreams: a thread owns a block of slots, each slot plays one rollout, and a rollout that
// ends gives its slot to the next one waiting. No thread waits for another, nothing is allocated,
// and a rollout does not know which slot or thread it is in: its noise comes from its id, its
// arithmetic from its own row.
#pragma once

#include "cpu/controller.h"
#include "cpu/team.h"

namespace wmf {
namespace {

struct Slot {
  int64_t rollout;    // member * R + r: where its result goes
  uint32_t noise_id;  // the rollout word of its noise
  uint32_t step;      // t
  float rewards;      // those that M has predicted, added up step by step
  float* controller;  // packed parameters, this slot's own
};

template <class Format>
int64_t dream_scratch_size(const DreamArrays& a, int64_t slots) {
  const Layout l = layout<Format>(a.model.dims);
  const int64_t per_slot =
      2 * row_size<Format>(l) + l.hidden + head_row(l) + controller_layout(a.spec).size;
  return slots * per_slot + controller_buffer_size(a.spec) + 8 * 16;
}

// A first latent's dimensions i ... i + W - 1, of `latent`; mu, logvar (latent) are the stored
// ones.
WMF_INLINE F first_latents(uint64_t seed, uint32_t rollout, const float* mu, const float* logvar,
                           int64_t latent, int64_t i) {
  const int64_t lanes = latent - i < W ? latent - i : W;
  float mean[W] = {}, log_variance[W] = {};
  copy(mean, mu + i, lanes);
  copy(log_variance, logvar + i, lanes);
  return initial_latent(seed, rollout, static_cast<uint32_t>(i), load(mean), load(log_variance));
}

// Takes the next rollout, if any is left, and writes its first row: z_0, h = c = 0, restart = 1.
template <class Format>
bool start_rollout(const DreamArrays& a, const Layout& l, DreamProgress* progress, Slot* slot,
                   const Rows& rows, int64_t s, float* cell) {
  const int64_t n = __atomic_fetch_add(&progress->next_rollout, 1, __ATOMIC_RELAXED);
  if (n >= a.members * a.rollouts) return false;
  slot->rollout = n;
  slot->noise_id = static_cast<uint32_t>(a.common_noise ? n % a.rollouts : n);
  slot->step = 0;
  slot->rewards = 0.0f;
  pack_controller(a.spec, a.params + n / a.rollouts * a.n_params, slot->controller);

  const MdnRnnDims& d = a.model.dims;
  float* row = rows.x + s * l.row;
  fill_zero(row, l.row);
  fill_zero(cell + s * l.hidden, l.hidden);
  const int64_t first = initial_index(a.seed, slot->noise_id, a.n_initial) * d.latent;
  float* z = row + l.hidden;
  for (int64_t i = 0; i < d.latent; i += W) {
    store(z + i, first_latents(a.seed, slot->noise_id, a.initial_mu + first,
                               a.initial_logvar + first, d.latent, i));
  }
  if (d.predicts_done) row[l.depth - 1] = 1.0f;
  write_hidden<Format>(l, rows, s);
  return true;
}

// The row of slot `from` moves to slot `to`.
template <class Format>
WMF_INLINE void move_row(const Layout& l, const Rows& rows, int64_t from, int64_t to) {
  copy(rows.x + to * l.row, rows.x + from * l.row, l.row);
  if (!Format::kRowIsOperand) {
    const auto bytes = static_cast<std::size_t>(l.word_row) * sizeof(Word);
    __builtin_memcpy(rows.q + to * l.word_row, rows.q + from * l.word_row, bytes);
  }
}

template <class Format>
void dream(const DreamArrays& a, int64_t n_slots, DreamProgress* progress, DreamTeam* team,
           void (*poll)(void*), void* context, float* scratch) {
  const MdnRnnDims& d = a.model.dims;
  const Layout l = layout<Format>(d);
  const ControllerLayout cl = controller_layout(a.spec);
  const float* packed = a.model.data;
  const Temper tau = temper(a.temperature);

  Arena arena{scratch};
  StepRows step{};
  step.now = take_rows<Format>(&arena, l, n_slots);
  step.next = take_rows<Format>(&arena, l, n_slots);
  step.cell = arena.take(n_slots * l.hidden);
  step.out = arena.take(n_slots * head_row(l));
  float* buffer = arena.take(controller_buffer_size(a.spec));
  float* controllers = arena.take(n_slots * cl.size);

  // Rows are read and written in whole; what no slot has used yet must not hold NaNs by accident.
  fill_zero(step.next.x, n_slots * l.row);

  Slot slots[kMaxBlockRows];
  int64_t& active = step.rows;
  while (active < n_slots) {
    slots[active].controller = controllers + active * cl.size;
    if (!start_rollout<Format>(a, l, progress, &slots[active], step.now, active, step.cell)) break;
    ++active;
  }

  Leader leader{team, 0, 0};
  while (active > 0) {
    poll(context);
    if (__atomic_load_n(&progress->stop, __ATOMIC_RELAXED) != 0) break;

    for (int64_t s = 0; s < active; ++s) {
      float* row = step.now.x + s * l.row;
      control(a.spec, cl, slots[s].controller, row + l.hidden, row, step.cell + s * l.hidden,
              buffer, row + l.hidden + l.latent);
      write_inputs<Format>(l, step.now, s);
    }
    leader.step<Format>(l, packed, step);

    for (int64_t s = 0; s < active;) {
      Slot& slot = slots[s];
      float* row = step.next.x + s * l.row;
      const uint32_t length = slot.step + 1;
      const bool done = d.predicts_done &&
                        is_done(NoiseId{a.seed, slot.noise_id, slot.step},
                                done_logit(l, packed, row), a.done_threshold, a.done_temperature);
      if (d.predicts_reward) slot.rewards += reward(l, packed, row);
      if (!done && length < static_cast<uint32_t>(a.max_steps)) {
        sample_row(l, d.mixtures, step.out + s * head_row(l), tau, a.seed, slot.noise_id, slot.step,
                   row + l.hidden);
        if (d.predicts_done) row[l.depth - 1] = 0.0f;
        slot.step = length;
        ++s;
        continue;
      }
      a.returns[slot.rollout] = d.predicts_reward ? slot.rewards : static_cast<float>(length);
      a.lengths[slot.rollout] = static_cast<int32_t>(length);
      if (start_rollout<Format>(a, l, progress, &slot, step.next, s, step.cell)) {
        ++s;
        continue;
      }
      // Nothing is waiting: the last slot moves here, and is looked at next.
      --active;
      if (s < active) {
        float* free_controller = slot.controller;
        slot = slots[active];
        slots[active].controller = free_controller;
        move_row<Format>(l, step.next, active, s);
        copy(step.cell + s * l.hidden, step.cell + active * l.hidden, l.hidden);
        copy(step.out + s * head_row(l), step.out + active * head_row(l), head_row(l));
      }
    }
    const Rows swap = step.now;
    step.now = step.next;
    step.next = swap;
    step.backwards = !step.backwards;
  }
  leader.dismiss();
}

// --- what the dream does for one step of rows of the caller's own --------------------------------

void done_rows(const DoneArrays& a) {
  for (int64_t n = 0; n < a.rows; ++n) {
    const NoiseId id = noise_id(a.noise, n);
    a.done[n] = is_done(id, a.done_logit[n], a.done_threshold, a.done_temperature) ? 1 : 0;
  }
}

void initial_rows(const InitialArrays& a) {
  for (int64_t n = 0; n < a.rows; ++n) {
    const NoiseId id = noise_id(a.noise, n);
    const int64_t first = initial_index(id.seed, id.rollout, a.n_initial) * a.latent;
    for (int64_t i = 0; i < a.latent; i += W) {
      float z[W];
      store(z, first_latents(id.seed, id.rollout, a.initial_mu + first, a.initial_logvar + first,
                             a.latent, i));
      copy(a.z + n * a.latent + i, z, a.latent - i < W ? a.latent - i : W);
    }
  }
}

}  // namespace
}  // namespace wmf
