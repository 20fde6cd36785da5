// The Python module worldmodels_fast._core, as a table of contents. Its only importer is ops.py.
#include "bindings/functions.h"

PYBIND11_MODULE(_core, m) {
  using namespace pybind11::literals;
  namespace py = pybind11;
  m.doc() = "Native kernels of worldmodels_fast; use worldmodels_fast.ops.";

  py::class_<wmf::PackedModel>(m, "PackedMDNRNN",
                               "M's weights in the order in which one backend reads them.")
      .def(py::init(&wmf::make_packed_model), py::kw_only(), "weight_ih"_a, "weight_hh"_a, "bias"_a,
           "head_weight"_a, "head_bias"_a, "latent_dim"_a, "action_dim"_a, "hidden_dim"_a,
           "n_mixtures"_a, "predicts_done"_a, "backend"_a, "precision"_a)
      .def_property_readonly("backend", &wmf::PackedModel::backend)
      .def_property_readonly("precision", &wmf::PackedModel::precision_name)
      .def_property_readonly("nbytes", &wmf::PackedModel::nbytes)
      .def_property_readonly("latent_dim", [](const wmf::PackedModel& p) { return p.dims.latent; })
      .def_property_readonly("action_dim", [](const wmf::PackedModel& p) { return p.dims.action; })
      .def_property_readonly("hidden_dim", [](const wmf::PackedModel& p) { return p.dims.hidden; })
      .def_property_readonly("n_mixtures",
                             [](const wmf::PackedModel& p) { return p.dims.mixtures; })
      .def_property_readonly("predicts_done",
                             [](const wmf::PackedModel& p) { return p.dims.predicts_done; });

  py::class_<wmf::Controller>(m, "Controller",
                              "How a flat parameter vector is read; made from a ControllerSpec.")
      .def(py::init(&wmf::make_controller), "features"_a, "latent_dim"_a, "hidden_dim"_a,
           "action_dim"_a, "bias"_a, "hidden_units"_a, "scale"_a, "shift"_a, "low"_a, "high"_a)
      .def_property_readonly("n_params", &wmf::Controller::n_params);

  m.def("available_backends", &wmf::available_levels);
  m.def("backend_name", &wmf::backend_name, "name"_a);

  m.def("mdn_rnn_step", &wmf::py_mdn_rnn_step, "model"_a, "z"_a, "action"_a, "h"_a, "c"_a,
        "restart"_a, "threads"_a, "out"_a);
  m.def("mixture_sample", &wmf::py_mixture_sample, "logmix"_a, "mu"_a, "logstd"_a, "temperature"_a,
        "seed"_a, "rollout"_a, "step"_a, "backend"_a, "out"_a);
  m.def("controller_forward", &wmf::py_controller_forward, "controller"_a, "params"_a, "z"_a, "h"_a,
        "c"_a, "backend"_a, "out"_a);
  m.def("dream_rollout", &wmf::py_dream_rollout, "model"_a, "controller"_a, "params"_a,
        "initial_mu"_a, "initial_logvar"_a, py::kw_only(), "rollouts"_a, "seed"_a, "temperature"_a,
        "max_steps"_a, "done_threshold"_a, "common_noise"_a, "threads"_a);

  m.def("peak_rate", &wmf::py_peak_rate, "precision"_a, "backend"_a, "threads"_a, "seconds"_a);
  m.def("read_rate", &wmf::py_read_rate, "nbytes"_a, "backend"_a, "threads"_a, "seconds"_a);

  // For the tests.
  m.def("philox", &wmf::py_philox, "counter"_a, "seed"_a, "backend"_a);
  m.def("vector_math", &wmf::py_vector_math, "name"_a, "x"_a, "backend"_a);
}
