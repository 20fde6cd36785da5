#include "bindings/functions.h"

#include <cstring>
#include <utility>

namespace wmf {

namespace {

constexpr std::pair<const char*, Precision> kPrecisions[] = {{"fp32", Precision::kFp32},
                                                             {"fp16", Precision::kFp16},
                                                             {"bf16", Precision::kBf16},
                                                             {"int8", Precision::kInt8}};

Precision parse_precision(const std::string& name) {
  for (const auto& [known, precision] : kPrecisions) {
    if (name == known) return precision;
  }
  throw py::value_error("precision: expected 'fp32', 'fp16', 'bf16' or 'int8', got '" + name + "'");
}

std::string name_of(Precision precision) {
  for (const auto& [name, known] : kPrecisions) {
    if (precision == known) return name;
  }
  return "";
}

// Refuses what a backend has no products for. `level` is null for CUDA.
void check_precision(Precision precision, const Level* level) {
  if (level != nullptr && precision == Precision::kFp16) {
    throw py::value_error("precision: expected 'fp32', 'bf16' or 'int8' for backend '" +
                          std::string(level->name) + "', got 'fp16', which is for backend 'cuda'");
  }
  if (level == nullptr && precision != Precision::kFp32 && precision != Precision::kFp16) {
    throw py::value_error("precision: expected 'fp32' or 'fp16' for backend 'cuda', got '" +
                          std::string(precision == Precision::kBf16 ? "bf16" : "int8") + "'");
  }
}

// Where an operation without a model computes: where it is told to, or else where its arrays are.
// Arrays of the host take the default backend; they are copied if that is CUDA.
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

// Arrays of the host, for a call that computes on a device: copied there, and results copied back.
// Blocking. Does nothing for a call whose arrays are on the device.
class Staged {
 public:
  explicit Staged(const Border& border) : needed_(border.staged()), device_(border.computes_on()) {}

