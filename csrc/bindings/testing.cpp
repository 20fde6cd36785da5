// Random words and elementary functions, for the tests.
#include "bindings/functions.h"

namespace wmf {

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
