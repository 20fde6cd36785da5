#include "cpu/run.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <numeric>
#include <vector>

#include "cpu/thread_pool.h"

namespace wmf {

namespace {
constexpr std::align_val_t kAlignment{64};
}

AlignedFloats::AlignedFloats(int64_t size)
    : size_(size),
      data_(static_cast<float*>(operator new[](static_cast<size_t>(size) * sizeof(float),
                                               kAlignment))) {}

void AlignedFloats::Free::operator()(float* p) const { operator delete[](p, kAlignment); }

AlignedFloats pack(const Kernels& kernels, const MdnRnnWeights& weights, Precision precision) {
  AlignedFloats packed(kernels.packed_size(weights.dims, precision));
  std::memset(packed.get(), 0, static_cast<size_t>(packed.size()) * sizeof(float));
  kernels.pack(weights, precision, packed.get());
  return packed;
}

AlignedFloats pack_encoder(const Kernels& kernels, const EncoderWeights& weights,
                           Precision precision) {
  AlignedFloats packed(kernels.encoder_packed_size(weights.latent, precision));
  std::memset(packed.get(), 0, static_cast<size_t>(packed.size()) * sizeof(float));
  kernels.pack_encoder(weights, precision, packed.get());
  return packed;
}

void encode_frames(const Kernels& kernels, const PackedEncoder& model, const EncoderArrays& arrays,
                   int threads) {
  // Each thread takes one stretch of frames.
  const int n = static_cast<int>(std::min<int64_t>(threads, arrays.rows));
  const int64_t share = (arrays.rows + n - 1) / n;
  const int64_t size = (kernels.encoder_scratch_size(model, share) + 15) / 16 * 16;
  const AlignedFloats scratch(size * n);
  run_in_parallel(n, [&](int i) {
    kernels.encode(model, arrays, arrays.rows * i / n, arrays.rows * (i + 1) / n,
                   scratch.get() + size * i);
  });
}

void mdn_rnn_step(const Kernels& kernels, const PackedMdnRnn& model, const StepArrays& arrays,
                  int threads) {
  // Each thread takes one stretch of rows.
  const int n = static_cast<int>(std::min<int64_t>(threads, arrays.rows));
  const int64_t size = (kernels.step_scratch_size(model, (arrays.rows + n - 1) / n) + 15) / 16 * 16;
  const AlignedFloats scratch(size * n);
  run_in_parallel(n, [&](int i) {
    kernels.step(model, arrays, arrays.rows * i / n, arrays.rows * (i + 1) / n,
                 scratch.get() + size * i);
  });
}

void mixture_sample(const Kernels& kernels, const SampleArrays& arrays) {
  const AlignedFloats scratch(kernels.sample_scratch_size(arrays.mixtures));
  kernels.sample(arrays, scratch.get());
}

void controller_forward(const Kernels& kernels, const ControllerArrays& arrays) {
  const AlignedFloats scratch(kernels.controller_scratch_size(arrays.spec));
  kernels.controller(arrays, scratch.get());
}

namespace {

using Clock = std::chrono::steady_clock;

// Calls `interrupted` 25 times a second, and stops all threads once it returns true.
struct Watch {
  const std::function<bool()>& interrupted;
  DreamProgress* progress;
  Clock::time_point next;

  void look() {
    if (Clock::now() < next) return;
    if (interrupted()) __atomic_store_n(&progress->stop, 1, __ATOMIC_RELAXED);
    next = Clock::now() + std::chrono::milliseconds(40);
  }
};

// More threads than this do not make one step faster: they meet three times in it.
constexpr int kMaxTeam = 4;

}  // namespace

bool dream_rollout(const Kernels& kernels, const DreamArrays& arrays, int threads,
                   const std::function<bool()>& interrupted) {
  const int64_t total = arrays.members * arrays.rollouts;
  DreamProgress progress{0, 0};
  Watch watch{interrupted, &progress, Clock::now()};
  // Only the calling thread may ask: Python answers signals on its main thread.
  const auto ask = [](void* context) { static_cast<Watch*>(context)->look(); };
  const auto do_not_ask = [](void*) {};

  if (threads > 1 && total <= kMaxTeamRows) {  // all threads on every step
    const AlignedFloats scratch(kernels.dream_scratch_size(arrays, total));
    DreamTeam team{};
    team.size = std::min(threads, kMaxTeam);
    run_in_parallel(team.size, [&](int i) {
      if (i == 0) {
        kernels.dream(arrays, total, &progress, &team, ask, &watch, scratch.get());
      } else {
        kernels.assist(arrays, &team, i);
      }
    });
  } else {  // each thread its own rollouts
    const int n = static_cast<int>(std::min<int64_t>(threads, total));
    // Rollouts of one length end in waves: slots that make the last one as full as the others.
    const int64_t share = (total + n - 1) / n;
    const int64_t waves = (share + kMaxBlockRows - 1) / kMaxBlockRows;
    const int64_t slots = (share + waves - 1) / waves;
    const int64_t size = (kernels.dream_scratch_size(arrays, slots) + 15) / 16 * 16;
    std::vector<AlignedFloats> scratch;
    for (int i = 0; i < n; ++i) scratch.emplace_back(size);
    run_in_parallel(
        n,
        [&](int i) {
          DreamTeam alone{};
          alone.size = 1;
          kernels.dream(arrays, slots, &progress, &alone, i == 0 ? ask : do_not_ask, &watch,
                        scratch[static_cast<size_t>(i)].get());
        },
        [&] { watch.look(); });
  }
  return __atomic_load_n(&progress.stop, __ATOMIC_RELAXED) == 0;
}

namespace {

// The rates of all threads together, each its best of many short stretches: what else the machine
// does at the time shall not make it look slower than it is. `work` returns how much it has done.
template <class Work>
double best_rate(int threads, double seconds, const Work& work) {
  std::vector<double> best(static_cast<size_t>(threads), 0.0);
  run_in_parallel(threads, [&](int i) {
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    for (auto now = Clock::now(); now < end;) {
      const auto begin = now;
      const double done = static_cast<double>(work(i));
      now = Clock::now();
      const double rate = done / std::chrono::duration<double>(now - begin).count();
      best[static_cast<size_t>(i)] = std::max(best[static_cast<size_t>(i)], rate);
    }
  });
  return std::accumulate(best.begin(), best.end(), 0.0);
}

}  // namespace

double peak_rate(const Kernels& kernels, Precision precision, int threads, double seconds) {
  return best_rate(threads, seconds, [&](int) { return kernels.peak(precision, 20'000); });
}

double read_rate(const Kernels& kernels, int64_t nbytes, int threads, double seconds) {
  const int64_t n = (nbytes / static_cast<int64_t>(sizeof(float)) + 127) / 128 * 128;
  std::vector<AlignedFloats> data;
  for (int i = 0; i < threads; ++i) {
    data.emplace_back(n);
    std::memset(data.back().get(), 0, static_cast<size_t>(n) * sizeof(float));
  }
  const int64_t passes = std::max<int64_t>(1, (int64_t{1} << 25) / nbytes);
  return best_rate(threads, seconds, [&](int i) {
    int64_t bytes = 0;
    for (int64_t pass = 0; pass < passes; ++pass) {
      bytes += kernels.read(data[static_cast<size_t>(i)].get(), n);
    }
    return bytes;
  });
}

}  // namespace wmf
