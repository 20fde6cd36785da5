// Arrays of any library, seen without copying anything. Most calls are small ones with NumPy arrays
// or torch tensors, so those are asked for little; all others go by DLPack.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "bindings/dlpack.h"

namespace wmf {

namespace py = pybind11;

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

// Where an array's memory is: -1 is the CPU, 0 ... are CUDA devices.
using Place = int;
constexpr Place kCpu = -1, kElsewhere = -2;

std::string place_text(Place place);  // "the CPU", "cuda:0"

// The library that an array belongs to. kOwn is our own DeviceArray; kOther is whoever has DLPack
// or
// __cuda_array_interface__.
enum class Library { kNone, kNumpy, kTorch, kCupy, kOwn, kOther };

class ArrayView {
 public:
  // What kind of array it is and where; of NumPy's and torch's everything.
  explicit ArrayView(py::handle object) : object_(object) {
    if (py::isinstance<py::array>(object)) {
      const auto array = py::reinterpret_borrow<py::array>(object);
      library_ = Library::kNumpy;
      data_ = const_cast<void*>(array.data());
      contiguous_ = (array.flags() & py::array::c_style) != 0;
      writeable_ = array.writeable();
      ndim_ = array.ndim();
      for (int64_t i = 0; i < ndim_ && i < kMaxAxes; ++i) shape_[i] = array.shape(i);
    } else if (is_torch(object)) {
      library_ = Library::kTorch;
      static const Name is_cpu("is_cpu"), data_ptr("data_ptr"), is_contiguous("is_contiguous"),
          shape_name("shape");
      if (!is_cpu.of(object).is(py::handle(Py_True)) && !find_torch_device()) return;
      data_ = PyLong_AsVoidPtr(data_ptr.called_on(object).ptr());
      contiguous_ = is_contiguous.called_on(object).is(py::handle(Py_True));
      const auto shape = py::reinterpret_steal<py::tuple>(shape_name.of(object).release());
      ndim_ = static_cast<int64_t>(shape.size());
      for (int64_t i = 0; i < ndim_ && i < kMaxAxes; ++i) {
        shape_[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), i));
      }
    } else {
      find_other();
    }
  }

  bool is_array() const { return library_ != Library::kNone; }
  Library library() const { return library_; }
  Place place() const { return place_; }

  // Sees the rest, for use in `stream` (of the array's device; null is the default stream). What
  // must live until that use is over comes into `held`.
  void see(void* stream, std::vector<py::object>* held) {
    if (library_ == Library::kNumpy || (library_ == Library::kTorch && place_ == kCpu)) return;
    see_other(stream, held);
  }
  // The same for a torch tensor that is used in torch's own current stream: all is seen already.

  bool contiguous() const { return contiguous_; }
  bool writeable() const { return writeable_; }
  int64_t ndim() const { return ndim_; }
  int64_t shape(int64_t axis) const { return axis < ndim_ && axis < kMaxAxes ? shape_[axis] : 0; }
  int64_t size() const;
  void* data() const { return data_; }

  template <class T>
  bool holds() const {
    if (library_ == Library::kNumpy) return py::isinstance<py::array_t<T>>(object_);
    if (library_ == Library::kTorch) {
      static const Name dtype("dtype");
      constexpr bool known = std::is_same<T, float>::value || std::is_same<T, uint8_t>::value;
      return known && dtype.of(object_).is(torch_dtype<T>());
    }
    const uint8_t code = std::is_floating_point<T>::value ? kDLFloat
                         : std::is_unsigned<T>::value     ? kDLUInt
                                                          : kDLInt;
    return dtype_.code == code && dtype_.bits == 8 * sizeof(T) && dtype_.lanes == 1;
  }

  std::string type_text() const;
  std::string dtype_text() const;
  std::string device_text() const;
  std::string shape_text() const;

 private:
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
  template <class T>
  static py::handle torch_dtype() {
    static PyObject* dtype = nullptr;
    if (dtype == nullptr) {
      const char* name = std::is_same<T, float>::value ? "float32" : "uint8";
      dtype = PyObject_GetAttrString(py::module_::import("torch").ptr(), name);
    }
    return dtype;  // kept for ever
  }
  bool find_torch_device();  // false if it is neither on the CPU nor on a CUDA device
  void find_other();
  void see_other(void* stream, std::vector<py::object>* held);
  void see_dlpack(void* stream, std::vector<py::object>* held);
  void see_cuda_array_interface(void* stream, std::vector<py::object>* held);
  void take(const DLTensor& tensor);

  py::handle object_;
  Library library_ = Library::kNone;
  Place place_ = kCpu;
  bool contiguous_ = true, writeable_ = true;
  int64_t ndim_ = 0;
  int64_t shape_[kMaxAxes] = {};
  void* data_ = nullptr;
  DLDataType dtype_ = {};  // not of NumPy's and torch's
};

// The current stream of a library on a device; null, the default stream, of those that have none.
void* current_stream(Library library, Place device);

}  // namespace wmf
