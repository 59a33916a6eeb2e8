// One node of a session on the CPU: attributes and constants at creation, tensors at every call.
#pragma once

#include <memory>

#include "../dispatch.h"
#include "attributes.h"
#include "norm_op.h"
#include "staging.h"

namespace rmsnorm::ort {

class NormKernel {
 public:
  NormKernel(const NormOp& op, const KernelInfo* info);

  // Safe to call from several threads at once.
  void compute(KernelContext* context) const;

  const Api& api() const { return api_; }

 private:
  void create(const KernelInfo* info);
  void take_constant_scale(const KernelInfo* info);
  void run(KernelContext* context) const;
  Shape axes_to_the_end(const Shape& x) const;
  void check_addends(const Tensor& x, const Tensor& second, const Tensor& bias) const;
  Tensor input(KernelContext* context, size_t index) const;
  Tensor optional_input(KernelContext* context, size_t index) const;
  void* output(KernelContext* context, size_t index, const Shape& shape) const;
  Bytes in_stash_type(const Tensor& scale) const;
  void launch(KernelContext* context, const Problem& problem, const Staging& staging) const;

  const NormOp& op_;
  Api api_;
  std::string node_;
  Attributes attributes_;
  const KernelSet* kernels_ = nullptr;
  Bytes constant_scale_;  // set when the scale is known at creation and not all ones
  bool scale_is_ones_ = false;
};

}  // namespace rmsnorm::ort
