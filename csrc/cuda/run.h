// The operations on CUDA devices as their callers see them. Arguments have been checked
// (bindings/), except for what depends on the device: that is refused here.
//
// The structs are those of the CPU (core/model.h), with DEVICE pointers unless a function says
// otherwise; only ControllerSpec's scale, shift, low and high are always HOST pointers, read before
// the function returns. A stream is a cudaStream_t as void*; null is the default stream.
//
// Functions that take a stream enqueue their work there and return: they never wait for the device.
// They leave the caller's current device as it was. Scratch memory is taken and given back in the
// stream's order.
//
// What they throw:
//   CudaOutOfMemory        the device's memory does not suffice (a MemoryError in Python)
//   CudaError              anything else that CUDA reports; a fault inside a kernel shows up at a
//                          later call, since launches do not wait; from then on every call throws,
//                          and only a new process can use the device again
//   std::invalid_argument  the sizes are beyond what this device, or these kernels, can do
//
// no_cuda/ has the same face for builds without nvcc: everything but cuda_status throws.
//
// Rounding in Precision::kFp16, for the reference: the operands of the LSTM's and the head's matrix
// products are rounded to IEEE half precision, to nearest, ties to even, magnitudes above 65504 cut
// to 65504, denormals kept:
//   - weight_ih, weight_hh and head_weight, but for the done logit's and the reward's rows, which
//     stay float;
//   - h, z, action and restart where they enter a product: the LSTM's h is the last step's rounded,
//     the head's h is the new one rounded.
// Nothing else is rounded: products are exact in float, sums, biases, the gates, c, the h that the
// controller, the done logit and the reward read and that mdn_rnn_step returns, z for the
// controller, the controller, the logits and sampling are float. kBf16 and kInt8 are refused with
// std::invalid_argument.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/model.h"

namespace wmf::cuda {

class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class CudaOutOfMemory : public CudaError {
 public:
  using CudaError::CudaError;
};

struct CudaDevice {
  int index;  // as in "cuda:0"
  std::string name;
  int sm;              // 90 is compute capability 9.0
  int processors;      // SMs
  int64_t memory;      // bytes, all of it
  std::string reason;  // why it cannot be used, in words; empty if it can
};

struct CudaStatus {
  bool built;   // whether this build has kernels
  int driver;   // CUDA version that the driver supports, 13000 is 13.0; 0 without a driver
  int runtime;  // CUDA version that the kernels were built with, likewise; 0 if not built
  std::vector<CudaDevice> devices;
  std::string reason;  // why nothing can run, in words; empty if a device can be used
};

// Looks once, at the first call, and never throws. Loads the driver's library if there is one; a
// process that is forked from this one afterwards cannot use CUDA.
CudaStatus cuda_status();

// M's packed weights in the memory of one device. Freed there, whichever device is current.
class CudaModel {
 public:
  // The weights' pointers are of the host or of this very device, as `on_device` says. Blocks until
  // they have been read. With on_device what wrote them must come before in `stream`.
  CudaModel(const MdnRnnWeights& weights, bool on_device, Precision precision, int device,
            void* stream);
  ~CudaModel();
  CudaModel(CudaModel&& other) noexcept;
  CudaModel& operator=(CudaModel&& other) noexcept;

  PackedMdnRnn view() const;  // borrowed; what the functions below take
  int device() const;
  int64_t nbytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// h_next may be h, and c_next may be c; no other overlap.
void mdn_rnn_step(const PackedMdnRnn& model, const StepArrays& arrays, int device, void* stream);

void mixture_sample(const SampleArrays& arrays, int device, void* stream);

void controller_forward(const ControllerArrays& arrays, int device, void* stream);

// How a dream is spread over the device; for benchmarks and tests. Results do not depend on it, bit
// for bit. 0 means: choose.
struct DreamPlan {
  int group;  // thread blocks that step the same rollouts together: 1, or up to 16 from sm_90 on
  int slots;  // rollouts that a group steps at a time: 8, 16, 32, 64 or 128
};

// The plan that dream_rollout would follow, with all zeros filled in.
DreamPlan plan_dream(const DreamArrays& arrays, int device, DreamPlan wish);

// A whole generation in one launch. It cannot be stopped.
void dream_rollout(const DreamArrays& arrays, int device, void* stream, DreamPlan wish = {});

// The same with HOST pointers (but for arrays.model, on `device`): copies up, runs on a stream of
// its own, copies down, and waits. `interrupted` is asked about 20 times a second on the calling
// thread; once it has returned true the dream is given up and false returned.
bool dream_rollout_from_host(const DreamArrays& arrays, int device,
                             const std::function<bool()>& interrupted, DreamPlan wish = {});

// Plain memory on a device, for callers without a library of their own. Copies block.
class CudaMemory {
 public:
  CudaMemory(int64_t bytes, int device);  // not initialised
  ~CudaMemory();
  CudaMemory(CudaMemory&& other) noexcept;
  CudaMemory& operator=(CudaMemory&& other) noexcept;

  void* get() const;
  int64_t bytes() const;
  int device() const;
  void upload(const void* host);    // bytes() bytes
  void download(void* host) const;  // bytes() bytes

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Waits for a stream, asking `interrupted` about 20 times a second; false if it said yes (the work
// goes on). Errors of what ran there are thrown here.
bool wait_for(void* stream, int device, const std::function<bool()>& interrupted);

// Limits of the device for this use, measured by loops that do nothing else. Blocking; about
// `seconds` long.
double peak_rate(Precision precision, int device, double seconds);  // operations / s, in registers
double shared_rate(int device, double seconds);                     // bytes / s, all SMs together
double read_rate(int64_t nbytes, int device, double seconds);  // bytes / s, every SM reads the same

// What the compiler made of the kernels for this device.
struct CudaKernel {
  std::string name;
  int registers;        // per thread
  int64_t local_bytes;  // per thread; above 0 means that registers were spilled
};
std::vector<CudaKernel> kernel_resources(int device);

// Names, for the tests: the words of philox, and core/vector_math's functions, computed on the
// device. Host pointers; blocking. n counters of 4 words each.
void philox_words(const uint32_t* counters, uint64_t seed, uint32_t* words, int64_t n, int device);

}  // namespace wmf::cuda
