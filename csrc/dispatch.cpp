#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

#include "cuda/run.h"

namespace wmf {

// Defined by cpu/kernels.cpp compiled for the level, or empty, by cpu/no_kernels.cpp.
extern const Kernels kGenericKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;

namespace {

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512_bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16") &&
         __builtin_cpu_supports("avx512vnni");
}
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
bool has_avx512_bf16() { return false; }
#endif

const Level kLevels[] = {
    {"generic", &kGenericKernels, always},
    {"avx2", &kAvx2Kernels, has_avx2},
    {"avx512", &kAvx512Kernels, has_avx512},
    {"avx512_bf16", &kAvx512Bf16Kernels, has_avx512_bf16},
};

bool is_built(const Level& level) { return level.kernels->pack != nullptr; }

constexpr char kHow[] = " (argument backend, or the environment variable WMF_BACKEND)";

std::vector<std::string> available_levels() {
  std::vector<std::string> names;
  for (const Level& level : kLevels) {
    if (is_built(level) && level.machine_runs_it()) names.emplace_back(level.name);
  }
  return names;
}

std::string available_text() {
  std::string text;
  for (const std::string& name : available_backends()) {
    text += (text.empty() ? "'" : ", '") + name + "'";
  }
  return text;
}

[[noreturn]] void refuse(const std::string& name, const std::string& why) {
  throw std::invalid_argument("backend: '" + name + "' cannot run here, because " + why +
                              "; choose one of " + available_text() + kHow);
}

}  // namespace

std::vector<std::string> available_backends() {
  std::vector<std::string> names = available_levels();
  if (why_no_cuda().empty()) names.emplace_back("cuda");
  return names;
}

const Level* select_backend(const std::string& name) {
  if (name.empty()) {
    const char* wanted = std::getenv("WMF_BACKEND");
    if (wanted != nullptr && *wanted != '\0') return select_backend(wanted);
    return &fastest_level();
  }
  for (const Level& level : kLevels) {
    if (name != level.name) continue;
    if (is_built(level) && level.machine_runs_it()) return &level;
    refuse(name, is_built(level) ? "this machine lacks its instructions"
                                 : "this build has no code for it");
  }
  if (name == "cuda") {
    const std::string why = why_no_cuda();
    if (!why.empty()) refuse(name, why);
    return nullptr;
  }
  throw std::invalid_argument("backend: expected one of " + available_text() + ", got '" + name +
                              "'" + kHow);
}

const Level& fastest_level() {
  static const Level* fastest = select_backend(available_levels().back());
  return *fastest;
}

const Level& select_level(const std::string& name) {
  const Level* level = select_backend(name);
  if (level == nullptr) {
    throw std::invalid_argument(std::string("backend: expected a level of the CPU, got 'cuda'") +
                                kHow);
  }
  return *level;
}

int select_cuda_device(int wish) {
  const cuda::CudaStatus status = cuda::cuda_status();
  if (!status.reason.empty()) refuse("cuda", status.reason);
  for (const cuda::CudaDevice& device : status.devices) {
    if (wish >= 0 && device.index != wish) continue;
    if (device.reason.empty()) return device.index;
    if (wish >= 0) {
      throw std::invalid_argument("device: 'cuda:" + std::to_string(wish) + "', " + device.name +
                                  ", cannot be used: " + device.reason);
    }
  }
  throw std::invalid_argument("device: expected one of the " +
                              std::to_string(status.devices.size()) +
                              " CUDA devices, got 'cuda:" + std::to_string(wish) + "'");
}

std::string why_no_cuda() {
  static const std::string why = cuda::cuda_status().reason;
  return why;
}

}  // namespace wmf
