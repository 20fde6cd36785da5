// The operations on rows of the caller's: V's encoder, one step of M and what follows from it, the
// controller.
#include "bindings/functions.h"

namespace wmf {

namespace {

// Where an operation without a model computes: on the backend that the caller names, or else where
// its arrays are. Arrays of the host take the default backend; they are copied if that is CUDA.
class Choice {
 public:
  explicit Choice(const std::string& name) : named_(!name.empty()), level_(select_backend(name)) {}

  Target target() const {
    return named_ && level_ != nullptr ? Target{kCpu, "where this backend computes"}
                                       : Target{kAnywhere, ""};
  }

  // Once the arrays have been read; null for CUDA, on the device border->computes_on().
  const Level* settle(Border* border) const {
    if (border->place() != kCpu) return nullptr;
    if (level_ == nullptr) border->compute_on(select_cuda_device(-1));
    return level_;
  }

 private:
  bool named_;
  const Level* level_;
};

// Whose noise the rows of a call use; `rows` is None or a uint32 array (N, 4), see core/model.h.
NoiseIds read_noise(Border* border, const NoiseArguments& noise, int64_t n) {
  NoiseIds ids{noise.seed, noise.rollout, noise.step, nullptr};
  if (!noise.rows.is_none()) {
    if (border->place() != kCpu) {
      throw py::value_error(
          "seed, rollout, step: expected one number each for arrays on a device, got an array; "
          "call once for each row, or use arrays of the host");
    }
    ids.rows = static_cast<const uint32_t*>(
        border->read<uint32_t>(noise.rows, "seed, rollout, step", {{"N", n}, {"4", 4}}).data());
  } else if (n + static_cast<int64_t>(noise.rollout) > int64_t{1} << 32) {
    throw py::value_error("rollout: expected rollout + N <= 2**32, got " +
                          std::to_string(noise.rollout) + " + " + std::to_string(n));
  }
  return ids;
}

// Draws of whole rollouts are bitwise the same on every backend, and the CPU has all their arrays:
// its fastest level computes them where the default backend is CUDA.
const Level& level_of_draws(const std::string& name) {
  const Level* level = select_backend(name);
  return level == nullptr && name.empty() ? fastest_level() : select_level(name);
}

// Arrays of the host, for a call that computes on a device: copied there, and results copied back.
// Blocking. Does nothing for a call whose arrays are on the device.
class Staged {
 public:
  explicit Staged(const Border& border) : needed_(border.staged()), device_(border.computes_on()) {}

  // n numbers of 4 bytes.
  template <class T>
  void in(const T** data, int64_t n) {
    static_assert(sizeof(T) == 4);
    if (!needed_ || *data == nullptr) return;
    cuda::CudaMemory& memory = add(n);
    memory.upload(*data);
    *data = static_cast<const T*>(memory.get());
  }

  void out(float** data, int64_t n) {
    if (!needed_ || *data == nullptr) return;
    cuda::CudaMemory& memory = add(n);
    results_.emplace_back(*data, memories_.size() - 1);
    *data = static_cast<float*>(memory.get());
  }

  void finish() const {
    for (const auto& [host, index] : results_) memories_[index].download(host);
  }

 private:
  cuda::CudaMemory& add(int64_t n) {
    return memories_.emplace_back(n * static_cast<int64_t>(sizeof(float)), device_);
  }

