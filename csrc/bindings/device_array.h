// An array of our own, on a CUDA device or the CPU: what results are where the caller's library has
// no way to make an array that we may write to (JAX), or where there is no library at all. It can
// be given to any library by DLPack or __cuda_array_interface__.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bindings/array_view.h"
#include "bindings/dlpack.h"
#include "cpu/run.h"
#include "cuda/run.h"
#include "cuda/streams.h"

namespace wmf {

class DeviceArray {
 public:
  // Not initialised. Elements are float32 or int32.
  DeviceArray(DLDataType dtype, std::vector<int64_t> shape, Place place);

  // A copy of a NumPy array (float32 or int32, any shape, C order) on a device.
  static std::shared_ptr<DeviceArray> copy_of(const py::array& array, Place place);

  Place place() const { return place_; }
  DLDataType dtype() const { return dtype_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t size() const;
  void* data() const;

  // Where the work that writes it ends; whoever reads it in another stream comes after that.
  void written(std::shared_ptr<const cuda::Mark> mark) { mark_ = std::move(mark); }
  void hold_back(void* stream) const;

  // For Python.
  py::array numpy() const;  // a copy; waits until it is written
  std::string dtype_name() const;
  py::tuple shape_tuple() const;
  std::string device_name() const;
  py::dict cuda_array_interface() const;
  py::tuple dlpack_device() const;

 private:
  DLDataType dtype_;
  std::vector<int64_t> shape_;
  Place place_;
  std::optional<AlignedFloats> host_;
  std::optional<cuda::CudaMemory> device_;
  std::shared_ptr<const cuda::Mark> mark_;
};

// A capsule that keeps the array alive; the arguments are those of __dlpack__.
py::capsule export_dlpack(const std::shared_ptr<DeviceArray>& array, const py::object& stream,
                          const py::object& max_version, const py::object& dl_device,
                          const py::object& copy);

}  // namespace wmf
