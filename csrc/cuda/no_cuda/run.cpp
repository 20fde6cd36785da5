// Stands in for the kernels where there was no nvcc to build them.
#include "cuda/run.h"

namespace wmf::cuda {

namespace {

constexpr char kReason[] =
    "this build has no CUDA kernels: no nvcc was found when it was made; install the CUDA toolkit "
    "(nvcc in PATH) and build again, with WMF_CUDA=ON to make its absence an error";

[[noreturn]] void refuse() { throw CudaError(kReason); }

}  // namespace

struct CudaModel::State {};
struct CudaMemory::State {};

CudaStatus cuda_status() { return CudaStatus{false, 0, 0, {}, kReason}; }

CudaModel::CudaModel(const MdnRnnWeights&, bool, Precision, int, void*) { refuse(); }
CudaModel::~CudaModel() = default;
CudaModel::CudaModel(CudaModel&& other) noexcept = default;
CudaModel& CudaModel::operator=(CudaModel&& other) noexcept = default;
PackedMdnRnn CudaModel::view() const { refuse(); }
int CudaModel::device() const { refuse(); }
int64_t CudaModel::nbytes() const { refuse(); }

void mdn_rnn_step(const PackedMdnRnn&, const StepArrays&, int, void*) { refuse(); }
void mixture_sample(const SampleArrays&, int, void*) { refuse(); }
void controller_forward(const ControllerArrays&, int, void*) { refuse(); }
DreamPlan plan_dream(const DreamArrays&, int, DreamPlan) { refuse(); }
void dream_rollout(const DreamArrays&, int, void*, DreamPlan) { refuse(); }
bool dream_rollout_from_host(const DreamArrays&, int, const std::function<bool()>&, DreamPlan) {
  refuse();
}

CudaMemory::CudaMemory(int64_t, int) { refuse(); }
CudaMemory::~CudaMemory() = default;
CudaMemory::CudaMemory(CudaMemory&& other) noexcept = default;
CudaMemory& CudaMemory::operator=(CudaMemory&& other) noexcept = default;
void* CudaMemory::get() const { refuse(); }
int64_t CudaMemory::bytes() const { refuse(); }
int CudaMemory::device() const { refuse(); }
void CudaMemory::upload(const void*) { refuse(); }
void CudaMemory::download(void*) const { refuse(); }

bool wait_for(void*, int, const std::function<bool()>&) { refuse(); }
double peak_rate(Precision, int, double) { refuse(); }
double shared_rate(int, double) { refuse(); }
double read_rate(int64_t, int, double) { refuse(); }
std::vector<CudaKernel> kernel_resources(int) { refuse(); }
void philox_words(const uint32_t*, uint64_t, uint32_t*, int64_t, int) { refuse(); }

}  // namespace wmf::cuda
