// A node on an NVIDIA GPU: every tensor is there, the scale too, so nothing of it is read here.
#pragma once

#include "norm_kernel.h"

namespace rmsnorm::ort {

class CudaKernel : public NormKernel {
 public:
  CudaKernel(const NormOp& op, const KernelInfo* info) : NormKernel(op, info) {}

  // Enqueues on the stream of the session. Safe to call from several threads at once.
  void compute(KernelContext* context) const;
};

}  // namespace rmsnorm::ort
