// The functions that module.cpp lists; models.cpp, steps.cpp, dreams.cpp, machine.cpp and
// testing.cpp have them. Each function checks its arrays (tensor.h), releases the GIL, and calls.
// Numbers have been checked in worldmodels_fast/ops/. `out` is None, or holds the arrays to write
// to.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/device_array.h"
#include "bindings/tensor.h"
#include "cpu/run.h"
#include "cuda/run.h"
#include "dispatch.h"

namespace wmf {

// M's packed weights: for a level of the CPU, or on a CUDA device.
struct PackedModel {
  MdnRnnDims dims;
  Precision precision;
  const Level* level;  // null: CUDA
  std::optional<AlignedFloats> on_cpu;
  std::optional<cuda::CudaModel> on_cuda;

  PackedMdnRnn view() const;
  Place place() const { return level != nullptr ? kCpu : on_cuda->device(); }
  Target target() const { return Target{place(), "where the model is"}; }
  std::string backend() const { return level != nullptr ? level->name : "cuda"; }
  std::string device() const { return level != nullptr ? "cpu" : place_text(place()); }
  std::string precision_name() const;
  int64_t nbytes() const;
  std::string text() const;  // for Python's repr
};

// `device` is the CUDA device if the backend is "cuda"; below 0 means the first that can be used.
PackedModel make_packed_model(const py::object& weight_ih, const py::object& weight_hh,
                              const py::object& bias, const py::object& head_weight,
                              const py::object& head_bias, int64_t latent_dim, int64_t action_dim,
                              int64_t hidden_dim, int64_t n_mixtures, bool predicts_done,
                              bool predicts_reward, const std::string& backend,
                              const std::string& precision, int device);

// V's packed encoder, for a level of the CPU.
struct EncoderModel {
  int64_t latent;
  Precision precision;
  const Level* level;
  AlignedFloats data;

  PackedEncoder view() const { return PackedEncoder{latent, precision, data.get()}; }
  std::string backend() const { return level->name; }
  std::string precision_name() const;
  int64_t nbytes() const { return data.size() * static_cast<int64_t>(sizeof(float)); }
  std::string text() const;  // for Python's repr
};

// `weights` and `biases`: of the four convolutions and of mu and logvar together.
EncoderModel make_encoder_model(const std::vector<py::object>& weights,
                                const std::vector<py::object>& biases, int64_t latent_dim,
                                const std::string& backend, const std::string& precision);

// A ControllerSpec that owns its squash.
struct Controller {
  std::string features;
  int64_t latent, hidden, action, hidden_units;
  bool bias;
  std::vector<float> scale, shift, low, high;  // (A) each

  ControllerSpec view() const;
  int64_t n_params() const;
};

Controller make_controller(const std::string& features, int64_t latent_dim, int64_t hidden_dim,
                           int64_t action_dim, bool bias, int64_t hidden_units,
                           std::vector<float> scale, std::vector<float> shift,
                           std::vector<float> low, std::vector<float> high);

// The name of the backend that `name` means: itself, or the default one if it is empty.
std::string backend_name(const std::string& name);

py::tuple py_encode_frames(const EncoderModel& model, const py::object& frames, int threads);

py::tuple py_mdn_rnn_step(const PackedModel& model, const py::object& z, const py::object& action,
                          const py::object& h, const py::object& c, const py::object& restart,
                          int threads, const py::object& out);

// NoiseIds (core/model.h) from Python.
struct NoiseArguments {
  uint64_t seed;
  uint32_t rollout, step;
  py::object rows;  // None, or a uint32 array (N, 4)
};

py::object py_mixture_sample(const py::object& logmix, const py::object& mu,
                             const py::object& logstd, float temperature,
                             const NoiseArguments& noise, const std::string& backend,
                             const py::object& out);

// Which rollouts end, (N) int32; arrays of the host only.
py::object py_done_sample(const py::object& done_logit, float done_threshold,
                          float done_temperature, const NoiseArguments& noise,
                          const std::string& backend);

// First latents of `rows` rollouts, (N, Z); arrays of the host only.
py::object py_initial_latents(const py::object& initial_mu, const py::object& initial_logvar,
                              int64_t rows, const NoiseArguments& noise,
                              const std::string& backend);

py::object py_controller_forward(const Controller& controller, const py::object& params,
                                 const py::object& z, const py::object& h, const py::object& c,
                                 const std::string& backend, const py::object& out);

py::tuple py_dream_rollout(const PackedModel& model, const Controller& controller,
                           const py::object& params, const py::object& initial_mu,
                           const py::object& initial_logvar, int64_t rollouts, uint64_t seed,
                           float temperature, int32_t max_steps, float done_threshold,
                           float done_temperature, bool common_noise, int threads,
                           const std::pair<int, int>& plan);

// The (group, slots) over which a dream of so many rollouts on a CUDA device is spread, see
// cuda::DreamPlan.
std::pair<int, int> py_plan_dream(const PackedModel& model, const Controller& controller,
                                  int64_t members, int64_t rollouts,
                                  const std::pair<int, int>& plan);

double py_peak_rate(const std::string& precision, const std::string& backend, int threads,
                    double seconds);

double py_read_rate(int64_t nbytes, const std::string& backend, int threads, double seconds);

// The bytes per second that a CUDA device's shared memories are read at, all together.
double py_shared_rate(int device, double seconds);

// Where an array is: -1 on the CPU, 0 ... on a CUDA device, -2 elsewhere; -1 for what is no array.
int py_place_of(const py::object& object);

// As a dictionary: built, driver, runtime, devices (a list), reason.
py::dict py_cuda_status();

// The kernels for a device as compiled: name, registers, local_bytes each.
py::list py_cuda_kernels(int device);

py::array_t<uint32_t> py_philox(const py::object& counter, uint64_t seed,
                                const std::string& backend);

FloatArray py_vector_math(const std::string& name, const py::object& x, const std::string& backend);

}  // namespace wmf
