#include "cuda_kernel.h"

#include "../cuda/launch.h"

namespace rmsnorm::ort {

void CudaKernel::compute(KernelContext* context) const {
  naming_the_node([&] {
    Call call;
    read(context, nullptr, &call);
    Problem& problem = call.problem;
    if (problem.layout.items() == 0) return;
    problem.scale = call.scale.data;
    void* stream = nullptr;
    api_.call<Slot::KernelContext_GetGPUComputeStream>(context, &stream);
    const std::string error = cuda::launch(problem, op_.scale_type, stream);
    if (!error.empty()) throw std::runtime_error(node_ + error);
  });
}

}  // namespace rmsnorm::ort
