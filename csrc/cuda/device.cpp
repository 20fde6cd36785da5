#include "cuda/device.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "cuda/layout.h"

namespace wmf::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // what can be forgotten is forgotten: it was for this call
  const std::string text = std::string(what) + ": CUDA says '" + cudaGetErrorString(status) +
                           "' (" + cudaGetErrorName(status) + ")";
  if (status == cudaErrorMemoryAllocation) throw CudaOutOfMemory(text);
  throw CudaError(text);
}

Current::Current(int device) {
  check(cudaGetDevice(&before_), "cudaGetDevice");
  if (device != before_) check(cudaSetDevice(device), "cudaSetDevice");
}
Current::~Current() { cudaSetDevice(before_); }

// --- devices -----------------------------------------------------------------------------------

namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

constexpr int kLowestSm = 80;
constexpr int kMaxDevices = 64;

struct Devices {
  CudaStatus status;
  std::vector<Limits> limits;
};

CudaDevice look_at_device(int index, Limits* limits) {
  CudaDevice d{};
  d.index = index;
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  d.name = properties.name;
  d.sm = 10 * properties.major + properties.minor;
  d.processors = properties.multiProcessorCount;
  d.memory = static_cast<int64_t>(properties.totalGlobalMem);
  *limits = Limits{d.sm, d.processors, attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index)};
  if (d.sm < kLowestSm) {
    d.reason = d.name + " has compute capability " + std::to_string(properties.major) + "." +
               std::to_string(properties.minor) + "; the kernels need 8.0 or above";
  } else if (attribute(cudaDevAttrMemoryPoolsSupported, index) == 0) {
    d.reason = d.name + " has no stream-ordered memory with this driver; update the driver";
  } else if (attribute(cudaDevAttrComputeMode, index) == cudaComputeModeProhibited) {
    d.reason = d.name + " is in compute mode 'prohibited'; see nvidia-smi -c";
  }
  return d;
}

Devices find_devices() {
  Devices found{};
  CudaStatus& s = found.status;
  s.built = true;
  cudaRuntimeGetVersion(&s.runtime);
  if (cudaDriverGetVersion(&s.driver) != cudaSuccess) s.driver = 0;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (s.driver == 0) {
    s.reason = "no CUDA driver: libcuda was not found; install NVIDIA's driver";
  } else if (status == cudaErrorInsufficientDriver) {
    s.reason = "the driver is too old: it supports CUDA " + version_text(s.driver) +
               ", the kernels were built with CUDA " + version_text(s.runtime) +
               "; update the driver";
  } else if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0)) {
    s.reason = "the driver sees no CUDA device; is CUDA_VISIBLE_DEVICES set?";
  } else if (status != cudaSuccess) {
    s.reason = std::string("the driver fails: '") + cudaGetErrorString(status) + "' (" +
               cudaGetErrorName(status) + ")";
  }
  if (!s.reason.empty()) return found;
  for (int i = 0; i < std::min(count, kMaxDevices); ++i) {
    found.limits.emplace_back();
    try {
      s.devices.push_back(look_at_device(i, &found.limits.back()));
    } catch (const CudaError& error) {
      s.devices.push_back(CudaDevice{i, "device " + std::to_string(i), 0, 0, 0, error.what()});
    }
  }
  const auto usable = [](const CudaDevice& d) { return d.reason.empty(); };
  if (std::none_of(s.devices.begin(), s.devices.end(), usable)) {
    for (const CudaDevice& d : s.devices) s.reason += (s.reason.empty() ? "" : "; ") + d.reason;
  }
  return found;
}

const Devices& devices() {
  static const Devices found = find_devices();
  return found;
}

}  // namespace

CudaStatus cuda_status() { return devices().status; }

const Limits& limits_of(int device) {
  const CudaStatus& s = devices().status;
  if (!s.reason.empty()) throw CudaError("CUDA cannot be used: " + s.reason);
  if (device < 0 || device >= static_cast<int>(s.devices.size())) {
    throw std::invalid_argument(
        "device: expected one of cuda:0 ... cuda:" + std::to_string(s.devices.size() - 1) +
        ", got cuda:" + std::to_string(device));
  }
  const auto i = static_cast<size_t>(device);
  if (!s.devices[i].reason.empty()) {
    throw std::invalid_argument("device: cuda:" + std::to_string(device) +
                                " cannot be used, because " + s.devices[i].reason);
  }
  return devices().limits[i];
}

// --- sizes -------------------------------------------------------------------------------------

namespace {

void expect_at_most(const char* name, int64_t value, int64_t limit) {
  if (value <= limit) return;
  throw std::invalid_argument(std::string(name) + ": expected at most " + std::to_string(limit) +
                              " on CUDA, got " + std::to_string(value) + "; use the CPU");
}

}  // namespace

