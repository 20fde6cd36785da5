#include "cuda/dream_rollout.cuh"

#include <array>
#include <map>
#include <mutex>

#include "cuda/launch.cuh"
#include "cuda/plan.h"

namespace wmf::cuda {

namespace {

template <class Operand, int kTiles>
__global__ void __launch_bounds__(kThreads, 1)
    dream_kernel(const __grid_constant__ DreamTask task) {
  dream_rollout<Operand, kTiles>(task);
}

using Kernel = void (*)(DreamTask);

Kernel kernel_of(Precision precision, int tiles) {
  const bool half = precision == Precision::kFp16;
  if (tiles == 1) return half ? dream_kernel<Half, 1> : dream_kernel<Single, 1>;
  if (tiles == 2) return half ? dream_kernel<Half, 2> : dream_kernel<Single, 2>;
  return half ? dream_kernel<Half, 4> : dream_kernel<Single, 4>;
}

// What a launch of these groups is.
struct Launch {
  cudaLaunchAttribute attribute{};
  cudaLaunchConfig_t config{};

  Launch(const DreamLayout& l, int groups, cudaStream_t stream) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned int>(l.group);
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
    config.gridDim = dim3(static_cast<unsigned int>(groups * l.group));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = static_cast<size_t>(l.size);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = l.group > 1 ? 1 : 0;
  }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;
};

void prepare(Kernel kernel, const DreamLayout& l, int device) {
  allow_shared(kernel, l.size, device);
  if (l.group > 8) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
          "groups of 16 blocks");
  }
}

