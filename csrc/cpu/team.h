// Several threads on each step of a few rollouts. One rollout is bound by reading the weights, and
// two cores read twice as much: the leader plays the dream (dream.h), the others each multiply
// their share of the panels. They meet by spinning, since a step takes microseconds and a sleeping
// thread longer to wake.
#pragma once

#include <sched.h>

#include "cpu/mdn_rnn.h"

namespace wmf {
namespace {

// A wait of this many turns is some tens of microseconds: the thread awaited is not running.
constexpr int kSpins = 4000;

// All threads of the team wait for all. Returns whether this one had to wait too long.
bool meet(DreamTeam* team) {
  // Read before arriving: once all have, the leader may change it.
  const int32_t size = team->size;
  const uint32_t phase = __atomic_load_n(&team->phase, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == size) {
    __atomic_store_n(&team->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&team->phase, phase + 1, __ATOMIC_RELEASE);
    return false;
  }
  int turns = 0;
  while (__atomic_load_n(&team->phase, __ATOMIC_ACQUIRE) == phase) {
    if (++turns < kSpins) {
      relax();
    } else {
      sched_yield();
    }
  }
  return turns >= kSpins;
}

// The leader's view: a step done by the whole team, or alone once the team is dismissed.
struct Leader {
  DreamTeam* team;
  int64_t steps;
  int64_t late;  // steps at which somebody was awaited too long

  template <class Format>
  void step(const Layout& l, const float* packed, const StepRows& rows) {
    if (team->size == 1) {
      lstm<Format>(l, packed, rows, kWhole);
      head<Format>(l, packed, rows, kWhole);
      return;
    }
    team->step = &rows;
    const Part part{0, team->size};
    bool waited = meet(team);
    lstm<Format>(l, packed, rows, part);
    waited |= meet(team);
    head<Format>(l, packed, rows, part);
    waited |= meet(team);
    // On a busy machine the others are often not running when they are needed: go on alone.
    ++steps;
    late += waited ? 1 : 0;
    if (late > 32 + steps / 16) dismiss();
  }

  void dismiss() {
    if (team->size == 1) return;
    team->over = 1;
    meet(team);
    team->size = 1;
  }
};

// What every thread but the leader does until it is dismissed.
template <class Format>
void assist(const DreamArrays& a, DreamTeam* team, int64_t index) {
  const Layout l = layout<Format>(a.model.dims);
  const float* packed = a.model.data;
  const Part part{index, team->size};
  for (;;) {
    meet(team);
    if (team->over != 0) return;
    const StepRows& rows = *static_cast<const StepRows*>(team->step);
    lstm<Format>(l, packed, rows, part);
    meet(team);
    head<Format>(l, packed, rows, part);
    meet(team);
  }
}

}  // namespace
}  // namespace wmf
