#include "emulator.h"

#include <ucontext.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) (static_cast<void>(p), static_cast<void>(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) (static_cast<void>(p), static_cast<void>(n))
#endif

namespace wmf::emulator {

namespace {

#if defined(WMF_RACES)
constexpr bool kWatchesRaces = true;
#else
constexpr bool kWatchesRaces = false;
#endif

constexpr size_t kStack = 128 * 1024;
constexpr size_t kGuard = 512;  // behind each block's shared memory: nobody's

// Threads that wait for one another.
struct Barrier {
  const char* what = "";
  int arrived = 0;
  uint32_t epoch = 0;  // how often all have come
  bool any = false, result = false;
};

struct Copy {
  void* to;
  const void* from;
};

struct Warp {
  Barrier barrier;
  uint32_t memory_epoch = 0;  // sync_warp only: the other operations do not order memory
  void* arguments[32];
};

struct Block {
  Barrier barrier;
  Barrier some[16];
  std::vector<Warp> warps;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<unsigned char[]> stack;  // not initialised: most of it is never touched
  int index, rank;                         // thread of the block, block of the group
  Barrier* waits_for;
  uint32_t waits_epoch;
  bool done;
  int some;                                // the barrier of sync_some that it uses
  std::vector<std::vector<Copy>> batches;  // the last one is still open
};

// One use of a byte of shared memory.
struct Use {
  int fiber = -1;
  uint32_t warp = 0, some = 0, block = 0, group = 0;  // epochs
};
struct Uses {
  Use write, read, read_by_another_warp;
};

struct Machine {
  Grid grid;
  int x0 = 0, y = 0;  // the group's first block
  std::vector<Fiber> fibers;
  std::vector<Block> blocks;
  Barrier group;
  unsigned char* shared = nullptr;
  size_t stride = 0;
  std::vector<Uses> uses;
  Fiber* current = nullptr;
  ucontext_t scheduler;
  const std::function<void()>* kernel = nullptr;
  std::string error;
};
Machine machine;

void fail(const std::string& text) {
  if (!machine.error.empty()) return;
  const Fiber& f = *machine.current;
  machine.error = text + " (block " + std::to_string(machine.x0 + f.rank) + ", thread " +
                  std::to_string(f.index) + ")";
}

void leave() { swapcontext(&machine.current->context, &machine.scheduler); }

void start() {
  (*machine.kernel)();
  machine.current->done = true;
  leave();
}

Block& block() { return machine.blocks[static_cast<size_t>(machine.current->rank)]; }
Warp& warp() { return block().warps[static_cast<size_t>(machine.current->index / 32)]; }

// Comes to a barrier of `all` threads; true for the last one.
bool arrive(Barrier& b, const char* what, int all) {
  if (b.arrived == 0) b.what = what;
  if (std::strcmp(b.what, what) != 0) {
    fail(std::string("a thread is at ") + what + " where others are at " + b.what);
  }
  return ++b.arrived == all;
}
void release(Barrier& b) {
  b.arrived = 0;
  ++b.epoch;
}
void wait(Barrier& b) {
  Fiber& f = *machine.current;
  f.waits_for = &b;
  f.waits_epoch = b.epoch;
  leave();
  f.waits_for = nullptr;
}
void meet(Barrier& b, const char* what, int all) {
  if (arrive(b, what, all)) {
    release(b);
  } else {
    wait(b);
  }
}

Use use_now() {
  const Fiber& f = *machine.current;
  return Use{static_cast<int>(&f - machine.fibers.data()), warp().memory_epoch,
             block().some[f.some].epoch, block().barrier.epoch, machine.group.epoch};
}

// Whether a barrier that both threads came to lies between an earlier use and now.
bool ordered(const Use& before, const Use& now) {
  if (before.fiber < 0 || before.fiber == now.fiber || before.group < now.group) return true;
  const Fiber& a = machine.fibers[static_cast<size_t>(before.fiber)];
  const Fiber& b = machine.fibers[static_cast<size_t>(now.fiber)];
  if (a.rank != b.rank) return false;
  if (before.block < now.block) return true;
  if (a.some == b.some && a.some != 0 && before.some < now.some) return true;
  return a.index / 32 == b.index / 32 && before.warp < now.warp;
}

bool same_warp(int fiber, int other) {
  return fiber >= 0 && fiber / 32 == other / 32;  // blocks are whole warps
}

void run_group() {
  Machine& m = machine;
  const auto group = static_cast<size_t>(m.grid.group);
  const auto threads = static_cast<size_t>(m.grid.threads);
  m.blocks.assign(group, Block{});
  for (Block& b : m.blocks) b.warps.resize((threads + 31) / 32);
  m.group = Barrier{};
  ASAN_UNPOISON_MEMORY_REGION(m.shared, m.stride * group);
  std::memset(m.shared, 0xff, m.stride * group);
  for (size_t rank = 0; rank < group; ++rank) {
    ASAN_POISON_MEMORY_REGION(m.shared + rank * m.stride + m.grid.shared_bytes,
                              m.stride - m.grid.shared_bytes);
  }
  if (kWatchesRaces) m.uses.assign(m.stride * group, Uses{});
  m.fibers.resize(group * threads);
  for (size_t i = 0; i < m.fibers.size(); ++i) {
    Fiber& f = m.fibers[i];
    if (f.stack == nullptr) f.stack.reset(new unsigned char[kStack]);
    f.index = static_cast<int>(i % threads);
    f.rank = static_cast<int>(i / threads);
    f.waits_for = nullptr;
    f.done = false;
    f.some = 0;
    f.batches.assign(1, {});
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = kStack;
    f.context.uc_link = nullptr;
    makecontext(&f.context, start, 0);
  }
}

void schedule(std::mt19937& random) {
  Machine& m = machine;
  std::vector<size_t> order(m.fibers.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (;;) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    size_t ran = 0, done = 0;
    for (const size_t i : order) {
      Fiber& f = m.fibers[i];
      done += f.done;
      if (f.done || (f.waits_for != nullptr && f.waits_for->epoch == f.waits_epoch)) continue;
      m.current = &f;
      swapcontext(&m.scheduler, &f.context);
      ++ran;
      if (!m.error.empty()) return;
    }
    if (done == m.fibers.size()) return;
    if (ran == 0) {
      for (Fiber& f : m.fibers) {
        if (f.done) continue;
        m.current = &f;
        fail(std::string("threads wait for ever, one of them at ") + f.waits_for->what);
      }
      return;
    }
  }
}

}  // namespace

std::string run(const Grid& grid, uint32_t seed, const std::function<void()>& kernel) {
  Machine& m = machine;
  m.grid = grid;
  m.kernel = &kernel;
  m.error.clear();
  m.stride = (grid.shared_bytes + kGuard + 127) / 128 * 128;
  void* memory = nullptr;
  if (posix_memalign(&memory, 128, m.stride * static_cast<size_t>(grid.group)) != 0) {
    return "no memory";
  }
  m.shared = static_cast<unsigned char*>(memory);
  std::mt19937 random(seed);
  for (m.y = 0; m.y < grid.blocks_y && m.error.empty(); ++m.y) {
    for (m.x0 = 0; m.x0 < grid.blocks_x && m.error.empty(); m.x0 += grid.group) {
      run_group();
      schedule(random);
    }
  }
  ASAN_UNPOISON_MEMORY_REGION(m.shared, m.stride * static_cast<size_t>(grid.group));
  std::free(memory);
  return m.error;
}

int thread_index() { return machine.current->index; }
int block_x() { return machine.x0 + machine.current->rank; }
int block_y() { return machine.y; }
int blocks_x() { return machine.grid.blocks_x; }
int rank_in_group() { return machine.current->rank; }
unsigned char* shared_memory(int rank) {
  if (rank < 0 || rank >= machine.grid.group) {
    fail("a thread asks for block " + std::to_string(rank) + " of its group");
    leave();
  }
  return machine.shared + static_cast<size_t>(rank) * machine.stride;
}

void sync_block() { meet(block().barrier, "sync_block", machine.grid.threads); }

bool sync_block_any(bool yes) {
  Barrier& b = block().barrier;
  if (b.arrived == 0) b.any = false;
  b.any = b.any || yes;
  if (arrive(b, "sync_block_any", machine.grid.threads)) {
    b.result = b.any;
    release(b);
  } else {
    wait(b);
  }
  return b.result;  // nobody comes to the next one before all have left this one: they run in turn
}

void sync_warp() {
  Warp& w = warp();
  if (arrive(w.barrier, "sync_warp", 32)) {
    ++w.memory_epoch;
    release(w.barrier);
  } else {
    wait(w.barrier);
  }
}

void sync_some(int barrier, int threads) {
  if (barrier < 1 || barrier > 15) fail("no such barrier: " + std::to_string(barrier));
  machine.current->some = barrier;
  meet(block().some[barrier], "sync_some", threads);
}

void sync_group() { meet(machine.group, "sync_group", machine.grid.threads * machine.grid.group); }

void together(const char* what, void* arguments, void (*act)(void* const (&arguments)[32])) {
  Warp& w = warp();
  w.arguments[machine.current->index % 32] = arguments;
  if (arrive(w.barrier, what, 32)) {
    act(w.arguments);
    release(w.barrier);
  } else {
    wait(w.barrier);
  }
}

void copy_async(void* to, const void* from) {
  if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    fail("a copy that is not aligned");
  }
  use(to, 16, true);
  machine.current->batches.back().push_back(Copy{to, from});
}