int ask_groups_at_once(Precision precision, const DreamLayout& l, int device) {
  const Kernel kernel = kernel_of(precision, l.shape.tiles);
  prepare(kernel, l, device);
  const Launch launch(l, 1, nullptr);
  int n = 0;
  // A device may refuse groups of 16: then there are none.
  if (cudaOccupancyMaxActiveClusters(&n, reinterpret_cast<const void*>(kernel), &launch.config) !=
      cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return n;
}

// How many groups run at the same time on the current device. Asked once for each kind of launch:
// a plan compares many, and every dream makes a plan.
int groups_at_once(Precision precision, const DreamLayout& l, int device) {
  if (l.group == 1) return limits_of(device).processors;
  static std::mutex mutex;
  static std::map<std::array<int, 5>, int> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const std::array<int, 5> key = {device, static_cast<int>(precision), l.shape.tiles, l.group,
                                  l.size};
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  return known[key] = ask_groups_at_once(precision, l, device);
}

Plan find_plan(const DreamArrays& a, const PackedLayout& model, const ControlLayout& control,
               int device, DreamPlan wish) {
  const Limits& limits = limits_of(device);
  const PlanDevice what = {
      limits.sm, limits.processors, limits.shared_memory,
      [&](const DreamLayout& l) { return groups_at_once(a.model.precision, l, device); }};
  const Plan plan = choose_plan(model, control, what, a.members * a.rollouts, a.max_steps,
                                wish.group, wish.slots);
  if (plan.groups > 0) return plan;
  const bool wished = wish.group != 0 || wish.slots != 0;
  throw std::invalid_argument(
      (wished
           ? std::string("plan: expected a group and slots that this device can do")
           : std::string("hidden_dim, latent_dim, n_mixtures, hidden_units: expected a model and "
                         "a controller that fit into the shared memory of this device")) +
      " (" + std::to_string(limits.shared_memory) + " bytes), got group " +
      std::to_string(wish.group) + ", slots " + std::to_string(wish.slots) + "; use " +
      (wished ? "0 to let it choose" : "the CPU"));
}

void launch(const DreamArrays& a, int device, cudaStream_t stream, const int32_t* stop,
            DreamPlan wish) {
  check_spec(a.spec);
  DreamTask task{};
  task.model = packed_layout(a.model.dims, a.model.precision);
  task.control = control_layout(a.spec);
  const Plan plan = find_plan(a, task.model, task.control, device, wish);
  const Scratch next_rollout(sizeof(int64_t), device, stream);
  check(cudaMemsetAsync(next_rollout.get<void>(), 0, sizeof(int64_t), stream), "a counter");
  task.shared = plan.shared;
  task.packed = a.model.data;
  task.params = a.params;
  task.initial_mu = a.initial_mu;
  task.initial_logvar = a.initial_logvar;
  task.n_initial = a.n_initial;
  task.rollouts = a.rollouts;
  task.total = a.members * a.rollouts;
  task.seed = a.seed;
  task.temperature = a.temperature;
  task.done_threshold = a.done_threshold;
  task.done_temperature = a.done_temperature;
  task.max_steps = a.max_steps;
  task.common_noise = a.common_noise;
  task.returns = a.returns;
  task.lengths = a.lengths;
  task.next_rollout = next_rollout.get<int64_t>();
  task.stop = stop;
  const Kernel kernel = kernel_of(a.model.precision, plan.shared.shape.tiles);
  prepare(kernel, plan.shared, device);
  const Launch how(plan.shared, plan.groups, stream);
  check(cudaLaunchKernelEx(&how.config, kernel, task), "launching the dream");
}

// A word of the host's memory that a running dream looks at. Making one is slow: they are kept.
class StopWord {
 public:
  StopWord() {
    const std::lock_guard<std::mutex> lock(mutex());
    if (!kept().empty()) {
      word_ = kept().back();
      kept().pop_back();
    } else {
      void* memory = nullptr;
      check(cudaHostAlloc(&memory, sizeof(int32_t), cudaHostAllocMapped | cudaHostAllocPortable),
            "a word that the device can see");
      word_ = static_cast<int32_t*>(memory);
    }
    *word_ = 0;
  }
  ~StopWord() {
    const std::lock_guard<std::mutex> lock(mutex());
    kept().push_back(word_);
  }
  StopWord(const StopWord&) = delete;
  StopWord& operator=(const StopWord&) = delete;
  void set() const { *static_cast<volatile int32_t*>(word_) = 1; }
  // Its address for the current device.
  const int32_t* on_device() const {
    void* there = nullptr;
    check(cudaHostGetDevicePointer(&there, word_, 0), "a word that the device can see");
    return static_cast<const int32_t*>(there);
  }

 private:
  static std::mutex& mutex() {
    static std::mutex m;
    return m;
  }
  static std::vector<int32_t*>& kept() {
    static std::vector<int32_t*> words;
    return words;
  }
  int32_t* word_;
};

class OwnStream {
 public:
  OwnStream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream"); }
  ~OwnStream() { cudaStreamDestroy(stream_); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace

std::vector<NamedKernel> dream_kernels() {
  return {
      {"dream fp16 1", reinterpret_cast<const void*>(dream_kernel<Half, 1>)},
      {"dream fp16 2", reinterpret_cast<const void*>(dream_kernel<Half, 2>)},
      {"dream fp16 4", reinterpret_cast<const void*>(dream_kernel<Half, 4>)},
      {"dream fp32 1", reinterpret_cast<const void*>(dream_kernel<Single, 1>)},
      {"dream fp32 2", reinterpret_cast<const void*>(dream_kernel<Single, 2>)},
      {"dream fp32 4", reinterpret_cast<const void*>(dream_kernel<Single, 4>)},
  };
}

DreamPlan plan_dream(const DreamArrays& arrays, int device, DreamPlan wish) {
  limits_of(device);
  check_spec(arrays.spec);
  const Current current(device);
  const PackedLayout model = packed_layout(arrays.model.dims, arrays.model.precision);
  const Plan plan = find_plan(arrays, model, control_layout(arrays.spec), device, wish);
  return DreamPlan{plan.shared.group, plan.shared.slots};
}

void dream_rollout(const DreamArrays& arrays, int device, void* stream, DreamPlan wish) {
  limits_of(device);
  const Current current(device);
  launch(arrays, device, static_cast<cudaStream_t>(stream), nullptr, wish);
}

bool dream_rollout_from_host(const DreamArrays& arrays, int device,
                             const std::function<bool()>& interrupted, DreamPlan wish) {
  limits_of(device);
  const Current current(device);
  const OwnStream own;
  const cudaStream_t stream = own.get();
  const MdnRnnDims& d = arrays.model.dims;

  // One piece of memory for all of it: [params | mu | logvar | returns | lengths].
  const int64_t total = arrays.members * arrays.rollouts, latents = arrays.n_initial * d.latent;
  const auto line = [](int64_t floats) { return (floats + 31) / 32 * 32; };
  const int64_t params = line(arrays.members * arrays.n_params), mu = line(latents),
                results = line(total);
  const Scratch memory((params + 2 * mu + 2 * results) * static_cast<int64_t>(sizeof(float)),
                       device, stream);
  DreamArrays a = arrays;
  float* next = memory.get<float>();
  const auto up = [&](const float* from, int64_t n, int64_t place) {
    float* to = next;
    next += place;
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(n) * sizeof(float), cudaMemcpyHostToDevice,
                          stream),
          "copy to the device");
    return to;
  };
  a.params = up(arrays.params, arrays.members * arrays.n_params, params);
  a.initial_mu = up(arrays.initial_mu, latents, mu);
  a.initial_logvar = up(arrays.initial_logvar, latents, mu);
  a.returns = next;
  a.lengths = reinterpret_cast<int32_t*>(next + results);

  const StopWord stop;
  launch(a, device, stream, stop.on_device(), wish);
  const bool finished = wait_for(stream, device, interrupted);
  if (!finished) {
    stop.set();
    check(cudaStreamSynchronize(stream), "the dream");
    return false;
  }
  const auto down = [&](void* to, const void* from) {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(total) * sizeof(float),
                          cudaMemcpyDeviceToHost, stream),
          "copy from the device");
  };
  down(arrays.returns, a.returns);
  down(arrays.lengths, a.lengths);
  check(cudaStreamSynchronize(stream), "the dream");
  return true;
}

}  // namespace wmf::cuda
