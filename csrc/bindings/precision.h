// The names of precisions, and which backend has products for which.
#pragma once

#include <string>
#include <utility>

#include "bindings/functions.h"

namespace wmf {

constexpr std::pair<const char*, Precision> kPrecisions[] = {{"fp32", Precision::kFp32},
                                                             {"fp16", Precision::kFp16},
                                                             {"bf16", Precision::kBf16},
                                                             {"int8", Precision::kInt8}};

inline Precision parse_precision(const std::string& name) {
  for (const auto& [known, precision] : kPrecisions) {
    if (name == known) return precision;
  }
  throw py::value_error("precision: expected 'fp32', 'fp16', 'bf16' or 'int8', got '" + name + "'");
}

inline std::string name_of(Precision precision) {
  for (const auto& [name, known] : kPrecisions) {
    if (precision == known) return name;
  }
  return "";
}

// Refuses what a backend has no products for. `level` is null for CUDA.
inline void check_precision(Precision precision, const Level* level) {
  if (level != nullptr && precision == Precision::kFp16) {
    throw py::value_error("precision: expected 'fp32', 'bf16' or 'int8' for backend '" +
                          std::string(level->name) + "', got 'fp16', which is for backend 'cuda'");
  }
  if (level == nullptr && precision != Precision::kFp32 && precision != Precision::kFp16) {
    throw py::value_error("precision: expected 'fp32' or 'fp16' for backend 'cuda', got '" +
                          std::string(precision == Precision::kBf16 ? "bf16" : "int8") + "'");
  }
}

}  // namespace wmf
