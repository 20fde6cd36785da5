// DLPack 1.1: how array libraries show each other their memory (github.com/dmlc/dlpack). The layout
// of these structs is its ABI. A capsule named "dltensor" holds a DLManagedTensor, one named
// "dltensor_versioned" a DLManagedTensorVersioned; until somebody takes it over by renaming the
// capsule, the capsule itself calls the deleter when it goes.
#pragma once

#include <cstdint>

namespace wmf {

constexpr int32_t kDLCPU = 1, kDLCUDA = 2, kDLCUDAHost = 3, kDLCUDAManaged = 13;
constexpr uint8_t kDLInt = 0, kDLUInt = 1, kDLFloat = 2;

struct DLDevice {
  int32_t type;
  int32_t id;
};

struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;    // (ndim)
  int64_t* strides;  // (ndim), in elements; null means C order
  uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};

struct DLManagedTensorVersioned {
  uint32_t major, minor;
  void* context;
  void (*deleter)(DLManagedTensorVersioned*);
  uint64_t flags;
  DLTensor tensor;
};

constexpr uint64_t kDLReadOnly = 1;

constexpr const char* kDLName = "dltensor";
constexpr const char* kDLVersionedName = "dltensor_versioned";

}  // namespace wmf
