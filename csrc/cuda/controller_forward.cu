#include "cuda/controller_forward.cuh"

#include "cuda/launch.cuh"

namespace wmf::cuda {

namespace {

__global__ void __launch_bounds__(kThreads)
    controller_kernel(const __grid_constant__ ControllerTask task) {
  controller_rows(task);
}

}  // namespace

std::vector<NamedKernel> controller_kernels() {
  return {{"controller", reinterpret_cast<const void*>(controller_kernel)}};
}

void controller_forward(const ControllerArrays& arrays, int device, void* stream) {
  limits_of(device);
  check_spec(arrays.spec);
  if (arrays.rows == 0) return;
  const Current current(device);
  const ControllerTask task = {control_layout(arrays.spec),
                               arrays.rows,
                               arrays.rows / arrays.members,
                               arrays.params,
                               arrays.z,
                               arrays.h,
                               arrays.c,
                               arrays.action};
  const int64_t bytes = int64_t{kWarps} * task.control.units * static_cast<int64_t>(sizeof(float));
  allow_shared(controller_kernel, bytes, device);
  controller_kernel<<<blocks_for(arrays.rows, kWarps), kThreads, static_cast<size_t>(bytes),
                      static_cast<cudaStream_t>(stream)>>>(task);
  check(cudaGetLastError(), "launching the controllers");
}

}  // namespace wmf::cuda
