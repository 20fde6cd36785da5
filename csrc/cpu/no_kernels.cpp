// Stands in for kernels.cpp where the compiler's target has no such level.
#include "cpu/kernels.h"

namespace wmf {

extern const Kernels WMF_KERNELS;
const Kernels WMF_KERNELS = {};

}  // namespace wmf
