// What every launcher includes.
#pragma once

#include <cuda_runtime.h>

#include "cuda/device.h"
#include "cuda/layout.h"

namespace wmf::cuda {

// Blocks for n things, `per_block` to a block; throws where the grid would be too large.
inline unsigned int blocks_for(int64_t n, int64_t per_block) {
  const int64_t blocks = (n + per_block - 1) / per_block;
  if (blocks > INT32_MAX) {
    throw std::invalid_argument("N: expected fewer rows for one call on CUDA, got " +
                                std::to_string(n) + " rows or numbers");
  }
  return static_cast<unsigned int>(blocks);
}

// Allows a kernel its dynamic shared memory; throws if the device has less.
template <class Kernel>
void allow_shared(Kernel* kernel, int64_t bytes, int device) {
  if (bytes > limits_of(device).shared_memory) {
    throw std::invalid_argument(
        "hidden_dim, latent_dim, n_mixtures: expected a model that fits into " +
        std::to_string(limits_of(device).shared_memory) +
        " bytes of shared memory on this device, got one that needs " + std::to_string(bytes) +
        "; use the CPU");
  }
  // Always the most: another thread may be about to launch the same kernel with more than this one.
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             limits_of(device).shared_memory),
        "shared memory for a kernel");
}

}  // namespace wmf::cuda
