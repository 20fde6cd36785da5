#include "cuda/mixture_sample.cuh"

#include "cuda/launch.cuh"

namespace wmf::cuda {

namespace {

__global__ void __launch_bounds__(kThreads) sample_kernel(const __grid_constant__ SampleTask task) {
  sample(task);
}

__global__ void __launch_bounds__(kThreads)
    philox_kernel(const uint32_t* counters, uint64_t seed, uint32_t* words, int64_t n) {
  const int64_t i = int64_t{block_x()} * kThreads + thread_index();
  if (i >= n) return;
  const uint32_t* c = counters + 4 * i;
  const PhiloxWords<U> w = philox(PhiloxWords<U>{c[0], c[1], c[2], c[3]}, seed);
  uint32_t* to = words + 4 * i;
  to[0] = w.w0;
  to[1] = w.w1;
  to[2] = w.w2;
  to[3] = w.w3;
}

}  // namespace

std::vector<NamedKernel> sample_kernels() {
  return {{"sample", reinterpret_cast<const void*>(sample_kernel)},
          {"philox", reinterpret_cast<const void*>(philox_kernel)}};
}

void mixture_sample(const SampleArrays& arrays, int device, void* stream) {
  const Limits& limits = limits_of(device);
  const int64_t numbers = arrays.rows * arrays.latent;
  if (numbers == 0) return;
  const Current current(device);
  SampleTask task{arrays, kThreads};
  const auto bytes = [&] {
    return arrays.mixtures * task.threads * static_cast<int64_t>(sizeof(float));
  };
  while (task.threads > 32 && bytes() > limits.shared_memory) task.threads /= 2;
  allow_shared(sample_kernel, bytes(), device);
  sample_kernel<<<blocks_for(numbers, task.threads), static_cast<unsigned int>(task.threads),
                  static_cast<size_t>(bytes()), static_cast<cudaStream_t>(stream)>>>(task);
  check(cudaGetLastError(), "launching the samples");
}

void philox_words(const uint32_t* counters, uint64_t seed, uint32_t* words, int64_t n, int device) {
  limits_of(device);
  if (n == 0) return;
  const Current current(device);
  const int64_t bytes = 4 * n * static_cast<int64_t>(sizeof(uint32_t));
  CudaMemory from(bytes, device), to(bytes, device);
  from.upload(counters);
  philox_kernel<<<blocks_for(n, kThreads), kThreads>>>(static_cast<const uint32_t*>(from.get()),
                                                       seed, static_cast<uint32_t*>(to.get()), n);
  check(cudaGetLastError(), "launching philox");
  to.download(words);
}

}  // namespace wmf::cuda
