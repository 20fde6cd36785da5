// Which levels this build has and this machine can run, and whether CUDA can.
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

// The levels' names, the fastest last; then "cuda" if it can run. Never empty.
std::vector<std::string> available_backends();

// An empty name means the environment variable WMF_BACKEND, or the fastest level if that is not
// set. Null means CUDA. Throws std::invalid_argument if the name is unknown, or this build or
// machine lacks what it names.
const Level* select_backend(const std::string& name);

// The fastest level that this build has and this machine can run.
const Level& fastest_level();

// Like select_backend for what runs on the CPU only.
const Level& select_level(const std::string& name);

// The first CUDA device that can be used; `wish`, if that is not below 0. Throws
// std::invalid_argument if there is none, or not that one.
int select_cuda_device(int wish);

// Why this process cannot compute on CUDA devices; empty if it can. Looks once.
std::string why_no_cuda();

}  // namespace wmf
