#include "bindings/device_array.h"

#include <cstring>

namespace wmf {

namespace {

int64_t product(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

// What a capsule owns: the struct that it shows, the shape and strides that this points to, and a
// hold on the memory.
template <class Managed>
struct Exported {
  Managed managed;
  std::vector<int64_t> shape, strides;
  std::shared_ptr<DeviceArray> array;

  static void destroy(Managed* managed) { delete static_cast<Exported*>(managed->context); }
};

template <class Managed>
py::capsule make_capsule(const std::shared_ptr<DeviceArray>& array, const char* name) {
  auto owned = std::make_unique<Exported<Managed>>();
  owned->array = array;
  owned->shape = array->shape();
  owned->strides.resize(owned->shape.size());
  int64_t stride = 1;
  for (size_t i = owned->shape.size(); i-- > 0;) {
    owned->strides[i] = stride;
    stride *= owned->shape[i];
  }
  const bool on_cpu = array->place() == kCpu;
  DLTensor& tensor = owned->managed.tensor;
  tensor.data = array->data();
  tensor.device = {on_cpu ? kDLCPU : kDLCUDA, on_cpu ? 0 : array->place()};
  tensor.ndim = static_cast<int32_t>(owned->shape.size());
  tensor.dtype = array->dtype();
  tensor.shape = owned->shape.data();
  tensor.strides = owned->strides.data();
  tensor.byte_offset = 0;
  owned->managed.context = owned.get();
  owned->managed.deleter = Exported<Managed>::destroy;
  // If nobody has taken the capsule over (by renaming it), it has to let go itself.
  PyObject* capsule = PyCapsule_New(&owned->managed, name, [](PyObject* self) {
    constexpr bool versioned = std::is_same<Managed, DLManagedTensorVersioned>::value;
    const char* own_name = versioned ? kDLVersionedName : kDLName;
    if (PyCapsule_IsValid(self, own_name) == 0) return;
    auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(self, own_name));
    managed->deleter(managed);
  });
  if (capsule == nullptr) throw py::error_already_set();
  owned.release();
  return py::reinterpret_steal<py::capsule>(capsule);
}

bool ask_python() {
  const py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

}  // namespace

DeviceArray::DeviceArray(DLDataType dtype, std::vector<int64_t> shape, Place place)
    : dtype_(dtype), shape_(std::move(shape)), place_(place) {
  if (place_ == kCpu) {
    host_.emplace(product(shape_));
  } else {
    device_.emplace(4 * product(shape_), place_);
  }
}

std::shared_ptr<DeviceArray> DeviceArray::copy_of(const py::array& array, Place place) {
  const bool is_float = py::isinstance<py::array_t<float>>(array);
  if (!is_float && !py::isinstance<py::array_t<int32_t>>(array)) {
    throw py::type_error("array: expected float32 or int32, got dtype " +
                         std::string(py::str(array.dtype())));
  }
  if (array.size() == 0 || (array.flags() & py::array::c_style) == 0) {
    throw py::value_error("array: expected one in C order with no axis of size 0, got shape " +
                          std::string(py::str(array.attr("shape"))));
  }
  std::vector<int64_t> shape(array.shape(), array.shape() + array.ndim());
  const DLDataType dtype{is_float ? kDLFloat : kDLInt, 32, 1};
  auto copy = std::make_shared<DeviceArray>(dtype, std::move(shape), place);
  if (place == kCpu) {
    std::memcpy(copy->data(), array.data(), static_cast<size_t>(array.nbytes()));
  } else {
    const py::gil_scoped_release release;
    copy->device_->upload(array.data());
  }
  return copy;
}

int64_t DeviceArray::size() const { return product(shape_); }

void* DeviceArray::data() const { return host_ ? host_->get() : device_->get(); }

void DeviceArray::hold_back(void* stream) const {
  if (mark_) mark_->hold_back(stream);
}

py::array DeviceArray::numpy() const {
  const std::vector<py::ssize_t> shape(shape_.begin(), shape_.end());
  py::array copy(dtype_.code == kDLFloat ? py::dtype::of<float>() : py::dtype::of<int32_t>(),
                 shape);
  if (host_) {
    std::memcpy(copy.mutable_data(), host_->get(), static_cast<size_t>(copy.nbytes()));
    return copy;
  }
  bool waited = true;
  {
    const py::gil_scoped_release release;
    hold_back(nullptr);
    waited = cuda::wait_for(nullptr, place_, ask_python);
    if (waited) device_->download(copy.mutable_data());
  }
  if (!waited) throw py::error_already_set();
  return copy;
}

std::string DeviceArray::dtype_name() const {
  return dtype_.code == kDLFloat ? "float32" : "int32";
}

py::tuple DeviceArray::shape_tuple() const { return py::tuple(py::cast(shape_)); }

std::string DeviceArray::device_name() const { return place_ == kCpu ? "cpu" : place_text(place_); }

py::dict DeviceArray::cuda_array_interface() const {
  if (place_ == kCpu) throw py::attribute_error("this array is on the CPU");
  hold_back(nullptr);  // what is in the default stream from now on sees it written
  py::dict about;
  about["shape"] = shape_tuple();
  about["typestr"] = dtype_.code == kDLFloat ? "<f4" : "<i4";
  about["data"] = py::make_tuple(reinterpret_cast<std::uintptr_t>(data()), false);
  about["strides"] = py::none();
  about["stream"] = 1;
  about["version"] = 3;
  return about;
}

py::tuple DeviceArray::dlpack_device() const {
  const bool on_cpu = place_ == kCpu;
  return py::make_tuple(on_cpu ? kDLCPU : kDLCUDA, on_cpu ? 0 : place_);
}

py::capsule export_dlpack(const std::shared_ptr<DeviceArray>& array, const py::object& stream,
                          const py::object& max_version, const py::object& dl_device,
                          const py::object& copy) {
  const auto refuse = [](const std::string& message) {
    PyErr_SetString(PyExc_BufferError, message.c_str());
    throw py::error_already_set();
  };
  if (!dl_device.is_none() && !py::tuple(dl_device).equal(array->dlpack_device())) {
    refuse("dl_device: expected the array's own, " + std::string(py::str(array->dlpack_device())) +
           ", got " + std::string(py::str(dl_device)));
  }
  if (!copy.is_none() && copy.cast<bool>()) refuse("copy: expected None or False, got True");
  if (array->place() == kCpu) {
    if (!stream.is_none()) {
      throw py::value_error("stream: expected None for an array on the CPU, got " +
                            std::string(py::str(stream)));
    }
  } else {
    const int64_t number = stream.is_none() ? 1 : stream.cast<int64_t>();
    if (number == 0 || number < -1) {
      throw py::value_error("stream: expected None, -1, 1, 2 or a stream's handle, got " +
                            std::to_string(number));
    }
    // 1 and 2, the two default streams, are handles to CUDA as well.
    if (number != -1) array->hold_back(reinterpret_cast<void*>(static_cast<intptr_t>(number)));
  }
  const bool versioned = !max_version.is_none() && py::tuple(max_version)[0].cast<int64_t>() >= 1;
  if (!versioned) return make_capsule<DLManagedTensor>(array, kDLName);
  py::capsule capsule = make_capsule<DLManagedTensorVersioned>(array, kDLVersionedName);
  auto* managed =
      static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule.ptr(), kDLVersionedName));
  managed->major = 1;
  managed->minor = 0;
  managed->flags = 0;
  return capsule;
}

}  // namespace wmf
