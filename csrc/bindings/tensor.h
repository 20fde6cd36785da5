// Every check of an array at the border, and the messages for those that fail.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "bindings/array_view.h"

namespace wmf {

// One axis of an expected shape: its letter in the documentation, and its size, or kAny.
struct Axis {
  const char* letter;
  int64_t size;
};
constexpr int64_t kAny = -1;

inline std::string shape_text(std::initializer_list<Axis> axes) {
  std::string letters, sizes;
  for (const Axis& axis : axes) {
    const char* comma = letters.empty() ? "" : ", ";
    letters += comma + std::string(axis.letter);
    sizes += comma + (axis.size == kAny ? "any" : std::to_string(axis.size));
  }
  return "(" + letters + ") = (" + sizes + (axes.size() == 1 ? ",)" : ")");
}

// Where a call computes: where its model or its backend does, or, with neither, where its arrays
// are. `place` is kAnywhere or a Place.
constexpr Place kAnywhere = -3;
struct Target {
  Place place;
  const char* why;  // "where the model is"
};

// The arrays of one call. The first one decides for all: they are where it is, and results are of
// its library. On a CUDA device they are used in that library's current stream; other libraries'
// arrays are brought into its order as DLPack says.
class Border {
 public:
  explicit Border(Target target) : target_(target) {}
  Border(const Border&) = delete;
  Border& operator=(const Border&) = delete;

  // Checks kind, device, dtype, shape and layout; returns the view of what the object still owns.
  template <class T>
  ArrayView read(const py::object& object, const char* name, std::initializer_list<Axis> axes) {
    const auto dtype = [] { return std::string(py::str(py::dtype::of<T>())); };
    const auto expected = [&] {
      return std::string(name) + ": expected a " + dtype() + " array of shape " + shape_text(axes);
    };
    ArrayView array(object);
    if (!array.is_array()) {
      throw py::type_error(expected() + " (NumPy, torch, or whatever has DLPack), got " +
                           array.type_text());
    }
    if (library_ == Library::kNone && array.place() == kCpu && target_.place < 0) {
      library_ = array.library();
    } else if (library_ == Library::kNone || array.place() != place_) {
      const std::string problem = enter(array, name);
      if (!problem.empty()) throw py::value_error(expected() + problem);
    }
    if (first_ == nullptr) first_ = name;
    if (array.library() > Library::kTorch || (place_ != kCpu && array.library() != library_)) {
      array.see(stream_, &held_);
    }
    if (!array.holds<T>()) {
      throw py::type_error(expected() + ", got dtype " + array.dtype_text() + "; use " + name +
                           (array.library() == Library::kTorch
                                ? std::string(".to(torch.") + dtype() + ")"
                                : ".astype(\"" + dtype() + "\")"));
    }
    bool fits = array.ndim() == static_cast<int64_t>(axes.size());
    bool empty = false;
    int64_t i = 0;
    for (const Axis& axis : axes) {
      if (!fits) break;
      const int64_t size = array.shape(i++);
      fits = axis.size == kAny || axis.size == size;
      empty = empty || size == 0;
    }
    if (!fits) throw py::value_error(expected() + ", got shape " + array.shape_text());
    if (empty) {
      throw py::value_error(expected() + " with no axis of size 0, got shape " +
                            array.shape_text());
    }
    if (!array.contiguous()) {
      throw py::value_error(expected() +
                            " in C order, got one with gaps or another order; use "
                            "np.ascontiguousarray(" +
                            name + ") or " + name + ".contiguous()");
    }
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) {
      throw py::value_error(expected() + ", got one whose memory is not aligned; use a copy of " +
                            name);
    }
    return array;
  }

  const float* read_floats(const py::object& object, const char* name,
                           std::initializer_list<Axis> axes) {
    return static_cast<const float*>(read<float>(object, name, axes).data());
  }

