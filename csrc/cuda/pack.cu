#include "cuda/pack.cuh"

#include <cstring>
#include <utility>

#include "cuda/launch.cuh"

namespace wmf::cuda {

namespace {

__global__ void __launch_bounds__(kThreads) pack_kernel(const __grid_constant__ PackTask task) {
  pack(task);
}

}  // namespace

std::vector<NamedKernel> pack_kernels() {
  return {{"pack", reinterpret_cast<const void*>(pack_kernel)}};
}

struct CudaModel::State {
  MdnRnnDims dims;
  Precision precision;
  CudaMemory data;
};

CudaModel::CudaModel(const MdnRnnWeights& weights, bool on_device, Precision precision, int device,
                     void* stream) {
  const MdnRnnDims& d = weights.dims;
  check_dims(d, precision);
  limits_of(device);
  const Current current(device);
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  PackTask task{packed_layout(d, precision), weights, nullptr};
  state_ = std::make_unique<State>(State{
      d, precision, CudaMemory(task.model.size * static_cast<int64_t>(sizeof(float)), device)});
  task.packed = static_cast<float*>(state_->data.get());

  std::vector<CudaMemory> copies;
  const auto place = [&](const float* from, int64_t n) -> const float* {
    if (on_device) return from;
    copies.emplace_back(n * static_cast<int64_t>(sizeof(float)), device);
    copies.back().upload(from);
    return static_cast<const float*>(copies.back().get());
  };
  const int64_t done = task.model.done;
  const int64_t outputs = 3 * d.mixtures * d.latent + task.model.outcomes;
  task.weights.weight_ih = place(weights.weight_ih, 4 * d.hidden * (d.latent + d.action + done));
  task.weights.weight_hh = place(weights.weight_hh, 4 * d.hidden * d.hidden);
  task.weights.bias = place(weights.bias, 4 * d.hidden);
  task.weights.head_weight = place(weights.head_weight, outputs * d.hidden);
  task.weights.head_bias = place(weights.head_bias, outputs);

  pack_kernel<<<1024, kThreads, 0, cuda_stream>>>(task);
  check(cudaGetLastError(), "packing the weights");
  check(cudaStreamSynchronize(cuda_stream), "packing the weights");
}

CudaModel::~CudaModel() = default;
CudaModel::CudaModel(CudaModel&& other) noexcept = default;
CudaModel& CudaModel::operator=(CudaModel&& other) noexcept = default;

PackedMdnRnn CudaModel::view() const {
  return PackedMdnRnn{state_->dims, state_->precision,
                      static_cast<const float*>(state_->data.get())};
}
int CudaModel::device() const { return state_->data.device(); }
int64_t CudaModel::nbytes() const { return state_->data.bytes(); }

}  // namespace wmf::cuda
