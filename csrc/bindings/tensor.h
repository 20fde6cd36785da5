// Every check of an array at the border, and the messages for those that fail.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <vector>

namespace wmf {

namespace py = pybind11;

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

// The name of an attribute, looked up as fast as Python itself does. Kept for ever.
class Name {
 public:
  explicit Name(const char* name) : name_(PyUnicode_InternFromString(name)) {}
  py::object of(py::handle object) const { return checked(PyObject_GetAttr(object.ptr(), name_)); }
  py::object called_on(py::handle object) const {
    return checked(PyObject_CallMethodNoArgs(object.ptr(), name_));
  }

 private:
  static py::object checked(PyObject* result) {
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
  }
  PyObject* name_;
};

// A NumPy array or a torch tensor, seen without copying anything. Most calls are small ones, so
// this asks for little and makes text for errors only.
class ArrayView {
 public:
  // Whether the object is of a kind that can be seen.
  explicit ArrayView(py::handle object) : object_(object) {
    if (py::isinstance<py::array>(object)) {
      const auto array = py::reinterpret_borrow<py::array>(object);
      kind_ = Kind::kNumpy;
      data_ = const_cast<void*>(array.data());
      contiguous_ = (array.flags() & py::array::c_style) != 0;
      writeable_ = array.writeable();
      ndim_ = array.ndim();
      for (int64_t i = 0; i < ndim_ && i < kMaxAxes; ++i) shape_[i] = array.shape(i);
    } else if (is_torch(object)) {
      kind_ = Kind::kTorch;
      static const Name is_cpu("is_cpu"), data_ptr("data_ptr"), is_contiguous("is_contiguous"),
          shape_name("shape");
      on_cpu_ = is_cpu.of(object).is(py::handle(Py_True));
      if (!on_cpu_) return;
      data_ = PyLong_AsVoidPtr(data_ptr.called_on(object).ptr());
      contiguous_ = is_contiguous.called_on(object).is(py::handle(Py_True));
      const auto shape = py::reinterpret_steal<py::tuple>(shape_name.of(object).release());
      ndim_ = static_cast<int64_t>(shape.size());
      for (int64_t i = 0; i < ndim_ && i < kMaxAxes; ++i) {
        shape_[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), i));
      }
    }
  }

  bool is_array() const { return kind_ != Kind::kOther; }
  bool is_torch() const { return kind_ == Kind::kTorch; }
  bool on_cpu() const { return on_cpu_; }
  bool contiguous() const { return contiguous_; }
  bool writeable() const { return writeable_; }
  int64_t ndim() const { return ndim_; }
  int64_t shape(int64_t axis) const { return axis < ndim_ && axis < kMaxAxes ? shape_[axis] : 0; }
  void* data() const { return data_; }

  template <class T>
  bool holds() const {
    if (kind_ == Kind::kNumpy) return py::isinstance<py::array_t<T>>(object_);
    static const Name dtype("dtype");
    return std::is_same<T, float>::value && dtype.of(object_).is(torch_float32());
  }

  std::string type_text() const {
    return std::string(py::str(py::type::handle_of(object_).attr("__name__")));
  }
  std::string dtype_text() const { return std::string(py::str(object_.attr("dtype"))); }
  std::string device_text() const { return std::string(py::str(object_.attr("device"))); }
  std::string shape_text() const { return std::string(py::str(py::tuple(object_.attr("shape")))); }

 private:
  enum class Kind { kOther, kNumpy, kTorch };
  static constexpr int64_t kMaxAxes = 4;

  // If the object is a tensor then torch is loaded; whoever has no torch never pays for importing
  // it.
  static bool is_torch(py::handle object) {
    static PyObject* tensor_type = nullptr;
    if (tensor_type == nullptr) {
      PyObject* torch = PyDict_GetItemString(PyImport_GetModuleDict(), "torch");
      if (torch == nullptr || !py::hasattr(torch, "Tensor")) return false;
      tensor_type = PyObject_GetAttrString(torch, "Tensor");  // kept for ever
    }
    return PyObject_TypeCheck(object.ptr(), reinterpret_cast<PyTypeObject*>(tensor_type)) != 0;
  }
  static py::handle torch_float32() {
    static PyObject* float32 = nullptr;
    if (float32 == nullptr) {
      float32 = PyObject_GetAttrString(py::module_::import("torch").ptr(), "float32");
    }
    return float32;  // kept for ever
  }

  py::handle object_;
  Kind kind_ = Kind::kOther;
  bool on_cpu_ = true, contiguous_ = true, writeable_ = true;
  int64_t ndim_ = 0;
  int64_t shape_[kMaxAxes] = {};
  void* data_ = nullptr;
};

// Checks kind, device, dtype, shape and layout; returns the view of what the object still owns.
template <class T>
ArrayView read(const py::object& object, const char* name, std::initializer_list<Axis> axes) {
  const auto dtype = [] { return std::string(py::str(py::dtype::of<T>())); };
  const auto expected = [&] {
    return std::string(name) + ": expected a " + dtype() + " array of shape " + shape_text(axes);
  };
  const ArrayView array(object);
  if (!array.is_array()) {
    throw py::type_error(expected() + " (NumPy or torch), got " + array.type_text());
  }
  if (!array.on_cpu()) {
    throw py::value_error(expected() + " on the CPU, got one on " + array.device_text() + "; use " +
                          name + ".cpu()");
  }
  if (!array.holds<T>()) {
    throw py::type_error(expected() + ", got dtype " + array.dtype_text() + "; use " + name +
                         (array.is_torch() ? std::string(".to(torch.") + dtype() + ")"
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
    throw py::value_error(expected() + " with no axis of size 0, got shape " + array.shape_text());
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

inline const float* read_floats(const py::object& object, const char* name,
                                std::initializer_list<Axis> axes) {
  return static_cast<const float*>(read<float>(object, name, axes).data());
}

// A new NumPy array; *data is its memory.
inline py::object new_output(std::initializer_list<Axis> axes, float** data) {
  std::vector<py::ssize_t> shape;
  for (const Axis& axis : axes) shape.push_back(axis.size);
  py::array_t<float> array(std::move(shape));
  *data = array.mutable_data();
  return std::move(array);
}

inline float* write_floats(const py::object& object, const char* name,
                           std::initializer_list<Axis> axes) {
  const ArrayView array = read<float>(object, name, axes);
  if (!array.writeable()) {
    throw py::value_error(std::string(name) +
                          ": expected an array to write to, got a read-only one");
  }
  return static_cast<float*>(array.data());
}

// `object` to write to, or a new array if that is None.
inline py::object output(const py::object& object, const char* name,
                         std::initializer_list<Axis> axes, float** data) {
  if (object.is_none()) return new_output(axes, data);
  *data = write_floats(object, name, axes);
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
  const ArrayView array = read<float>(object, name, axes);
  const auto* data = static_cast<const float*>(array.data());
  int64_t n = 1;
  for (int64_t i = 0; i < array.ndim(); ++i) n *= array.shape(i);
  for (int64_t i = 0; i < n; ++i) {
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
inline int64_t axis_size(const py::object& object, int64_t axis) {
  return ArrayView(object).shape(axis);
}

using FloatArray = py::array_t<float>;

inline FloatArray new_floats(std::vector<py::ssize_t> shape) {
  return FloatArray(std::move(shape));
}

}  // namespace wmf
