// Stands in for cuda/streams.cpp where there is no CUDA.
#include "cuda/streams.h"

#include "cuda/run.h"

namespace wmf::cuda {

namespace {
[[noreturn]] void refuse() { throw CudaError(cuda_status().reason); }
}  // namespace

struct Mark::State {};

Mark::Mark(void*, int) { refuse(); }
Mark::~Mark() = default;
bool Mark::passed() const noexcept { return true; }
void Mark::hold_back(void*) const { refuse(); }

int device_of(const void*) { refuse(); }

}  // namespace wmf::cuda
