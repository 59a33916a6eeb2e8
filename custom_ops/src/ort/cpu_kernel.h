// A node on the CPU: a constant scale is read and converted at creation.
#pragma once

#include "../dispatch.h"
#include "company.h"
#include "norm_kernel.h"
#include "staging.h"

namespace rmsnorm::ort {

class CpuKernel : public NormKernel {
 public:
  CpuKernel(const NormOp& op, const KernelInfo* info);

  // Safe to call from several threads at once.
  void compute(KernelContext* context) const;

 private:
  void take_constant_scale(const KernelInfo* info);
  bool scale_has_stash_type() const;
  Bytes in_stash_type(const Tensor& scale) const;  // a copy

  const KernelSet* kernels_ = nullptr;
  // A constant scale in the stash type; null where it is read at every call.
  Bytes kept_scale_;
  const void* constant_scale_ = nullptr;  // as it is; the session holds it as long as its nodes
  Shape scale_shape_;
  mutable Company company_;
};

}  // namespace rmsnorm::ort
