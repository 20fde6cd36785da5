// Which levels this build has and this machine can run.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace wmf {

struct Level {
  const char* name;
  const Kernels* kernels;
  bool (*machine_runs_it)();
};

// Names, the fastest last. Never empty.
std::vector<std::string> available_levels();

// An empty name means the environment variable WMF_BACKEND, or the fastest level if that is not
// set. Throws std::invalid_argument if the name is unknown, or this build or machine lacks the
// level.
const Level& select_level(const std::string& name);

}  // namespace wmf
