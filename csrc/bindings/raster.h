// CarRacing's renderer and what brings frames to another size, with every check of arguments.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "raster/car_racing.h"

namespace wmf {

namespace py = pybind11;

// How many numbers `CarRacingRenderer::draw` takes as its state; ops/raster.py names them.
constexpr size_t kStateNumbers = 28;

class CarRacingRenderer {
 public:
  CarRacingRenderer(const py::list& hull, const py::object& wheel, double wheel_half_width,
                    double wheel_radius);

  // quads (n, 4, 2) and colours (n, 3) float64. The colours are looked at anew for every frame.
  void set_track(const py::object& quads, const py::object& colours);
  void set_ground(double half_size, double patch_size, const py::object& background,
                  const py::object& grass);
  // frame (96, 96, 3) or (64, 64, 3) uint8, score (12, 12) uint8.
  void draw(const py::list& state, const py::object& score, const py::object& frame);

 private:
  CarRacingScene scene_;
  py::object colours_;  // keeps what colours_data_ points to
  const Colour* colours_data_ = nullptr;
  bool has_ground_ = false;
};

// Sums of a row's or a column's bytes fit into 32 bits, also times a weight.
constexpr int64_t kMostPixels = 1 << 16;

// frame (rows, columns, 3) and out (out_rows, out_columns, 3) uint8; see `box_resize`.
void py_box_resize(const py::object& frame, const py::object& out);

}  // namespace wmf
