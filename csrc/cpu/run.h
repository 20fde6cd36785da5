// The operations as their callers see them: memory and threads around one level's kernels.
// Arguments have been checked (bindings/). Blocking; no state is kept between calls.
#pragma once

#include <functional>
#include <memory>

#include "cpu/kernels.h"

namespace wmf {

// 64-byte aligned floats.
class AlignedFloats {
 public:
  explicit AlignedFloats(int64_t size);  // not initialised; throws std::bad_alloc
  float* get() const { return data_.get(); }
  int64_t size() const { return size_; }

 private:
  struct Free {
    void operator()(float* p) const;
  };
  int64_t size_;
  std::unique_ptr<float[], Free> data_;
};

AlignedFloats pack(const Kernels& kernels, const MdnRnnWeights& weights, Precision precision);

AlignedFloats pack_encoder(const Kernels& kernels, const EncoderWeights& weights,
                           Precision precision);

void encode_frames(const Kernels& kernels, const PackedEncoder& model, const EncoderArrays& arrays,
                   int threads);

void mdn_rnn_step(const Kernels& kernels, const PackedMdnRnn& model, const StepArrays& arrays,
                  int threads);

void mixture_sample(const Kernels& kernels, const SampleArrays& arrays);

void controller_forward(const Kernels& kernels, const ControllerArrays& arrays);

// `interrupted` is called on the calling thread at least about 20 times a second; once it has
// returned true the dream is given up and false returned (the results are then incomplete).
bool dream_rollout(const Kernels& kernels, const DreamArrays& arrays, int threads,
                   const std::function<bool()>& interrupted);

// Operations per second of multiply-adds in registers (each counts two), all threads together.
double peak_rate(const Kernels& kernels, Precision precision, int threads, double seconds);

// Bytes per second where each thread reads its own nbytes over and over.
double read_rate(const Kernels& kernels, int64_t nbytes, int threads, double seconds);

}  // namespace wmf
