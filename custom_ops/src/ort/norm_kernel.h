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
  void check_addends(Dims x, const Tensor& second, const Tensor& bias) const;
  const Value* value_of(KernelContext* context, size_t index) const;
  void* data_of(const Value* value) const;
  Tensor input(KernelContext* context, size_t index) const;
  Tensor optional_input(KernelContext* context, size_t index) const;
  void* output(KernelContext* context, size_t index, Dims shape) const;
  Bytes in_stash_type(const Tensor& scale) const;

  const NormOp& op_;
  Api api_;
  std::string node_;
  Attributes attributes_;
  const KernelSet* kernels_ = nullptr;
  size_t outputs_ = 1;  // that the node may have; some of them may be left out
  // What is known of a constant scale. Its values are onnxruntime's where they have the stash type.
  bool scale_is_constant_ = false;
  bool scale_is_ones_ = false;
  Shape scale_shape_;
  Bytes constant_scale_;
};

}  // namespace rmsnorm::ort
