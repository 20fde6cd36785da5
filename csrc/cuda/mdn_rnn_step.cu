#include "cuda/mdn_rnn_step.cuh"

#include "cuda/launch.cuh"

namespace wmf::cuda {

namespace {

template <class Operand, int kTiles>
__global__ void __launch_bounds__(kThreads) lstm_kernel(const __grid_constant__ StepTask task) {
  lstm_rows<Operand, kTiles>(task);
}

template <class Operand, int kTiles>
__global__ void __launch_bounds__(kThreads) head_kernel(const __grid_constant__ StepTask task) {
  head_rows<Operand, kTiles>(task);
}

template <class Operand, int kTiles>
void launch(const StepTask& task, int device, cudaStream_t stream) {
  const PackedLayout& l = task.model;
  const int64_t shared = step_shared_bytes(l, kTiles * 8);
  allow_shared(lstm_kernel<Operand, kTiles>, shared, device);
  allow_shared(head_kernel<Operand, kTiles>, shared, device);
  const unsigned int tiles = blocks_for(task.arrays.rows, kTiles * 8);
  const dim3 lstm(tiles, blocks_for(l.unit_blocks * kPairsPerUnitBlock, kWarps));
  const dim3 head(tiles, blocks_for(l.latent_blocks * l.head_block_pairs, kWarps));
  const auto bytes = static_cast<size_t>(shared);
  lstm_kernel<Operand, kTiles><<<lstm, kThreads, bytes, stream>>>(task);
  check(cudaGetLastError(), "launching the LSTM");
  head_kernel<Operand, kTiles><<<head, kThreads, bytes, stream>>>(task);
  check(cudaGetLastError(), "launching the head");
}

template <class Operand>
void launch(const StepTask& task, int device, cudaStream_t stream) {
  // Few rows: more blocks. A tile of 32 rows must also fit.
  const bool fits = step_shared_bytes(task.model, 32) <= limits_of(device).shared_memory;
  if (task.arrays.rows > 64 && fits) {
    launch<Operand, 4>(task, device, stream);
  } else {
    launch<Operand, 1>(task, device, stream);
  }
}

}  // namespace

std::vector<NamedKernel> step_kernels() {
  return {
      {"lstm fp16 1", reinterpret_cast<const void*>(lstm_kernel<Half, 1>)},
      {"lstm fp16 4", reinterpret_cast<const void*>(lstm_kernel<Half, 4>)},
      {"lstm fp32 1", reinterpret_cast<const void*>(lstm_kernel<Single, 1>)},
      {"lstm fp32 4", reinterpret_cast<const void*>(lstm_kernel<Single, 4>)},
      {"head fp16 1", reinterpret_cast<const void*>(head_kernel<Half, 1>)},
      {"head fp16 4", reinterpret_cast<const void*>(head_kernel<Half, 4>)},
      {"head fp32 1", reinterpret_cast<const void*>(head_kernel<Single, 1>)},
      {"head fp32 4", reinterpret_cast<const void*>(head_kernel<Single, 4>)},
  };
}

void mdn_rnn_step(const PackedMdnRnn& model, const StepArrays& arrays, int device, void* stream) {
  limits_of(device);
  if (arrays.rows == 0) return;
  const Current current(device);
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  StepTask task{packed_layout(model.dims, model.precision), model.data, arrays};
  // Every block reads all of its rows' h and writes some of it: in place it needs a copy.
  const int64_t bytes = arrays.rows * model.dims.hidden * static_cast<int64_t>(sizeof(float));
  std::unique_ptr<Scratch> copy;
  if (arrays.h == arrays.h_next) {
    copy = std::make_unique<Scratch>(bytes, device, cuda_stream);
    check(cudaMemcpyAsync(copy->get<float>(), arrays.h, static_cast<size_t>(bytes),
                          cudaMemcpyDeviceToDevice, cuda_stream),
          "copying h");
    task.arrays.h = copy->get<float>();
  }
  if (model.precision == Precision::kFp16) {
    launch<Half>(task, device, cuda_stream);
  } else {
    launch<Single>(task, device, cuda_stream);
  }
}

}  // namespace wmf::cuda
