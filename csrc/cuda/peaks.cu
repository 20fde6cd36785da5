// The device's limits for this use, measured by loops that do nothing else.
#include <algorithm>

#include "cuda/launch.cuh"
#include "cuda/product.cuh"

namespace wmf::cuda {

namespace {

constexpr int kSumsOfAWarp = 8;  // products that do not wait for one another

// Each writes what it found, so that nothing can be left out.
__global__ void __launch_bounds__(kThreads) matrix_loop(int rounds, float* out) {
  float sums[kSumsOfAWarp][4] = {};
  const uint32_t one = 0x3c003c00u + static_cast<uint32_t>(lane());  // about 1 in both halves
  const uint32_t a[4] = {one, one, one, one};
  for (int i = 0; i < rounds; ++i) {
    WMF_UNROLL
    for (int k = 0; k < kSumsOfAWarp; ++k) multiply_add(sums[k], a, one, one);
  }
  float sum = 0.0f;
  WMF_UNROLL
  for (int k = 0; k < kSumsOfAWarp; ++k) sum += sums[k][0] + sums[k][1] + sums[k][2] + sums[k][3];
  out[block_x() * kThreads + thread_index()] = sum;
}

__global__ void __launch_bounds__(kThreads) float_loop(int rounds, float* out) {
  float sums[4 * kSumsOfAWarp] = {};
  const float x = 1.0f + static_cast<float>(lane()) * 1e-6f;
  for (int i = 0; i < rounds; ++i) {
    WMF_UNROLL
    for (int k = 0; k < 4 * kSumsOfAWarp; ++k) sums[k] = fma(sums[k], x, x);
  }
  float sum = 0.0f;
  WMF_UNROLL
  for (int k = 0; k < 4 * kSumsOfAWarp; ++k) sum += sums[k];
  out[block_x() * kThreads + thread_index()] = sum;
}

constexpr int kSharedChunks = 2 * 1024;  // 32 KiB

__global__ void __launch_bounds__(kThreads) shared_loop(int rounds, float* out) {
  Chunk* data = reinterpret_cast<Chunk*>(shared_memory());
  for (int i = thread_index(); i < kSharedChunks; i += kThreads) {
    data[i] = Chunk{{static_cast<uint32_t>(i), 1, 2, 3}};
  }
  sync_block();
  uint32_t sum = 0;
  for (int i = 0; i < rounds; ++i) {
    WMF_UNROLL
    for (int k = 0; k < kSharedChunks; k += kThreads) {
      const Chunk c = data[(k + thread_index() + i) % kSharedChunks];
      sum += c.words[0] ^ c.words[1] ^ c.words[2] ^ c.words[3];
    }
  }
  out[block_x() * kThreads + thread_index()] = static_cast<float>(sum);
}

// Past the first cache: `.cg` looks only into L2.
__global__ void __launch_bounds__(kThreads)
    read_loop(int rounds, const uint4* data, int64_t n, float* out) {
  uint32_t sum = 0;
  for (int i = 0; i < rounds; ++i) {
    WMF_NO_UNROLL
    for (int64_t k = thread_index(); k + 7 * kThreads < n; k += 8 * kThreads) {
      uint4 c[8];
      WMF_UNROLL
      for (int j = 0; j < 8; ++j) c[j] = __ldcg(data + k + j * kThreads);
      WMF_UNROLL
      for (int j = 0; j < 8; ++j) sum += c[j].x ^ c[j].y ^ c[j].z ^ c[j].w;
    }
  }
  out[block_x() * kThreads + thread_index()] = static_cast<float>(sum);
}

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "an event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// The best rate of `start(rounds, blocks, out)`, which does `work` per round and block.
template <class Start>
double best_rate(int device, double seconds, double work, int blocks_per_processor,
                 const Start& start) {
  const Limits& limits = limits_of(device);
  const Current current(device);
  const int blocks = limits.processors * blocks_per_processor;
  const CudaMemory out(int64_t{blocks} * kThreads * 4, device);
  const Event begin, end;
  double best = 0.0, spent = 0.0;
  for (int rounds = 16; spent < seconds;) {
    check(cudaEventRecord(begin.get()), "an event");
    start(rounds, static_cast<unsigned int>(blocks), static_cast<float*>(out.get()));
    check(cudaGetLastError(), "launching a loop");
    check(cudaEventRecord(end.get()), "an event");
    check(cudaEventSynchronize(end.get()), "a loop");
    float milliseconds = 0.0f;
    check(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()), "an event");
    spent += std::max(1e-5, static_cast<double>(milliseconds) * 1e-3);
    if (milliseconds < 2.0f) {
      rounds = std::min(rounds * 2, 1 << 24);
    } else {
      best = std::max(best, work * rounds * blocks / (static_cast<double>(milliseconds) * 1e-3));
    }
  }
  return best;
}

}  // namespace

double peak_rate(Precision precision, int device, double seconds) {
  check_dims(MdnRnnDims{1, 1, 1, 1, false, false}, precision);
  const bool half = precision == Precision::kFp16;
  const double matrix = 2.0 * 16 * 8 * 16 * kSumsOfAWarp * kWarps;
  const double plain = 2.0 * 4 * kSumsOfAWarp * kThreads;
  return best_rate(device, seconds, half ? matrix : plain, 2,
                   [&](int rounds, unsigned int blocks, float* out) {
                     if (half) {
                       matrix_loop<<<blocks, kThreads>>>(rounds, out);
                     } else {
                       float_loop<<<blocks, kThreads>>>(rounds, out);
                     }
                   });
}

double shared_rate(int device, double seconds) {
  return best_rate(device, seconds, 16.0 * kSharedChunks, 2,
                   [&](int rounds, unsigned int blocks, float* out) {
                     shared_loop<<<blocks, kThreads, 16 * kSharedChunks>>>(rounds, out);
                   });
}

double read_rate(int64_t nbytes, int device, double seconds) {
  const int64_t step = int64_t{16} * 8 * kThreads;
  const int64_t bytes = std::max(nbytes / step, int64_t{1}) * step;
  limits_of(device);
  const CudaMemory data(bytes, device);
  {
    const Current current(device);
    check(cudaMemset(data.get(), 0, static_cast<size_t>(bytes)), "cudaMemset");
  }
  return best_rate(device, seconds, static_cast<double>(bytes), 1,
                   [&](int rounds, unsigned int blocks, float* out) {
                     read_loop<<<blocks, kThreads>>>(rounds, static_cast<const uint4*>(data.get()),
                                                     bytes / 16, out);
                   });
}

}  // namespace wmf::cuda
