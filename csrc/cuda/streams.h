// The order of work in streams of different owners, and whose memory a pointer is: what the border
// (bindings/) needs besides run.h. no_cuda/ has the same face for builds without nvcc.
#pragma once

#include <memory>

namespace wmf::cuda {

// The end of what was in a stream when the mark was made. null is the default stream.
class Mark {
 public:
  Mark(void* stream, int device);  // throws CudaError
  ~Mark();
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

  bool passed() const noexcept;        // also true after an error: the next call will report it
  void hold_back(void* stream) const;  // what comes into `stream` from now on runs after the mark

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The device that a pointer's memory is on; -1 if it is the host's.
int device_of(const void* pointer);

}  // namespace wmf::cuda
