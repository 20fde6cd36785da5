// What becomes of a controller's output.
#pragma once

namespace wmf {
namespace {

// One action. y is the output after tanh, in [-1, 1]; a NaN stays one.
WMF_INLINE float squash(float y, float scale, float shift, float low, float high) {
  const float squashed = scale * y + shift;
  return squashed < low ? low : squashed > high ? high : squashed;
}

}  // namespace
}  // namespace wmf
