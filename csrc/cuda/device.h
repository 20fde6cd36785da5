// What the launchers share: errors, the current device, its limits, scratch memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "cuda/run.h"

namespace wmf::cuda {

// Throws CudaOutOfMemory or CudaError, `what` first, unless it is cudaSuccess.
void check(cudaError_t status, const char* what);

// Makes a device current, and the caller's again when it goes.
class Current {
 public:
  explicit Current(int device);
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
};

struct Limits {
  int sm;             // 90 is compute capability 9.0
  int processors;     // SMs
  int shared_memory;  // bytes that a block can have
};

// Throws std::invalid_argument for a device that does not exist or that the kernels cannot use.
const Limits& limits_of(int device);

// Memory of the current device for the work that comes next in a stream. Taken and given back in
// its order, out of a pool of our own that keeps some, so that it costs little.
class Scratch {
 public:
  Scratch(int64_t bytes, int device, cudaStream_t stream);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* get() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
};

// A kernel, for kernel_resources.
struct NamedKernel {
  const char* name;
  const void* function;
};

// The kernels of each file.
std::vector<NamedKernel> pack_kernels();
std::vector<NamedKernel> step_kernels();
std::vector<NamedKernel> sample_kernels();
std::vector<NamedKernel> controller_kernels();
std::vector<NamedKernel> dream_kernels();

// The sizes that the kernels can do; else throws std::invalid_argument, naming the argument.
void check_dims(const MdnRnnDims& dims, Precision precision);
void check_spec(const ControllerSpec& spec);

}  // namespace wmf::cuda
