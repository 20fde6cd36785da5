#include "bindings/array_view.h"

#include <cstring>

#include "bindings/device_array.h"

namespace wmf {

namespace {

// The stream's number in DLPack and __cuda_array_interface__: 1 is the default stream.
int64_t stream_number(void* stream) {
  return stream == nullptr ? 1 : static_cast<int64_t>(reinterpret_cast<std::intptr_t>(stream));
}

bool in_c_order(int64_t ndim, const int64_t* shape, const int64_t* strides, int64_t unit) {
  int64_t expected = unit;
  for (int64_t i = ndim - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

bool is_cupy(py::handle object) {
  static PyObject* array_type = nullptr;
  if (array_type == nullptr) {
    PyObject* cupy = PyDict_GetItemString(PyImport_GetModuleDict(), "cupy");
    if (cupy == nullptr || !py::hasattr(cupy, "ndarray")) return false;
    array_type = PyObject_GetAttrString(cupy, "ndarray");  // kept for ever
  }
  return PyObject_TypeCheck(object.ptr(), reinterpret_cast<PyTypeObject*>(array_type)) != 0;
}

}  // namespace

std::string place_text(Place place) {
  return place == kCpu ? "the CPU" : "cuda:" + std::to_string(place);
}

int64_t ArrayView::size() const {
  int64_t n = 1;
  for (int64_t i = 0; i < ndim_ && i < kMaxAxes; ++i) n *= shape_[i];
  return n;
}

std::string ArrayView::type_text() const {
  return std::string(py::str(py::type::handle_of(object_).attr("__name__")));
}

std::string ArrayView::dtype_text() const {
  if (py::hasattr(object_, "dtype")) return std::string(py::str(object_.attr("dtype")));
  const char* kind = dtype_.code == kDLFloat ? "float" : dtype_.code == kDLUInt ? "uint" : "int";
  return kind + std::to_string(dtype_.bits);
}

std::string ArrayView::device_text() const {
  if (place_ == kElsewhere && py::hasattr(object_, "device")) {
    return std::string(py::str(object_.attr("device")));
  }
  return place_ == kElsewhere ? "another device" : place_text(place_);
}

std::string ArrayView::shape_text() const {
  return std::string(py::str(py::tuple(object_.attr("shape"))));
}

bool ArrayView::find_torch_device() {
  static const Name is_cuda("is_cuda"), get_device("get_device");
  if (!is_cuda.of(object_).is(py::handle(Py_True))) {
    place_ = kElsewhere;
    return false;
  }
  place_ = get_device.called_on(object_).cast<int>();
  return true;
}

void ArrayView::find_other() {
  if (py::isinstance<DeviceArray>(object_)) {
    library_ = Library::kOwn;
    place_ = object_.cast<const DeviceArray&>().place();
  } else if (py::hasattr(object_, "__dlpack_device__") && py::hasattr(object_, "__dlpack__")) {
    library_ = is_cupy(object_) ? Library::kCupy : Library::kOther;
    const auto device = py::tuple(object_.attr("__dlpack_device__")());
    const int type = device[0].cast<int>(), id = device[1].cast<int>();
    const bool on_cuda = type == kDLCUDA || type == kDLCUDAManaged;
    const bool on_cpu = type == kDLCPU || type == kDLCUDAHost;
    place_ = on_cuda ? id : on_cpu ? kCpu : kElsewhere;
  } else if (py::hasattr(object_, "__cuda_array_interface__")) {
    library_ = Library::kOther;
    const auto about = py::dict(object_.attr("__cuda_array_interface__"));
    place_ = cuda::device_of(PyLong_AsVoidPtr(py::tuple(about["data"])[0].ptr()));
    if (place_ < 0) place_ = kElsewhere;
  }
}

void ArrayView::see_other(void* stream, std::vector<py::object>* held) {
  if (library_ == Library::kOwn) {
    const auto& array = object_.cast<const DeviceArray&>();
    dtype_ = array.dtype();
    data_ = array.data();
    ndim_ = static_cast<int64_t>(array.shape().size());
    for (int64_t i = 0; i < ndim_ && i < kMaxAxes; ++i) {
      shape_[i] = array.shape()[static_cast<size_t>(i)];
    }
    if (place_ != kCpu) {
      array.hold_back(stream);
      held->push_back(py::reinterpret_borrow<py::object>(object_));
    }
  } else if (py::hasattr(object_, "__dlpack__")) {
    see_dlpack(stream, held);
  } else {
    see_cuda_array_interface(stream, held);
  }
}

void ArrayView::see_dlpack(void* stream, std::vector<py::object>* held) {
  py::object array = py::reinterpret_borrow<py::object>(object_);
  if (library_ == Library::kTorch) array = array.attr("detach")();  // a gradient is no obstacle
  py::dict arguments;
  if (place_ != kCpu) arguments["stream"] = stream_number(stream);
  arguments["max_version"] = py::make_tuple(1, 0);
  const py::object dlpack = array.attr("__dlpack__");
  py::object capsule;
  try {
    capsule = dlpack(**arguments);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    arguments.attr("pop")("max_version");  // made before DLPack 1.0
    capsule = dlpack(**arguments);
  }
  // The capsule is not taken over: it calls its deleter when we let go of it.
  if (PyCapsule_IsValid(capsule.ptr(), kDLVersionedName) != 0) {
    const auto* managed = static_cast<const DLManagedTensorVersioned*>(
        PyCapsule_GetPointer(capsule.ptr(), kDLVersionedName));
    if (managed->major > 1) {
      throw py::type_error("expected DLPack 0 or 1, got version " + std::to_string(managed->major) +
                           " from " + type_text());
    }
    writeable_ = (managed->flags & kDLReadOnly) == 0;
    take(managed->tensor);
  } else if (PyCapsule_IsValid(capsule.ptr(), kDLName) != 0) {
    take(static_cast<const DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), kDLName))->tensor);
  } else {
    throw py::type_error("expected a DLPack capsule of " + type_text() + ".__dlpack__, got " +
                         std::string(py::str(py::type::handle_of(capsule))));
  }
  held->push_back(std::move(capsule));
}

