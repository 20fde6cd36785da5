// Backends, devices and their limits.
#include "bindings/functions.h"
#include "bindings/precision.h"

namespace wmf {

std::string backend_name(const std::string& name) {
  const Level* level = select_backend(name);
  return level != nullptr ? level->name : "cuda";
}

double py_peak_rate(const std::string& precision, const std::string& backend, int threads,
                    double seconds) {
  const Level* level = select_backend(backend);
  const Precision parsed = parse_precision(precision);
  check_precision(parsed, level);
  const int device = level != nullptr ? -1 : select_cuda_device(-1);
  const py::gil_scoped_release release;
  return level != nullptr ? peak_rate(*level->kernels, parsed, threads, seconds)
                          : cuda::peak_rate(parsed, device, seconds);
}

double py_read_rate(int64_t nbytes, const std::string& backend, int threads, double seconds) {
  const Level* level = select_backend(backend);
  const int device = level != nullptr ? -1 : select_cuda_device(-1);
  const py::gil_scoped_release release;
  return level != nullptr ? read_rate(*level->kernels, nbytes, threads, seconds)
                          : cuda::read_rate(nbytes, device, seconds);
}

double py_shared_rate(int device, double seconds) {
  const int found = select_cuda_device(device);
  const py::gil_scoped_release release;
  return cuda::shared_rate(found, seconds);
}

int py_place_of(const py::object& object) { return ArrayView(object).place(); }

py::dict py_cuda_status() {
  const cuda::CudaStatus status = cuda::cuda_status();
  py::list devices;
  for (const cuda::CudaDevice& device : status.devices) {
    py::dict about;
    about["index"] = device.index;
    about["name"] = device.name;
    about["sm"] = device.sm;
    about["processors"] = device.processors;
    about["memory"] = device.memory;
    about["reason"] = device.reason;
    devices.append(about);
  }
  py::dict about;
  about["built"] = status.built;
  about["driver"] = status.driver;
  about["runtime"] = status.runtime;
  about["devices"] = devices;
  about["reason"] = status.reason;
  return about;
}

py::list py_cuda_kernels(int device) {
  py::list kernels;
  for (const cuda::CudaKernel& kernel : cuda::kernel_resources(select_cuda_device(device))) {
    py::dict about;
    about["name"] = kernel.name;
    about["registers"] = kernel.registers;
    about["local_bytes"] = kernel.local_bytes;
    kernels.append(about);
  }
  return kernels;
}

}  // namespace wmf
