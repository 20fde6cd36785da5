// Every check of an array at the border, and the messages for those that fail.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace wmf {

namespace py = pybind11;

// One axis of an expected shape: its letter in the documentation, and its size, or kAny.
struct Axis {
  const char* letter;
  int64_t size;
};
constexpr int64_t kAny = -1;

inline std::string shape_text(const py::array& array) {
  std::string text = "(";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(array.shape(i));
  }
  return text + (array.ndim() == 1 ? ",)" : ")");
}

inline std::string shape_text(std::initializer_list<Axis> axes) {
  std::string letters, sizes;
  for (const Axis& axis : axes) {
    const char* comma = letters.empty() ? "" : ", ";
    letters += comma + std::string(axis.letter);
    sizes += comma + (axis.size == kAny ? "any" : std::to_string(axis.size));
  }
  return "(" + letters + ") = (" + sizes + (axes.size() == 1 ? ",)" : ")");
}

// Checks dtype, shape and layout; returns the data, which the array still owns.
template <class T>
const T* read(const py::object& object, const char* name, std::initializer_list<Axis> axes) {
  // Text is only made for an error: most calls are small ones.
  const auto dtype = [] { return std::string(py::str(py::dtype::of<T>())); };
  const auto expected = [&] {
    return std::string(name) + ": expected a " + dtype() + " array of shape " + shape_text(axes);
  };
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error(expected() + ", got " +
                         std::string(py::str(py::type::of(object).attr("__name__"))));
  }
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!py::isinstance<py::array_t<T>>(array)) {
    throw py::type_error(expected() + ", got dtype " + std::string(py::str(array.dtype())) +
                         "; use " + name + ".astype(\"" + dtype() + "\")");
  }
  bool fits = array.ndim() == static_cast<py::ssize_t>(axes.size());
  bool empty = false;
  py::ssize_t i = 0;
  for (const Axis& axis : axes) {
    if (!fits) break;
    const int64_t size = array.shape(i++);
    fits = axis.size == kAny || axis.size == size;
    empty = empty || size == 0;
  }
  if (!fits) throw py::value_error(expected() + ", got shape " + shape_text(array));
  if (empty) {
    throw py::value_error(expected() + " with no axis of size 0, got shape " + shape_text(array));
  }
  if ((array.flags() & py::array::c_style) == 0) {
    throw py::value_error(expected() +
                          " in C order, got one with gaps or another order; use "
                          "np.ascontiguousarray(" +
                          name + ") or " + name + ".contiguous()");
  }
  if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) {
    throw py::value_error(expected() + ", got one whose memory is not aligned; use " + name +
                          ".copy()");
  }
  return static_cast<const T*>(array.data());
}

inline const float* read_floats(const py::object& object, const char* name,
                                std::initializer_list<Axis> axes) {
  return read<float>(object, name, axes);
}

// An array to write to: `object`, or a new one if that is None. *data is its memory.
inline py::object output(const py::object& object, const char* name,
                         std::initializer_list<Axis> axes, float** data) {
  if (object.is_none()) {
    std::vector<py::ssize_t> shape;
    for (const Axis& axis : axes) shape.push_back(axis.size);
    py::array_t<float> array(std::move(shape));
    *data = array.mutable_data();
    return std::move(array);
  }
  read<float>(object, name, axes);
  auto array = py::reinterpret_borrow<py::array>(object);
  if (!array.writeable()) {
    throw py::value_error(std::string(name) +
                          ": expected an array to write to, got a read-only one");
  }
  *data = static_cast<float*>(array.mutable_data());
  return object;
}

// Outputs that were given must not lie on top of inputs, which are still to be read, nor of one
// another. `in_place` says which pairs may be the very same array.
struct Extent {
  const char* name;
  const float* begin;
  int64_t size;
};

inline void refuse_overlap(std::initializer_list<Extent> outputs,
                           std::initializer_list<Extent> inputs, bool in_place_allowed = false) {
  const auto overlap = [](const Extent& a, const Extent& b) {
    return a.begin != nullptr && b.begin != nullptr && a.begin < b.begin + b.size &&
           b.begin < a.begin + a.size;
  };
  const auto refuse = [](const Extent& a, const Extent& b) {
    throw py::value_error(std::string("out: expected arrays with memory of their own, got ") +
                          a.name + " overlapping " + b.name);
  };
  for (const Extent* out = outputs.begin(); out != outputs.end(); ++out) {
    for (const Extent& in : inputs) {
      const bool same = in_place_allowed && out->name == in.name && out->begin == in.begin;
      if (!same && overlap(*out, in)) refuse(*out, in);
    }
    for (const Extent* other = outputs.begin(); other != out; ++other) {
      if (overlap(*out, *other)) refuse(*out, *other);
    }
  }
}

// For what is read once and used for long: parameters, first latents.
inline const float* read_finite(const py::object& object, const char* name,
                                std::initializer_list<Axis> axes) {
  const float* data = read_floats(object, name, axes);
  const py::ssize_t n = py::reinterpret_borrow<py::array>(object).size();
  for (py::ssize_t i = 0; i < n; ++i) {
    if (!std::isfinite(data[i])) {
      throw py::value_error(std::string(name) + ": expected finite numbers, got " +
                            std::to_string(data[i]) + " at flat index " + std::to_string(i) +
                            "; did the training diverge?");
    }
  }
  return data;
}

// The size of an axis that an array decides for the others; 0 if it has no such axis (read() then
// says so).
inline int64_t axis_size(const py::object& object, py::ssize_t axis) {
  if (!py::isinstance<py::array>(object)) return 0;
  const auto array = py::reinterpret_borrow<py::array>(object);
  return axis < array.ndim() ? array.shape(axis) : 0;
}

using FloatArray = py::array_t<float>;

inline FloatArray new_floats(std::vector<py::ssize_t> shape) {
  return FloatArray(std::move(shape));
}

}  // namespace wmf
