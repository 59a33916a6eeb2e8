// A node on the CPU: a constant scale is read and converted at creation.
#pragma once

#include "../dispatch.h"
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
  Bytes in_stash_type(const Tensor& scale) const;

  const KernelSet* kernels_ = nullptr;
  // What is known of a constant scale. Its values are onnxruntime's where they have the stash type.
  bool scale_is_constant_ = false;
  bool scale_is_ones_ = false;
  Shape scale_shape_;
  Bytes constant_scale_;
};

}  // namespace rmsnorm::ort
