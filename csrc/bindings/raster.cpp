#include "bindings/raster.h"

#include <array>
#include <cmath>

#include "bindings/tensor.h"
#include "raster/box.h"

namespace wmf {

namespace {

void refuse_not_finite(const char* name, const double* data, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!std::isfinite(data[i])) {
      throw py::value_error(std::string(name) + ": expected finite numbers, got " +
                            std::to_string(data[i]) + " at flat index " + std::to_string(i));
    }
  }
}

const double* read_finite_doubles(const py::object& object, const char* name,
                                  std::initializer_list<Axis> axes) {
  const auto* data = static_cast<const double*>(read<double>(object, name, axes).data());
  int64_t n = 1;
  for (size_t i = 0; i < axes.size(); ++i) n *= axis_size(object, static_cast<int64_t>(i));
  refuse_not_finite(name, data, n);
  return data;
}

Colour read_colour(const py::object& object, const char* name) {
  const double* data = read_finite_doubles(object, name, {{"3", 3}});
  return {data[0], data[1], data[2]};
}

Outline read_outline(const py::object& object, const char* name) {
  const float* data = read_finite(object, name, {{"corners", kAny}, {"2", 2}});
  const int64_t n = axis_size(object, 0);
  if (n < 3 || n > static_cast<int64_t>(kMostCorners)) {
    throw py::value_error(std::string(name) + ": expected 3 to " + std::to_string(kMostCorners) +
                          " corners, got " + std::to_string(n));
  }
  Outline outline{{}, static_cast<size_t>(n)};
  for (size_t i = 0; i < outline.size; ++i) outline.corners[i] = {data[2 * i], data[2 * i + 1]};
  return outline;
}

CarShape read_shape(const py::list& hull, const py::object& wheel, double wheel_half_width,
                    double wheel_radius) {
  CarShape shape{{}, read_outline(wheel, "wheel"), wheel_half_width, wheel_radius};
  for (const py::handle part : hull) {
    shape.hull.push_back(read_outline(py::reinterpret_borrow<py::object>(part), "hull"));
  }
  const std::array sizes = {wheel_half_width, wheel_radius};
  refuse_not_finite("wheel_half_width, wheel_radius", sizes.data(), 2);
  return shape;
}

}  // namespace

CarRacingRenderer::CarRacingRenderer(const py::list& hull, const py::object& wheel,
                                     double wheel_half_width, double wheel_radius)
    : scene_(read_shape(hull, wheel, wheel_half_width, wheel_radius)) {}

void CarRacingRenderer::set_track(const py::object& quads, const py::object& colours) {
  const double* corners = read_finite_doubles(quads, "quads", {{"n", kAny}, {"4", 4}, {"2", 2}});
  const int64_t n = axis_size(quads, 0);
  const double* rgb = read_finite_doubles(colours, "colours", {{"n", n}, {"3", 3}});
  static_assert(sizeof(Colour) == 3 * sizeof(double), "an (n, 3) array is an array of Colour");
  scene_.set_track(corners, n);
  colours_ = colours;
  colours_data_ = reinterpret_cast<const Colour*>(rgb);
}

void CarRacingRenderer::set_ground(double half_size, double patch_size,
                                   const py::object& background, const py::object& grass) {
  constexpr double kMostPatches = 100;  // from the middle to the border
  if (!(half_size > 0 && patch_size > 0 && half_size <= kMostPatches * patch_size)) {
    throw py::value_error(
        "half_size, patch_size: expected metres above 0, the first at most 100 of the second, "
        "got " +
        std::to_string(half_size) + " and " + std::to_string(patch_size));
  }
  scene_.set_ground(
      {half_size, patch_size, read_colour(background, "background"), read_colour(grass, "grass")});
  has_ground_ = true;
}

void CarRacingRenderer::draw(const py::list& state, const py::object& score,
                             const py::object& frame) {
  if (colours_data_ == nullptr || !has_ground_) {
    throw py::value_error("draw: expected set_track() and set_ground() before it");
  }
  if (state.size() != kStateNumbers) {
    throw py::value_error("state: expected " + std::to_string(kStateNumbers) + " numbers, got " +
                          std::to_string(state.size()));
  }
  std::array<double, kStateNumbers> v{};
  for (size_t i = 0; i < v.size(); ++i) {
    v[i] = PyFloat_AsDouble(PyList_GET_ITEM(state.ptr(), static_cast<py::ssize_t>(i)));
    if (v[i] == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  }
  refuse_not_finite("state", v.data(), kStateNumbers);

  const auto body = [&](size_t x, size_t angle) {
    const auto a = static_cast<float>(v[angle]);
    return Body{static_cast<float>(v[x]), static_cast<float>(v[x + 1]), std::sin(a), std::cos(a)};
  };
  CarState car{v[0], body(1, 3), v[3], v[4], v[5], v[6], v[7], {}};
  for (size_t i = 0; i < car.wheels.size(); ++i) {
    const size_t at = 8 + 5 * i;
    car.wheels[i] = {body(at, at + 2), v[at + 3], v[at + 4]};
  }
  const auto* digits = static_cast<const uint8_t*>(
      read<uint8_t>(score, "score", {{"12", kScore}, {"12", kScore}}).data());

  const bool small = axis_size(frame, 0) == kSmallFrame;
  const int64_t size = small ? kSmallFrame : kFrame;
  const ArrayView out =
      read<uint8_t>(frame, "frame", {{"rows", size}, {"columns", size}, {"3", 3}});
  if (!out.writeable()) {
    throw py::value_error("frame: expected an array to write to, got a read-only one");
  }
  auto* pixels = static_cast<uint8_t*>(out.data());
  if (!small) {
    scene_.draw(car, colours_data_, digits, pixels);
  } else {
    scene_.draw_small(car, colours_data_, pixels);
  }
}

void py_box_resize(const py::object& frame, const py::object& out) {
  const ArrayView from =
      read<uint8_t>(frame, "frame", {{"rows", kAny}, {"columns", kAny}, {"3", 3}});
  const ArrayView to = read<uint8_t>(out, "out", {{"rows", kAny}, {"columns", kAny}, {"3", 3}});
  const int64_t rows = axis_size(frame, 0), columns = axis_size(frame, 1);
  if (rows > kMostPixels || columns > kMostPixels) {
    throw py::value_error("frame: expected at most " + std::to_string(kMostPixels) +
                          " rows and columns, got " + std::to_string(rows) + " and " +
                          std::to_string(columns));
  }
  if (!to.writeable()) {
    throw py::value_error("out: expected an array to write to, got a read-only one");
  }
  box_resize(static_cast<const uint8_t*>(from.data()), rows, columns,
             static_cast<uint8_t*>(to.data()), axis_size(out, 0), axis_size(out, 1));
}

}  // namespace wmf
