#include "cuda/streams.h"

#include <cuda_runtime_api.h>

#include "cuda/device.h"

namespace wmf::cuda {

struct Mark::State {
  cudaEvent_t event = nullptr;
  int device = 0;
};

Mark::Mark(void* stream, int device) : state_(std::make_unique<State>()) {
  const Current current(device);
  state_->device = device;
  check(cudaEventCreateWithFlags(&state_->event, cudaEventDisableTiming), "cudaEventCreate");
  const cudaError_t status = cudaEventRecord(state_->event, static_cast<cudaStream_t>(stream));
  if (status != cudaSuccess) cudaEventDestroy(state_->event);
  check(status, "cudaEventRecord");
}

Mark::~Mark() { cudaEventDestroy(state_->event); }

bool Mark::passed() const noexcept { return cudaEventQuery(state_->event) != cudaErrorNotReady; }

void Mark::hold_back(void* stream) const {
  const Current current(state_->device);  // each device has a default stream of its own
  check(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), state_->event, 0),
        "cudaStreamWaitEvent");
}

int device_of(const void* pointer) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, pointer), "cudaPointerGetAttributes");
  const bool on_device =
      attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  return on_device ? attributes.device : -1;
}

}  // namespace wmf::cuda
