// Whole dreams.
#include "bindings/functions.h"

namespace wmf {

namespace {

bool ask_python() {
  const py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

}  // namespace

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

}  // namespace wmf