void ArrayView::take(const DLTensor& tensor) {
  dtype_ = tensor.dtype;
  data_ = static_cast<char*>(tensor.data) + tensor.byte_offset;
  ndim_ = tensor.ndim;
  for (int64_t i = 0; i < ndim_ && i < kMaxAxes; ++i) shape_[i] = tensor.shape[i];
  contiguous_ = tensor.strides == nullptr || in_c_order(ndim_, tensor.shape, tensor.strides, 1);
}

void ArrayView::see_cuda_array_interface(void* stream, std::vector<py::object>* held) {
  const auto about = py::dict(object_.attr("__cuda_array_interface__"));
  const auto typestr = about["typestr"].cast<std::string>();  // "<f4"
  if (typestr.size() >= 3 && typestr[0] != '>') {
    dtype_.code = typestr[1] == 'f' ? kDLFloat : typestr[1] == 'u' ? kDLUInt : kDLInt;
    dtype_.bits = static_cast<uint8_t>(8 * std::stoi(typestr.substr(2)));
    dtype_.lanes = typestr[1] == 'f' || typestr[1] == 'u' || typestr[1] == 'i' ? 1 : 0;
  }
  const auto data = py::tuple(about["data"]);
  data_ = PyLong_AsVoidPtr(data[0].ptr());
  writeable_ = !data[1].cast<bool>();
  const auto shape = about["shape"].cast<std::vector<int64_t>>();
  ndim_ = static_cast<int64_t>(shape.size());
  for (int64_t i = 0; i < ndim_ && i < kMaxAxes; ++i) shape_[i] = shape[static_cast<size_t>(i)];
  if (about.contains("strides") && !about["strides"].is_none()) {  // in bytes
    const auto strides = about["strides"].cast<std::vector<int64_t>>();
    contiguous_ = in_c_order(ndim_, shape.data(), strides.data(), dtype_.bits / 8);
  }
  if (about.contains("stream") && !about["stream"].is_none()) {
    void* theirs = PyLong_AsVoidPtr(about["stream"].ptr());  // 1 and 2 are handles to CUDA as well
    cuda::Mark(theirs, place_).hold_back(stream);
  }
  held->push_back(py::reinterpret_borrow<py::object>(object_));
}

void* current_stream(Library library, Place device) {
  py::object stream;
  if (library == Library::kTorch) {
    static const py::handle current =
        py::object(py::module_::import("torch").attr("cuda").attr("current_stream")).release();
    static const Name handle("cuda_stream");
    stream = handle.of(current(device));
  } else if (library == Library::kCupy) {
    static const py::handle current =
        py::object(py::module_::import("cupy").attr("cuda").attr("get_current_stream")).release();
    stream = current(device).attr("ptr");
  } else {
    return nullptr;
  }
  void* found = PyLong_AsVoidPtr(stream.ptr());
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  return found;
}

}  // namespace wmf