void end_batch() { machine.current->batches.emplace_back(); }

void wait_batches(int n) {
  auto& batches = machine.current->batches;
  while (static_cast<int>(batches.size()) - 1 > n) {
    for (const Copy& c : batches.front()) {
      use(c.to, 16, true);
      std::memcpy(c.to, c.from, 16);
    }
    batches.erase(batches.begin());
  }
}

void use(const void* p, size_t n, bool writes) {
  if (!kWatchesRaces || machine.current == nullptr) return;
  const auto begin = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(machine.shared);
  if (begin >= machine.uses.size()) return;
  const Use now = use_now();
  for (size_t i = begin; i < begin + n && i < machine.uses.size(); ++i) {
    Uses& u = machine.uses[i];
    if (!ordered(u.write, now) ||
        (writes && (!ordered(u.read, now) || !ordered(u.read_by_another_warp, now)))) {
      fail("a race at byte " + std::to_string(i % machine.stride) + " of block " +
           std::to_string(i / machine.stride) + "'s shared memory");
    }
    if (writes) {
      u.write = now;
      continue;
    }
    if (!same_warp(u.read.fiber, now.fiber)) u.read_by_another_warp = u.read;
    u.read = now;
  }
}

float from_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  float x;
  if (magnitude >= 0x7c00u) {  // infinity, NaN
    x = as_float(static_cast<uint32_t>(0x7f800000u | (magnitude & 0x3ffu) << 13));
  } else if (magnitude < 0x400u) {
    x = static_cast<float>(magnitude) * 5.9604644775390625e-8f;
  } else {
    x = as_float(static_cast<uint32_t>((magnitude << 13) + (112u << 23)));
  }
  return as_float(as_word(x) | sign);
}

}  // namespace wmf::emulator

#if defined(WMF_RACES)
// The kernels are compiled with -fsanitize=thread: the compiler then calls these at every use of
// memory. It is not linked with that sanitizer's own library.
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define WMF_USE(n)                                                            \
  void __tsan_read##n(void* p) { wmf::emulator::use(p, n, false); }           \
  void __tsan_write##n(void* p) { wmf::emulator::use(p, n, true); }           \
  void __tsan_unaligned_read##n(void* p) { wmf::emulator::use(p, n, false); } \
  void __tsan_unaligned_write##n(void* p) { wmf::emulator::use(p, n, true); }
WMF_USE(1)
WMF_USE(2)
WMF_USE(4)
WMF_USE(8)
WMF_USE(16)
void __tsan_read_range(void* p, size_t n) { wmf::emulator::use(p, n, false); }
void __tsan_write_range(void* p, size_t n) { wmf::emulator::use(p, n, true); }
}
#endif