void check_dims(const MdnRnnDims& d, Precision precision) {
  if (precision != Precision::kFp32 && precision != Precision::kFp16) {
    throw std::invalid_argument("precision: expected 'fp32' or 'fp16' on CUDA");
  }
  expect_at_most("hidden_dim", d.hidden, 8192);
  expect_at_most("latent_dim", d.latent, 8192);
  expect_at_most("action_dim", d.action, kMaxActions);
  expect_at_most("n_mixtures", d.mixtures, 512);
  expect_at_most("latent_dim * n_mixtures", d.latent * d.mixtures, 65536);
}

void check_spec(const ControllerSpec& s) {
  expect_at_most("action_dim", s.action, kMaxActions);
  expect_at_most("hidden_units", s.hidden_units, 1024);
  expect_at_most("hidden_dim", s.hidden, 8192);
  expect_at_most("latent_dim", s.latent, 8192);
}

// --- memory ------------------------------------------------------------------------------------

namespace {

// Made at the first use of a device and kept for ever.
cudaMemPool_t pool_of(int device) {
  static std::mutex mutex;
  static std::array<cudaMemPool_t, kMaxDevices> pools{};
  const std::lock_guard<std::mutex> lock(mutex);
  cudaMemPool_t& pool = pools.at(static_cast<size_t>(device));
  if (pool == nullptr) {
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    check(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
    uint64_t kept = uint64_t{64} << 20;
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept),
          "cudaMemPoolSetAttribute");
  }
  return pool;
}

}  // namespace

Scratch::Scratch(int64_t bytes, int device, cudaStream_t stream) : stream_(stream) {
  check(cudaMallocFromPoolAsync(&data_, static_cast<size_t>(bytes), pool_of(device), stream),
        "memory for a call");
}
Scratch::~Scratch() { cudaFreeAsync(data_, stream_); }

struct CudaMemory::State {
  void* data = nullptr;
  int64_t bytes;
  int device;

  State(int64_t n, int on) : bytes(n), device(on) {
    limits_of(device);
    const Current current(device);
    check(cudaMalloc(&data, static_cast<size_t>(std::max<int64_t>(bytes, 1))), "cudaMalloc");
  }
  ~State() {
    int before = 0;
    if (cudaGetDevice(&before) != cudaSuccess) return;  // the process is ending
    cudaSetDevice(device);
    cudaFree(data);
    cudaSetDevice(before);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

CudaMemory::CudaMemory(int64_t bytes, int device)
    : state_(std::make_unique<State>(bytes, device)) {}
CudaMemory::~CudaMemory() = default;
CudaMemory::CudaMemory(CudaMemory&& other) noexcept = default;
CudaMemory& CudaMemory::operator=(CudaMemory&& other) noexcept = default;
void* CudaMemory::get() const { return state_->data; }
int64_t CudaMemory::bytes() const { return state_->bytes; }
int CudaMemory::device() const { return state_->device; }

void CudaMemory::upload(const void* host) {
  const Current current(device());
  check(cudaMemcpy(get(), host, static_cast<size_t>(bytes()), cudaMemcpyHostToDevice),
        "copy to the device");
}
void CudaMemory::download(void* host) const {
  const Current current(device());
  check(cudaMemcpy(host, get(), static_cast<size_t>(bytes()), cudaMemcpyDeviceToHost),
        "copy from the device");
}

// --- waiting -----------------------------------------------------------------------------------

bool wait_for(void* stream, int device, const std::function<bool()>& interrupted) {
  const Current current(device);
  using Clock = std::chrono::steady_clock;
  auto next = Clock::now() + std::chrono::milliseconds(40);
  for (;;) {
    const cudaError_t status = cudaStreamQuery(static_cast<cudaStream_t>(stream));
    if (status == cudaSuccess) return true;
    if (status != cudaErrorNotReady) check(status, "the device's work");
    std::this_thread::sleep_for(std::chrono::microseconds(20));
    if (Clock::now() < next) continue;
    if (interrupted()) return false;
    next = Clock::now() + std::chrono::milliseconds(40);
  }
}

std::vector<CudaKernel> kernel_resources(int device) {
  limits_of(device);
  const Current current(device);
  std::vector<CudaKernel> all;
  for (const auto& kernels :
       {pack_kernels(), step_kernels(), sample_kernels(), controller_kernels(), dream_kernels()}) {
    for (const NamedKernel& kernel : kernels) {
      cudaFuncAttributes a{};
      check(cudaFuncGetAttributes(&a, kernel.function), kernel.name);
      all.push_back(CudaKernel{kernel.name, a.numRegs, static_cast<int64_t>(a.localSizeBytes)});
    }
  }
  return all;
}

}  // namespace wmf::cuda
