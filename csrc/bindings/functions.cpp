#include "bindings/functions.h"

#include <cstring>
#include <utility>

namespace wmf {

namespace {

constexpr std::pair<const char*, Precision> kPrecisions[] = {
    {"fp32", Precision::kFp32}, {"bf16", Precision::kBf16}, {"int8", Precision::kInt8}};

Precision parse_precision(const std::string& name) {
  for (const auto& [known, precision] : kPrecisions) {
    if (name == known) return precision;
  }
  throw py::value_error("precision: expected 'fp32', 'bf16' or 'int8', got '" + name + "'");
}

}  // namespace

std::string PackedModel::precision_name() const {
  for (const auto& [name, known] : kPrecisions) {
    if (precision == known) return name;
  }
  return "";
}

std::string backend_name(const std::string& name) { return select_level(name).name; }

PackedModel make_packed_model(const py::object& weight_ih, const py::object& weight_hh,
                              const py::object& bias, const py::object& head_weight,
                              const py::object& head_bias, int64_t latent_dim, int64_t action_dim,
                              int64_t hidden_dim, int64_t n_mixtures, bool predicts_done,
                              const std::string& backend, const std::string& precision) {
  const Precision parsed = parse_precision(precision);
  if (parsed == Precision::kInt8 &&
      (hidden_dim > kMaxInt8Hidden || latent_dim + action_dim > kMaxInt8Inputs)) {
    throw py::value_error("precision: expected 'fp32' or 'bf16' for hidden_dim " +
                          std::to_string(hidden_dim) + " and latent_dim + action_dim " +
                          std::to_string(latent_dim + action_dim) +
                          ", got 'int8', which is for up to " + std::to_string(kMaxInt8Hidden) +
                          " and " + std::to_string(kMaxInt8Inputs));
  }
  const Level& level = select_level(backend);
  const int64_t done = predicts_done ? 1 : 0;
  const int64_t gates = 4 * hidden_dim, inputs = latent_dim + action_dim + done;
  const int64_t outputs = 3 * n_mixtures * latent_dim + done;
  const MdnRnnDims dims{latent_dim, action_dim, hidden_dim, n_mixtures, predicts_done};
  const MdnRnnWeights weights{
      dims,
      read_finite(weight_ih, "weight_ih", {{"4H", gates}, {"X", inputs}}),
      read_finite(weight_hh, "weight_hh", {{"4H", gates}, {"H", hidden_dim}}),
      read_finite(bias, "bias", {{"4H", gates}}),
      read_finite(head_weight, "head_weight", {{"O", outputs}, {"H", hidden_dim}}),
      read_finite(head_bias, "head_bias", {{"O", outputs}}),
  };
  const py::gil_scoped_release release;
  return PackedModel{dims, parsed, &level, pack(*level.kernels, weights, parsed)};
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

py::tuple py_mdn_rnn_step(const PackedModel& model, const py::object& z, const py::object& action,
                          const py::object& h, const py::object& c, const py::object& restart,
                          int threads, const py::object& out) {
  const MdnRnnDims& d = model.dims;
  const int64_t n = axis_size(z, 0);
  StepArrays a{};
  a.rows = n;
  a.z = read_floats(z, "z", {{"N", kAny}, {"Z", d.latent}});
  a.action = read_floats(action, "action", {{"N", n}, {"A", d.action}});
  a.h = read_floats(h, "h", {{"N", n}, {"H", d.hidden}});
  a.c = read_floats(c, "c", {{"N", n}, {"H", d.hidden}});
  if (!restart.is_none()) {
    if (!d.predicts_done) {
      throw py::value_error(
          "restart: expected None, because this model does not predict the end of a rollout and so "
          "has no restart input; leave it out");
    }
    a.restart = read_floats(restart, "restart", {{"N", n}});
  }

  // The i-th array to write to; None within `out` is refused like any other wrong thing.
  const auto output_at = [&](size_t i, const char* name, std::initializer_list<Axis> axes,
                             float** data) -> py::object {
    if (out.is_none()) return new_output(axes, data);
    const py::object array = py::reinterpret_borrow<py::tuple>(out)[i];
    *data = write_floats(array, name, axes);
    return array;
  };
  const std::initializer_list<Axis> mixture = {{"N", n}, {"Z", d.latent}, {"K", d.mixtures}};
  const std::initializer_list<Axis> state = {{"N", n}, {"H", d.hidden}};
  py::object logmix = output_at(0, "out.logmix", mixture, &a.logmix);
  py::object mu = output_at(1, "out.mu", mixture, &a.mu);
  py::object logstd = output_at(2, "out.logstd", mixture, &a.logstd);
  py::object done_logit = py::none();
  if (d.predicts_done) {
    done_logit = output_at(3, "out.done_logit", {{"N", n}}, &a.done_logit);
  }
  py::object h_next = output_at(4, "out.h", state, &a.h_next);
  py::object c_next = output_at(5, "out.c", state, &a.c_next);
  if (!out.is_none()) {
    // A block of rows is read before it is written, so h and c may be updated in place.
    const char *name_h = "h", *name_c = "c";
    const int64_t m = n * d.latent * d.mixtures;
    refuse_overlap({{"logmix", a.logmix, m},
                    {"mu", a.mu, m},
                    {"logstd", a.logstd, m},
                    {"done_logit", a.done_logit, n},
                    {name_h, a.h_next, n * d.hidden},
                    {name_c, a.c_next, n * d.hidden}},
                   {{"z", a.z, n * d.latent},
                    {"action", a.action, n * d.action},
                    {name_h, a.h, n * d.hidden},
                    {name_c, a.c, n * d.hidden},
                    {"restart", a.restart, n}},
                   true);
  }
  {
    const py::gil_scoped_release release;
    mdn_rnn_step(*model.level->kernels, model.view(), a, threads);
  }
  return out.is_none() ? py::make_tuple(logmix, mu, logstd, done_logit, h_next, c_next)
                       : py::reinterpret_borrow<py::tuple>(out);
}

py::object py_mixture_sample(const py::object& logmix, const py::object& mu,
                             const py::object& logstd, float temperature, uint64_t seed,
                             uint32_t rollout, uint32_t step, const std::string& backend,
                             const py::object& out) {
  const Level& level = select_level(backend);
  const int64_t n = axis_size(logmix, 0), latent = axis_size(logmix, 1),
                mixtures = axis_size(logmix, 2);
  SampleArrays a{};
  a.rows = n;
  a.latent = latent;
  a.mixtures = mixtures;
  a.logmix = read_floats(logmix, "logmix", {{"N", kAny}, {"Z", kAny}, {"K", kAny}});
  a.mu = read_floats(mu, "mu", {{"N", n}, {"Z", latent}, {"K", mixtures}});
  a.logstd = read_floats(logstd, "logstd", {{"N", n}, {"Z", latent}, {"K", mixtures}});
  a.temperature = temperature;
  a.seed = seed;
  a.rollout = rollout;
  a.step = step;
  if (n + static_cast<int64_t>(rollout) > int64_t{1} << 32) {
    throw py::value_error("rollout: expected rollout + N <= 2**32, got " + std::to_string(rollout) +
                          " + " + std::to_string(n));
  }
  py::object z = output(out, "out", {{"N", n}, {"Z", latent}}, &a.z);
  const int64_t m = n * latent * mixtures;
  refuse_overlap({{"z", a.z, n * latent}},
                 {{"logmix", a.logmix, m}, {"mu", a.mu, m}, {"logstd", a.logstd, m}});
  {
    const py::gil_scoped_release release;
    mixture_sample(*level.kernels, a);
  }
  return z;
}

py::object py_controller_forward(const Controller& controller, const py::object& params,
                                 const py::object& z, const py::object& h, const py::object& c,
                                 const std::string& backend, const py::object& out) {
  const Level& level = select_level(backend);
  ControllerArrays a{};
  a.spec = controller.view();
  a.n_params = controller.n_params();
  a.members = axis_size(params, 0);
  a.params = read_floats(params, "params", {{"P", kAny}, {"n_params", a.n_params}});
  // All features have the same rows; the first decides how many.
  const auto feature = [&](const py::object& object, const char* name, Axis last) -> const float* {
    if (object.is_none()) return nullptr;
    const float* data = read_floats(object, name, {{"N", a.rows == 0 ? kAny : a.rows}, last});
    a.rows = axis_size(object, 0);
    return data;
  };
  a.z = feature(z, "z", {"Z", a.spec.latent});
  a.h = feature(h, "h", {"H", a.spec.hidden});
  a.c = feature(c, "c", {"H", a.spec.hidden});
  if (a.rows % a.members != 0) {
    throw py::value_error("params: expected (P, n_params) with N a multiple of P, got P = " +
                          std::to_string(a.members) + " and N = " + std::to_string(a.rows));
  }
  py::object action = output(out, "out", {{"N", a.rows}, {"A", a.spec.action}}, &a.action);
  refuse_overlap({{"action", a.action, a.rows * a.spec.action}},
                 {{"params", a.params, a.members * a.n_params},
                  {"z", a.z, a.rows * a.spec.latent},
                  {"h", a.h, a.rows * a.spec.hidden},
                  {"c", a.c, a.rows * a.spec.hidden}});
  {
    const py::gil_scoped_release release;
    controller_forward(*level.kernels, a);
  }
  return action;
}

py::tuple py_dream_rollout(const PackedModel& model, const Controller& controller,
                           const py::object& params, const py::object& initial_mu,
                           const py::object& initial_logvar, int64_t rollouts, uint64_t seed,
                           float temperature, int32_t max_steps, float done_threshold,
                           bool common_noise, int threads) {
  const MdnRnnDims& d = model.dims;
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
  a.members = axis_size(params, 0);
  a.params = read_finite(params, "params", {{"P", kAny}, {"n_params", a.n_params}});
  a.n_initial = axis_size(initial_mu, 0);
  a.initial_mu = read_finite(initial_mu, "initial_mu", {{"I", kAny}, {"Z", d.latent}});
  a.initial_logvar =
      read_finite(initial_logvar, "initial_logvar", {{"I", a.n_initial}, {"Z", d.latent}});
  a.rollouts = rollouts;
  a.seed = seed;
  a.temperature = temperature;
  a.max_steps = max_steps;
  a.done_threshold = done_threshold;
  a.common_noise = common_noise;
  if (a.n_initial > int64_t{1} << 32 || a.members * rollouts > int64_t{1} << 32) {
    throw py::value_error("rollouts: expected P * rollouts and I below 2**32, got " +
                          std::to_string(a.members * rollouts) + " and " +
                          std::to_string(a.n_initial));
  }

  FloatArray returns = new_floats({a.members, rollouts});
  py::array_t<int32_t> lengths(std::vector<py::ssize_t>{a.members, rollouts});
  a.returns = returns.mutable_data();
  a.lengths = lengths.mutable_data();
  bool finished = false;
  {
    const py::gil_scoped_release release;
    finished = dream_rollout(*model.level->kernels, a, threads, [] {
      const py::gil_scoped_acquire acquire;
      return PyErr_CheckSignals() != 0;
    });
  }
  if (!finished) throw py::error_already_set();  // KeyboardInterrupt, set by PyErr_CheckSignals
  return py::make_tuple(returns, lengths);
}

double py_peak_rate(const std::string& precision, const std::string& backend, int threads,
                    double seconds) {
  const Level& level = select_level(backend);
  const Precision parsed = parse_precision(precision);
  const py::gil_scoped_release release;
  return peak_rate(*level.kernels, parsed, threads, seconds);
}

double py_read_rate(int64_t nbytes, const std::string& backend, int threads, double seconds) {
  const Level& level = select_level(backend);
  const py::gil_scoped_release release;
  return read_rate(*level.kernels, nbytes, threads, seconds);
}

py::array_t<uint32_t> py_philox(const py::object& counter, uint64_t seed,
                                const std::string& backend) {
  const Level& level = select_level(backend);
  const ArrayView view = read<uint32_t>(counter, "counter", {{"N", kAny}, {"4", 4}});
  const auto* words = static_cast<const uint32_t*>(view.data());
  const int64_t n = axis_size(counter, 0);
  py::array_t<uint32_t> result(std::vector<py::ssize_t>{n, 4});
  level.kernels->philox(words, seed, result.mutable_data(), n);
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
    const float* data = read_floats(x, "x", {{"N", kAny}});
    const int64_t n = axis_size(x, 0);
    FloatArray y = new_floats({n});
    level.kernels->math(function, data, y.mutable_data(), n);
    return y;
  }
  throw py::value_error(
      "name: expected 'exp', 'log', 'tanh', 'sigmoid', 'cos_2pi', 'gate_sigmoid' or 'gate_tanh', "
      "got '" +
      name + "'");
}

}  // namespace wmf
