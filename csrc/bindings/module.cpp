// The Python module worldmodels_fast._core, as a table of contents. Its only importer is
// worldmodels_fast/ops/.
#include "bindings/functions.h"
#include "bindings/raster.h"

PYBIND11_MODULE(_core, m) {
  using namespace pybind11::literals;
  namespace py = pybind11;
  m.doc() = "Native kernels of worldmodels_fast; use worldmodels_fast.ops.";

  py::class_<wmf::PackedModel>(m, "PackedMDNRNN",
                               "M's weights in the order in which one backend reads them.")
      .def(py::init(&wmf::make_packed_model), py::kw_only(), "weight_ih"_a, "weight_hh"_a, "bias"_a,
           "head_weight"_a, "head_bias"_a, "latent_dim"_a, "action_dim"_a, "hidden_dim"_a,
           "n_mixtures"_a, "predicts_done"_a, "predicts_reward"_a, "backend"_a, "precision"_a,
           "device"_a)
      .def("__repr__", &wmf::PackedModel::text)
      .def_property_readonly("backend", &wmf::PackedModel::backend)
      .def_property_readonly("device", &wmf::PackedModel::device)
      .def_property_readonly("precision", &wmf::PackedModel::precision_name)
      .def_property_readonly("nbytes", &wmf::PackedModel::nbytes)
      .def_property_readonly("latent_dim", [](const wmf::PackedModel& p) { return p.dims.latent; })
      .def_property_readonly("action_dim", [](const wmf::PackedModel& p) { return p.dims.action; })
      .def_property_readonly("hidden_dim", [](const wmf::PackedModel& p) { return p.dims.hidden; })
      .def_property_readonly("n_mixtures",
                             [](const wmf::PackedModel& p) { return p.dims.mixtures; })
      .def_property_readonly("predicts_done",
                             [](const wmf::PackedModel& p) { return p.dims.predicts_done; })
      .def_property_readonly("predicts_reward",
                             [](const wmf::PackedModel& p) { return p.dims.predicts_reward; });

  py::class_<wmf::EncoderModel>(m, "PackedVAEEncoder",
                                "The weights of V's encoder in the order of one backend.")
      .def(py::init(&wmf::make_encoder_model), py::kw_only(), "weights"_a, "biases"_a,
           "latent_dim"_a, "backend"_a, "precision"_a)
      .def("__repr__", &wmf::EncoderModel::text)
      .def_property_readonly("backend", &wmf::EncoderModel::backend)
      .def_property_readonly("precision", &wmf::EncoderModel::precision_name)
      .def_property_readonly("nbytes", &wmf::EncoderModel::nbytes)
      .def_readonly("latent_dim", &wmf::EncoderModel::latent);

  py::class_<wmf::NoiseArguments>(m, "NoiseIds", "Whose noise the rows of a call use.")
      .def(py::init<uint64_t, uint32_t, uint32_t, py::object>(), "seed"_a, "rollout"_a, "step"_a,
           "rows"_a);

  py::class_<wmf::Controller>(m, "Controller",
                              "How a flat parameter vector is read; made from a ControllerSpec.")
      .def(py::init(&wmf::make_controller), "features"_a, "latent_dim"_a, "hidden_dim"_a,
           "action_dim"_a, "bias"_a, "hidden_units"_a, "scale"_a, "shift"_a, "low"_a, "high"_a)
      .def_property_readonly("n_params", &wmf::Controller::n_params);

  py::class_<wmf::CarRacingRenderer>(m, "CarRacingRenderer", "Draws CarRacing's frames.")
      .def(py::init<const py::list&, const py::object&, double, double>(), py::kw_only(), "hull"_a,
           "wheel"_a, "wheel_half_width"_a, "wheel_radius"_a)
      .def("set_track", &wmf::CarRacingRenderer::set_track, "quads"_a, "colours"_a)
      .def("set_ground", &wmf::CarRacingRenderer::set_ground, "half_size"_a, "patch_size"_a,
           "background"_a, "grass"_a)
      .def("draw", &wmf::CarRacingRenderer::draw, "state"_a, "score"_a, "frame"_a);

  py::class_<wmf::DeviceArray, std::shared_ptr<wmf::DeviceArray>>(
      m, "DeviceArray", "An array of our own, for any library; made by ops.to_device.")
      .def(py::init(&wmf::DeviceArray::copy_of), "array"_a.noconvert(), "place"_a)
      .def_property_readonly("shape", &wmf::DeviceArray::shape_tuple)
      .def_property_readonly("dtype", &wmf::DeviceArray::dtype_name)
      .def_property_readonly("device", &wmf::DeviceArray::device_name)
      .def("numpy", &wmf::DeviceArray::numpy, "A copy as a NumPy array, once it is written.")
      .def_property_readonly("__cuda_array_interface__", &wmf::DeviceArray::cuda_array_interface)
      .def("__dlpack_device__", &wmf::DeviceArray::dlpack_device)
      .def("__dlpack__", &wmf::export_dlpack, py::kw_only(), "stream"_a = py::none(),
           "max_version"_a = py::none(), "dl_device"_a = py::none(), "copy"_a = py::none());

  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const wmf::cuda::CudaOutOfMemory& out_of_memory) {
      PyErr_SetString(PyExc_MemoryError, out_of_memory.what());
    }
  });

  m.def("available_backends", &wmf::available_backends);
  m.def("why_no_cuda", &wmf::why_no_cuda);
  m.def("cuda_status", &wmf::py_cuda_status);
  m.def("place_of", &wmf::py_place_of, "array"_a);
  m.def("cuda_device", &wmf::select_cuda_device, "wish"_a);
  m.def("backend_name", &wmf::backend_name, "name"_a);

  m.def("box_resize", &wmf::py_box_resize, "frame"_a, "out"_a);
  m.def("encode_frames", &wmf::py_encode_frames, "model"_a, "frames"_a, "threads"_a);
  m.def("mdn_rnn_step", &wmf::py_mdn_rnn_step, "model"_a, "z"_a, "action"_a, "h"_a, "c"_a,
        "restart"_a, "threads"_a, "out"_a);
  m.def("mixture_sample", &wmf::py_mixture_sample, "logmix"_a, "mu"_a, "logstd"_a, "temperature"_a,
        "noise"_a, "backend"_a, "out"_a);
  m.def("done_sample", &wmf::py_done_sample, "done_logit"_a, "done_threshold"_a,
        "done_temperature"_a, "noise"_a, "backend"_a);
  m.def("initial_latents", &wmf::py_initial_latents, "initial_mu"_a, "initial_logvar"_a, "rows"_a,
        "noise"_a, "backend"_a);
  m.def("controller_forward", &wmf::py_controller_forward, "controller"_a, "params"_a, "z"_a, "h"_a,
        "c"_a, "backend"_a, "out"_a);
  m.def("dream_rollout", &wmf::py_dream_rollout, "model"_a, "controller"_a, "params"_a,
        "initial_mu"_a, "initial_logvar"_a, py::kw_only(), "rollouts"_a, "seed"_a, "temperature"_a,
        "max_steps"_a, "done_threshold"_a, "done_temperature"_a, "common_noise"_a, "threads"_a,
        "plan"_a);
  m.def("plan_dream", &wmf::py_plan_dream, "model"_a, "controller"_a, "members"_a, "rollouts"_a,
        "plan"_a);

  m.def("peak_rate", &wmf::py_peak_rate, "precision"_a, "backend"_a, "threads"_a, "seconds"_a);
  m.def("read_rate", &wmf::py_read_rate, "nbytes"_a, "backend"_a, "threads"_a, "seconds"_a);

  m.def("shared_rate", &wmf::py_shared_rate, "device"_a, "seconds"_a);
  m.def("cuda_kernels", &wmf::py_cuda_kernels, "device"_a);

  // For the tests.
  m.def("philox", &wmf::py_philox, "counter"_a, "seed"_a, "backend"_a);
  m.def("vector_math", &wmf::py_vector_math, "name"_a, "x"_a, "backend"_a);
}
