#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

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

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "'" : ", '") + name + "'";
  return text;
}

}  // namespace

std::vector<std::string> available_levels() {
  std::vector<std::string> names;
  for (const Level& level : kLevels) {
    if (is_built(level) && level.machine_runs_it()) names.emplace_back(level.name);
  }
  return names;
}

const Level& select_level(const std::string& name) {
  if (name.empty()) {
    const char* wanted = std::getenv("WMF_BACKEND");
    if (wanted != nullptr && *wanted != '\0') return select_level(wanted);
    static const Level& fastest = select_level(available_levels().back());
    return fastest;
  }
  for (const Level& level : kLevels) {
    if (name != level.name) continue;
    if (is_built(level) && level.machine_runs_it()) return level;
    throw std::invalid_argument("backend: '" + name + "' cannot run here, because " +
                                (is_built(level) ? "this machine lacks its instructions"
                                                 : "this build has no code for it") +
                                "; choose one of " + join(available_levels()) +
                                " (argument backend, or the environment variable WMF_BACKEND)");
  }
  throw std::invalid_argument("backend: expected one of " + join(available_levels()) + ", got '" +
                              name +
                              "' (argument backend, or the environment variable WMF_BACKEND)");
}

}  // namespace wmf