  bool needed_;
  int device_;
  std::vector<cuda::CudaMemory> memories_;
  std::vector<std::pair<float*, size_t>> results_;
};

}  // namespace

py::tuple py_encode_frames(const EncoderModel& model, const py::object& frames, int threads) {
  Border border(Target{kCpu, "where the model is"});
  const ArrayView view = border.read<uint8_t>(
      frames, "frames",
      {{"N", kAny}, {"64", kFrameSize}, {"64", kFrameSize}, {"3", kFrameChannels}});
  EncoderArrays a{};
  a.rows = view.shape(0);
  a.frames = static_cast<const uint8_t*>(view.data());
  const std::initializer_list<Axis> shape = {{"N", a.rows}, {"Z", model.latent}};
  py::object mu = border.new_output(shape, &a.mu);
  py::object logvar = border.new_output(shape, &a.logvar);
  {
    const py::gil_scoped_release release;
    encode_frames(*model.level->kernels, model.view(), a, threads);
  }
  return py::make_tuple(mu, logvar);
}

py::tuple py_mdn_rnn_step(const PackedModel& model, const py::object& z, const py::object& action,
                          const py::object& h, const py::object& c, const py::object& restart,
                          int threads, const py::object& out) {
  const MdnRnnDims& d = model.dims;
  Border border(model.target());
  const ArrayView first = border.read<float>(z, "z", {{"N", kAny}, {"Z", d.latent}});
  const int64_t n = first.shape(0);
  StepArrays a{};
  a.rows = n;
  a.z = static_cast<const float*>(first.data());
  a.action = border.read_floats(action, "action", {{"N", n}, {"A", d.action}});
  a.h = border.read_floats(h, "h", {{"N", n}, {"H", d.hidden}});
  a.c = border.read_floats(c, "c", {{"N", n}, {"H", d.hidden}});
  if (!restart.is_none()) {
    if (!d.predicts_done) {
      throw py::value_error(
          "restart: expected None, because this model does not predict the end of a rollout and so "
          "has no restart input; leave it out");
    }
    a.restart = border.read_floats(restart, "restart", {{"N", n}});
  }

  // The i-th array to write to; None within `out` is refused like any other wrong thing.
  const auto output_at = [&](size_t i, const char* name, std::initializer_list<Axis> axes,
                             float** data) -> py::object {
    if (out.is_none()) return border.new_output(axes, data);
    const py::object array = py::reinterpret_borrow<py::tuple>(out)[i];
    *data = border.write_floats(array, name, axes);
    return array;
  };
  const std::initializer_list<Axis> mixture = {{"N", n}, {"Z", d.latent}, {"K", d.mixtures}};
  const std::initializer_list<Axis> state = {{"N", n}, {"H", d.hidden}};
  py::object logmix = output_at(0, "out.logmix", mixture, &a.logmix);
  py::object mu = output_at(1, "out.mu", mixture, &a.mu);
  py::object logstd = output_at(2, "out.logstd", mixture, &a.logstd);
  const auto outcome_at = [&](size_t i, const char* name, bool predicted, const char* what,
                              float** data) -> py::object {
    if (predicted) return output_at(i, name, {{"N", n}}, data);
    if (!out.is_none() && !py::reinterpret_borrow<py::tuple>(out)[i].is_none()) {
      throw py::value_error(std::string(name) +
                            ": expected None, because this model does not predict " + what +
                            "; leave it out");
    }
    return py::none();
  };
  py::object done_logit =
      outcome_at(3, "out.done_logit", d.predicts_done, "the end of a rollout", &a.done_logit);
  py::object h_next = output_at(4, "out.h", state, &a.h_next);
  py::object c_next = output_at(5, "out.c", state, &a.c_next);
  py::object reward = outcome_at(6, "out.reward", d.predicts_reward, "the reward", &a.reward);
  const int64_t m = n * d.latent * d.mixtures;
  if (!out.is_none()) {
    // A block of rows is read before it is written, so h and c may be updated in place.
    const char *name_h = "h", *name_c = "c";
    refuse_overlap({{"logmix", a.logmix, m},
                    {"mu", a.mu, m},
                    {"logstd", a.logstd, m},
                    {"done_logit", a.done_logit, n},
                    {name_h, a.h_next, n * d.hidden},
                    {name_c, a.c_next, n * d.hidden},
                    {"reward", a.reward, n}},
                   {{"z", a.z, n * d.latent},
                    {"action", a.action, n * d.action},
                    {name_h, a.h, n * d.hidden},
                    {name_c, a.c, n * d.hidden},
                    {"restart", a.restart, n}},
                   true);
  }
  {
    const py::gil_scoped_release release;
    if (model.level != nullptr) {
      mdn_rnn_step(*model.level->kernels, model.view(), a, threads);
    } else {
      Staged staged(border);
      staged.in(&a.z, n * d.latent);
      staged.in(&a.action, n * d.action);
      staged.in(&a.h, n * d.hidden);
      staged.in(&a.c, n * d.hidden);
      staged.in(&a.restart, n);
      for (float** data : {&a.logmix, &a.mu, &a.logstd}) staged.out(data, m);
      staged.out(&a.done_logit, n);
      staged.out(&a.h_next, n * d.hidden);
      staged.out(&a.c_next, n * d.hidden);
      staged.out(&a.reward, n);
      cuda::mdn_rnn_step(model.view(), a, border.computes_on(), border.stream());
      staged.finish();
    }
  }
  border.launched();
  return out.is_none() ? py::make_tuple(logmix, mu, logstd, done_logit, h_next, c_next, reward)
                       : py::reinterpret_borrow<py::tuple>(out);
}

py::object py_mixture_sample(const py::object& logmix, const py::object& mu,
                             const py::object& logstd, float temperature,
                             const NoiseArguments& noise, const std::string& backend,
                             const py::object& out) {
  const Choice choice(backend);
  Border border(choice.target());
  const ArrayView first =
      border.read<float>(logmix, "logmix", {{"N", kAny}, {"Z", kAny}, {"K", kAny}});
  const int64_t n = first.shape(0), latent = first.shape(1), mixtures = first.shape(2);
  SampleArrays a{};
  a.rows = n;
  a.latent = latent;
  a.mixtures = mixtures;
  a.logmix = static_cast<const float*>(first.data());
  a.mu = border.read_floats(mu, "mu", {{"N", n}, {"Z", latent}, {"K", mixtures}});
  a.logstd = border.read_floats(logstd, "logstd", {{"N", n}, {"Z", latent}, {"K", mixtures}});
  a.temperature = temperature;
  a.noise = read_noise(&border, noise, n);
  py::object z = border.output(out, "out", {{"N", n}, {"Z", latent}}, &a.z);
  const int64_t m = n * latent * mixtures;
  refuse_overlap({{"z", a.z, n * latent}},
                 {{"logmix", a.logmix, m}, {"mu", a.mu, m}, {"logstd", a.logstd, m}});
  const Level* level = choice.settle(&border);
  {
    const py::gil_scoped_release release;
    if (level != nullptr) {
      mixture_sample(*level->kernels, a);
    } else {
      Staged staged(border);
      for (const float** data : {&a.logmix, &a.mu, &a.logstd}) staged.in(data, m);
      staged.in(&a.noise.rows, 4 * n);
      staged.out(&a.z, n * latent);
      cuda::mixture_sample(a, border.computes_on(), border.stream());
      staged.finish();
    }
  }
  border.launched();
  return z;
}

py::object py_done_sample(const py::object& done_logit, float done_threshold,
                          float done_temperature, const NoiseArguments& noise,
                          const std::string& backend) {
  const Level& level = level_of_draws(backend);
  Border border(Target{kCpu, "where ends are drawn"});
  const ArrayView view = border.read<float>(done_logit, "done_logit", {{"N", kAny}});
  DoneArrays a{};
  a.rows = view.shape(0);
  a.done_logit = static_cast<const float*>(view.data());
  a.done_threshold = done_threshold;
  a.done_temperature = done_temperature;
  a.noise = read_noise(&border, noise, a.rows);
  py::object done = border.new_output({{"N", a.rows}}, &a.done);
  {
    const py::gil_scoped_release release;
    level.kernels->done(a);
  }
  return done;
}

py::object py_initial_latents(const py::object& initial_mu, const py::object& initial_logvar,
                              int64_t rows, const NoiseArguments& noise,
                              const std::string& backend) {
  const Level& level = level_of_draws(backend);
  Border border(Target{kCpu, "where first latents are drawn"});
  const ArrayView mu = border.read_finite(initial_mu, "initial_mu", {{"I", kAny}, {"Z", kAny}});
  InitialArrays a{};
  a.rows = rows;
  a.n_initial = mu.shape(0);
  a.latent = mu.shape(1);
  a.initial_mu = static_cast<const float*>(mu.data());
  a.initial_logvar = static_cast<const float*>(
      border.read_finite(initial_logvar, "initial_logvar", {{"I", a.n_initial}, {"Z", a.latent}})
          .data());
  a.noise = read_noise(&border, noise, rows);
  py::object z = border.new_output({{"N", rows}, {"Z", a.latent}}, &a.z);
  {
    const py::gil_scoped_release release;
    level.kernels->initial(a);
  }
  return z;
}

py::object py_controller_forward(const Controller& controller, const py::object& params,
                                 const py::object& z, const py::object& h, const py::object& c,
                                 const std::string& backend, const py::object& out) {
  const Choice choice(backend);
  Border border(choice.target());
  ControllerArrays a{};
  a.spec = controller.view();
  a.n_params = controller.n_params();
  const ArrayView first =
      border.read<float>(params, "params", {{"P", kAny}, {"n_params", a.n_params}});
  a.members = first.shape(0);
  a.params = static_cast<const float*>(first.data());
  // All features have the same rows; the first decides how many.
  const auto feature = [&](const py::object& object, const char* name, Axis last) -> const float* {
    if (object.is_none()) return nullptr;
    const ArrayView view =
        border.read<float>(object, name, {{"N", a.rows == 0 ? kAny : a.rows}, last});
    a.rows = view.shape(0);
    return static_cast<const float*>(view.data());
  };
  a.z = feature(z, "z", {"Z", a.spec.latent});
  a.h = feature(h, "h", {"H", a.spec.hidden});
  a.c = feature(c, "c", {"H", a.spec.hidden});
  if (a.rows % a.members != 0) {
    throw py::value_error("params: expected (P, n_params) with N a multiple of P, got P = " +
                          std::to_string(a.members) + " and N = " + std::to_string(a.rows));
  }
  py::object action = border.output(out, "out", {{"N", a.rows}, {"A", a.spec.action}}, &a.action);
  refuse_overlap({{"action", a.action, a.rows * a.spec.action}},
                 {{"params", a.params, a.members * a.n_params},
                  {"z", a.z, a.rows * a.spec.latent},
                  {"h", a.h, a.rows * a.spec.hidden},
                  {"c", a.c, a.rows * a.spec.hidden}});
  const Level* level = choice.settle(&border);
  {
    const py::gil_scoped_release release;
    if (level != nullptr) {
      controller_forward(*level->kernels, a);
    } else {
      Staged staged(border);
      staged.in(&a.params, a.members * a.n_params);
      staged.in(&a.z, a.rows * a.spec.latent);
      staged.in(&a.h, a.rows * a.spec.hidden);
      staged.in(&a.c, a.rows * a.spec.hidden);
      staged.out(&a.action, a.rows * a.spec.action);
      cuda::controller_forward(a, border.computes_on(), border.stream());
      staged.finish();
    }
  }
  border.launched();
  return action;
}

}  // namespace wmf