  // For arrays that are read once and used for long: parameters, first latents. Values on a device
  // are not checked: the call would have to wait for them.
  ArrayView read_finite(const py::object& object, const char* name,
                        std::initializer_list<Axis> axes) {
    const ArrayView array = read<float>(object, name, axes);
    if (array.place() != kCpu) return array;
    const auto* data = static_cast<const float*>(array.data());
    const int64_t n = array.size();
    for (int64_t i = 0; i < n; ++i) {
      if (!std::isfinite(data[i])) {
        throw py::value_error(std::string(name) + ": expected finite numbers, got " +
                              std::to_string(data[i]) + " at flat index " + std::to_string(i) +
                              "; did the training diverge?");
      }
    }
    return array;
  }

  float* write_floats(const py::object& object, const char* name,
                      std::initializer_list<Axis> axes) {
    const ArrayView array = read<float>(object, name, axes);
    if (!array.writeable()) {
      throw py::value_error(std::string(name) +
                            ": expected an array to write to, got a read-only one");
    }
    note_written(object, array);
    return static_cast<float*>(array.data());
  }

  // A new array of the first one's library, where that is; *data is its memory. T is float or
  // int32_t. For torch on the CPU it is a NumPy array (ops/arguments.py makes a tensor of it).
  template <class T>
  py::object new_output(std::initializer_list<Axis> axes, T** data) {
    std::vector<int64_t> shape;
    for (const Axis& axis : axes) shape.push_back(axis.size);
    if (place_ == kCpu && library_ <= Library::kTorch) {
      py::array_t<T> array(std::vector<py::ssize_t>(shape.begin(), shape.end()));
      *data = array.mutable_data();
      return std::move(array);
    }
    void* memory = nullptr;
    py::object array = new_other(std::is_same<T, float>::value, std::move(shape), &memory);
    *data = static_cast<T*>(memory);
    return array;
  }

  // `object` to write to, or a new array if that is None.
  py::object output(const py::object& object, const char* name, std::initializer_list<Axis> axes,
                    float** data) {
    if (object.is_none()) return new_output(axes, data);
    *data = write_floats(object, name, axes);
    return object;
  }

  // Known once an array has been read.
  Place place() const { return place_; }  // of the arrays
  Place computes_on() const { return target_.place == kAnywhere ? place_ : target_.place; }
  bool staged() const { return place_ == kCpu && computes_on() != kCpu; }
  void* stream() const { return stream_; }
  void compute_on(Place place) { target_.place = place; }  // for a target that was kAnywhere

  // After the launch: what was borrowed is kept until the device is done with it, and our own
  // outputs know when they are written. Nothing waits.
  void launched() {
    if (!held_.empty() || !written_.empty()) keep_until_done();
  }

 private:
  // Takes the first array's place and stream; refuses one that is elsewhere. What is wrong, or "".
  std::string enter(const ArrayView& array, const char* name);
  py::object new_other(bool is_float, std::vector<int64_t> shape, void** memory);
  void note_written(const py::object& object, const ArrayView& array);
  void keep_until_done();

  Target target_;
  Library library_ = Library::kNone;  // of the first array
  Place place_ = kCpu;
  void* stream_ = nullptr;
  const char* first_ = nullptr;
  std::vector<py::object> held_, written_;
};

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

// For functions that work on the CPU and keep nothing: the object itself owns what is returned.
template <class T>
ArrayView read(const py::object& object, const char* name, std::initializer_list<Axis> axes) {
  return Border(Target{kCpu, "where it is read"}).read<T>(object, name, axes);
}

inline const float* read_finite(const py::object& object, const char* name,
                                std::initializer_list<Axis> axes) {
  Border border(Target{kCpu, "where it is read"});
  return static_cast<const float*>(border.read_finite(object, name, axes).data());
}

// The size of an axis that an array decides for the others; 0 if it has no such axis (read() then
// says so).
inline int64_t axis_size(const py::object& object, int64_t axis) {
  return ArrayView(object).shape(axis);
}

using FloatArray = py::array_t<float>;

}  // namespace wmf
