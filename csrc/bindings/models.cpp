// M's and V's packed weights, and controllers.
#include <cstring>

#include "bindings/functions.h"
#include "bindings/precision.h"

namespace wmf {

PackedMdnRnn PackedModel::view() const {
  return level != nullptr ? PackedMdnRnn{dims, precision, on_cpu->get()} : on_cuda->view();
}

std::string PackedModel::precision_name() const { return name_of(precision); }

std::string EncoderModel::precision_name() const { return name_of(precision); }

std::string PackedModel::text() const {
  const auto yes = [](bool value) { return std::string(value ? "True" : "False"); };
  return "PackedMDNRNN(latent_dim=" + std::to_string(dims.latent) +
         ", action_dim=" + std::to_string(dims.action) +
         ", hidden_dim=" + std::to_string(dims.hidden) +
         ", n_mixtures=" + std::to_string(dims.mixtures) +
         ", predicts_done=" + yes(dims.predicts_done) +
         ", predicts_reward=" + yes(dims.predicts_reward) + ", backend='" + backend() +
         "', device='" + device() + "', precision='" + precision_name() +
         "', nbytes=" + std::to_string(nbytes()) + ")";
}

std::string EncoderModel::text() const {
  return "PackedVAEEncoder(latent_dim=" + std::to_string(latent) + ", backend='" + backend() +
         "', precision='" + precision_name() + "', nbytes=" + std::to_string(nbytes()) + ")";
}

int64_t PackedModel::nbytes() const {
  return level != nullptr ? on_cpu->size() * static_cast<int64_t>(sizeof(float))
                          : on_cuda->nbytes();
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

}  // namespace wmf