  void in(const float** data, int64_t n) {
    if (!needed_ || *data == nullptr) return;
    cuda::CudaMemory& memory = add(n);
    memory.upload(*data);
    *data = static_cast<const float*>(memory.get());
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

bool ask_python() {
  const py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

}  // namespace

PackedMdnRnn PackedModel::view() const {
  return level != nullptr ? PackedMdnRnn{dims, precision, on_cpu->get()} : on_cuda->view();
}

std::string PackedModel::precision_name() const { return name_of(precision); }

std::string EncoderModel::precision_name() const { return name_of(precision); }

int64_t PackedModel::nbytes() const {
  return level != nullptr ? on_cpu->size() * static_cast<int64_t>(sizeof(float))
                          : on_cuda->nbytes();
}

std::string backend_name(const std::string& name) {
  const Level* level = select_backend(name);
  return level != nullptr ? level->name : "cuda";
}

PackedModel make_packed_model(const py::object& weight_ih, const py::object& weight_hh,
                              const py::object& bias, const py::object& head_weight,
                              const py::object& head_bias, int64_t latent_dim, int64_t action_dim,
                              int64_t hidden_dim, int64_t n_mixtures, bool predicts_done,
                              bool predicts_reward, const std::string& backend,
                              const std::string& precision, int device) {
  const Precision parsed = parse_precision(precision);
  if (parsed == Precision::kInt8 &&
      (hidden_dim > kMaxInt8Hidden || latent_dim + action_dim > kMaxInt8Inputs)) {
    throw py::value_error("precision: expected 'fp32' or 'bf16' for hidden_dim " +
                          std::to_string(hidden_dim) + " and latent_dim + action_dim " +
                          std::to_string(latent_dim + action_dim) +
                          ", got 'int8', which is for up to " + std::to_string(kMaxInt8Hidden) +
                          " and " + std::to_string(kMaxInt8Inputs));
  }
  const Level* level = select_backend(backend);
  check_precision(parsed, level);
  const Place place = level != nullptr ? kCpu : select_cuda_device(device);
  const int64_t done = predicts_done ? 1 : 0;
  const int64_t gates = 4 * hidden_dim, inputs = latent_dim + action_dim + done;
  const int64_t outputs = 3 * n_mixtures * latent_dim + done + (predicts_reward ? 1 : 0);
  const MdnRnnDims dims{latent_dim, action_dim,    hidden_dim,
                        n_mixtures, predicts_done, predicts_reward};
  Border border(Target{place, "where the model will be"});
  const auto read_weight = [&](const py::object& weight, const char* name,
                               std::initializer_list<Axis> axes) {
    return static_cast<const float*>(border.read_finite(weight, name, axes).data());
  };
  const MdnRnnWeights weights{
      dims,
      read_weight(weight_ih, "weight_ih", {{"4H", gates}, {"X", inputs}}),
      read_weight(weight_hh, "weight_hh", {{"4H", gates}, {"H", hidden_dim}}),
      read_weight(bias, "bias", {{"4H", gates}}),
      read_weight(head_weight, "head_weight", {{"O", outputs}, {"H", hidden_dim}}),
      read_weight(head_bias, "head_bias", {{"O", outputs}}),
  };
  PackedModel model{dims, parsed, level, std::nullopt, std::nullopt};
  const py::gil_scoped_release release;
  if (level != nullptr) {
    model.on_cpu = pack(*level->kernels, weights, parsed);
  } else {
    model.on_cuda.emplace(weights, border.place() != kCpu, parsed, place, border.stream());
  }
  return model;
}

ControllerSpec Controller::view() const {
  ControllerSpec spec{};
  spec.n_features = static_cast<int64_t>(features.size());
  std::memcpy(spec.features, features.data(), features.size());
  spec.latent = latent;
  spec.hidden = hidden;
  spec.action = action;
  spec.hidden_units = hidden_units;
  spec.bias = bias;
  spec.scale = scale.data();
  spec.shift = shift.data();
  spec.low = low.data();
  spec.high = high.data();
  return spec;
}

int64_t Controller::n_params() const {
  int64_t inputs = bias ? 1 : 0;
  for (const char feature : features) inputs += feature == 'z' ? latent : hidden;
  if (hidden_units == 0) return inputs * action;
  return inputs * hidden_units + (hidden_units + (bias ? 1 : 0)) * action;
}

Controller make_controller(const std::string& features, int64_t latent_dim, int64_t hidden_dim,
                           int64_t action_dim, bool bias, int64_t hidden_units,
                           std::vector<float> scale, std::vector<float> shift,
                           std::vector<float> low, std::vector<float> high) {
  const auto n = static_cast<size_t>(action_dim);
  if (features.size() > 3 || features.find_first_not_of("zhc") != std::string::npos ||
      scale.size() != n || shift.size() != n || low.size() != n || high.size() != n) {
    throw py::value_error(
        "Controller: expected what ops.ControllerSpec has checked; use ops.ControllerSpec");
  }
  return Controller{features, latent_dim,       hidden_dim,       action_dim,     hidden_units,
                    bias,     std::move(scale), std::move(shift), std::move(low), std::move(high)};
}

EncoderModel make_encoder_model(const std::vector<py::object>& weights,
                                const std::vector<py::object>& biases, int64_t latent_dim,
                                const std::string& backend, const std::string& precision) {
  Precision parsed = Precision::kFp32;
  if (precision == "bf16") {
    parsed = Precision::kBf16;
  } else if (precision != "fp32") {
    throw py::value_error("precision: expected 'fp32' or 'bf16' for V, got '" + precision + "'");
  }
  const Level& level = select_level(backend);
  EncoderWeights all{};
  all.latent = latent_dim;
  int64_t channels = kFrameChannels;
  for (size_t i = 0; i < kEncoderLayers; ++i) {
    const bool last = i + 1 == kEncoderLayers;
    const int64_t outputs = last ? 2 * latent_dim : int64_t{32} << i, kernel = last ? 2 : 4;
    const std::string name = last ? "head" : "conv" + std::to_string(i + 1);
    all.weight[i] = read_finite(
        weights[i], (name + "_weight").c_str(),
        {{last ? "2Z" : "out", outputs}, {"in", channels}, {"k", kernel}, {"k", kernel}});
    all.bias[i] =
        read_finite(biases[i], (name + "_bias").c_str(), {{last ? "2Z" : "out", outputs}});
    channels = outputs;
  }
  return EncoderModel{latent_dim, parsed, &level, pack_encoder(*level.kernels, all, parsed)};
}

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
                             const py::object& logstd, float temperature, uint64_t seed,
                             uint32_t rollout, uint32_t step, const std::string& backend,
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
  a.seed = seed;
  a.rollout = rollout;
  a.step = step;
  if (n + static_cast<int64_t>(rollout) > int64_t{1} << 32) {
    throw py::value_error("rollout: expected rollout + N <= 2**32, got " + std::to_string(rollout) +
                          " + " + std::to_string(n));
  }
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
      staged.out(&a.z, n * latent);
      cuda::mixture_sample(a, border.computes_on(), border.stream());
      staged.finish();
    }
  }
  border.launched();
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

py::tuple py_dream_rollout(const PackedModel& model, const Controller& controller,
                           const py::object& params, const py::object& initial_mu,
                           const py::object& initial_logvar, int64_t rollouts, uint64_t seed,
                           float temperature, int32_t max_steps, float done_threshold,
                           float done_temperature, bool common_noise, int threads,
                           const std::pair<int, int>& plan) {
  const MdnRnnDims& d = model.dims;
  Border border(model.target());
  DreamArrays a{};
  a.model = model.view();
  a.spec = controller.view();
  if (a.spec.latent != d.latent || a.spec.hidden != d.hidden || a.spec.action != d.action) {
    const auto dims = [](int64_t z, int64_t h, int64_t action) {
      return "latent_dim " + std::to_string(z) + ", hidden_dim " + std::to_string(h) +
             ", action_dim " + std::to_string(action);
    };
    throw py::value_error("spec: expected the model's " + dims(d.latent, d.hidden, d.action) +
                          ", got " + dims(a.spec.latent, a.spec.hidden, a.spec.action));
  }
  a.n_params = controller.n_params();
  const ArrayView population =
      border.read_finite(params, "params", {{"P", kAny}, {"n_params", a.n_params}});
  a.members = population.shape(0);
  a.params = static_cast<const float*>(population.data());
  const ArrayView mu = border.read_finite(initial_mu, "initial_mu", {{"I", kAny}, {"Z", d.latent}});
  a.n_initial = mu.shape(0);
  a.initial_mu = static_cast<const float*>(mu.data());
  a.initial_logvar = static_cast<const float*>(
      border.read_finite(initial_logvar, "initial_logvar", {{"I", a.n_initial}, {"Z", d.latent}})
          .data());
  a.rollouts = rollouts;
  a.seed = seed;
  a.temperature = temperature;
  a.max_steps = max_steps;
  a.done_threshold = done_threshold;
  a.done_temperature = done_temperature;
  a.common_noise = common_noise;
  if (a.n_initial > int64_t{1} << 32 || a.members * rollouts > int64_t{1} << 32) {
    throw py::value_error("rollouts: expected P * rollouts and I below 2**32, got " +
                          std::to_string(a.members * rollouts) + " and " +
                          std::to_string(a.n_initial));
  }

  const std::initializer_list<Axis> shape = {{"P", a.members}, {"R", rollouts}};
  py::object returns = border.new_output(shape, &a.returns);
  py::object lengths = border.new_output(shape, &a.lengths);
  const cuda::DreamPlan wish{plan.first, plan.second};
  bool finished = true;
  {
    const py::gil_scoped_release release;
    if (model.level != nullptr) {
      finished = dream_rollout(*model.level->kernels, a, threads, ask_python);
    } else if (border.staged()) {
      finished = cuda::dream_rollout_from_host(a, border.computes_on(), ask_python, wish);
    } else {
      cuda::dream_rollout(a, border.computes_on(), border.stream(), wish);
    }
  }
  if (!finished) throw py::error_already_set();  // KeyboardInterrupt, set by PyErr_CheckSignals
  border.launched();
  return py::make_tuple(returns, lengths);
}

std::pair<int, int> py_plan_dream(const PackedModel& model, const Controller& controller,
                                  int64_t members, int64_t rollouts,
                                  const std::pair<int, int>& plan) {
  if (model.level != nullptr) {
    throw py::value_error("model: expected one that is packed for backend 'cuda', got '" +
                          model.backend() + "'");
  }
  DreamArrays a{};
  a.model = model.view();
  a.spec = controller.view();
  a.n_params = controller.n_params();
  a.members = members;
  a.rollouts = rollouts;
  const cuda::DreamPlan found = cuda::plan_dream(a, model.place(), {plan.first, plan.second});
  return {found.group, found.slots};
}

double py_peak_rate(const std::string& precision, const std::string& backend, int threads,
                    double seconds) {
  const Level* level = select_backend(backend);
  const Precision parsed = parse_precision(precision);
  check_precision(parsed, level);
  const int device = level != nullptr ? -1 : select_cuda_device(-1);
  const py::gil_scoped_release release;
  return level != nullptr ? peak_rate(*level->kernels, parsed, threads, seconds)
                          : cuda::peak_rate(parsed, device, seconds);
}

double py_read_rate(int64_t nbytes, const std::string& backend, int threads, double seconds) {
  const Level* level = select_backend(backend);
  const int device = level != nullptr ? -1 : select_cuda_device(-1);
  const py::gil_scoped_release release;
  return level != nullptr ? read_rate(*level->kernels, nbytes, threads, seconds)
                          : cuda::read_rate(nbytes, device, seconds);
}

double py_shared_rate(int device, double seconds) {
  const int found = select_cuda_device(device);
  const py::gil_scoped_release release;
  return cuda::shared_rate(found, seconds);
}

int py_place_of(const py::object& object) { return ArrayView(object).place(); }

py::dict py_cuda_status() {
  const cuda::CudaStatus status = cuda::cuda_status();
  py::list devices;
  for (const cuda::CudaDevice& device : status.devices) {
    py::dict about;
    about["index"] = device.index;
    about["name"] = device.name;
    about["sm"] = device.sm;
    about["processors"] = device.processors;
    about["memory"] = device.memory;
    about["reason"] = device.reason;
    devices.append(about);
  }
  py::dict about;
  about["built"] = status.built;
  about["driver"] = status.driver;
  about["runtime"] = status.runtime;
  about["devices"] = devices;
  about["reason"] = status.reason;
  return about;
}

py::list py_cuda_kernels(int device) {
  py::list kernels;
  for (const cuda::CudaKernel& kernel : cuda::kernel_resources(select_cuda_device(device))) {
    py::dict about;
    about["name"] = kernel.name;
    about["registers"] = kernel.registers;
    about["local_bytes"] = kernel.local_bytes;
    kernels.append(about);
  }
  return kernels;
}

py::array_t<uint32_t> py_philox(const py::object& counter, uint64_t seed,
                                const std::string& backend) {
  const Level* level = select_backend(backend);
  const ArrayView view = read<uint32_t>(counter, "counter", {{"N", kAny}, {"4", 4}});
  const auto* words = static_cast<const uint32_t*>(view.data());
  const int64_t n = view.shape(0);
  py::array_t<uint32_t> result(std::vector<py::ssize_t>{n, 4});
  if (level != nullptr) {
    level->kernels->philox(words, seed, result.mutable_data(), n);
  } else {
    cuda::philox_words(words, seed, result.mutable_data(), n, select_cuda_device(-1));
  }
  return result;
}

FloatArray py_vector_math(const std::string& name, const py::object& x,
                          const std::string& backend) {
  const Level& level = select_level(backend);
  const std::pair<const char*, MathFunction> functions[] = {
      {"exp", MathFunction::kExp},           {"log", MathFunction::kLog},
      {"tanh", MathFunction::kTanh},         {"sigmoid", MathFunction::kSigmoid},
      {"cos_2pi", MathFunction::kCos2Pi},    {"gate_sigmoid", MathFunction::kGateSigmoid},
      {"gate_tanh", MathFunction::kGateTanh}};
  for (const auto& [known, function] : functions) {
    if (name != known) continue;
    const ArrayView view = read<float>(x, "x", {{"N", kAny}});
    const int64_t n = view.shape(0);
    FloatArray y(n);
    level.kernels->math(function, static_cast<const float*>(view.data()), y.mutable_data(), n);
    return y;
  }
  throw py::value_error(
      "name: expected 'exp', 'log', 'tanh', 'sigmoid', 'cos_2pi', 'gate_sigmoid' or 'gate_tanh', "
      "got '" +
      name + "'");
}

}  // namespace wmf
