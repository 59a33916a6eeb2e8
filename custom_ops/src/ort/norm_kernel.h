// What one node of a session does on every device: attributes at creation; tensors, shapes and
// layout at every call.
#pragma once

#include "attributes.h"
#include "norm_op.h"

namespace rmsnorm::ort {

class NormKernel {
 public:
  const Api& api() const { return api_; }

 protected:
  // The problem but for its scale, and the tensors that it was made from.
  struct Call {
    Problem problem;
    Tensor x, scale, second, bias;
  };

  NormKernel(const NormOp& op, const KernelInfo* info);

  // Leaves the scale unread where its shape is given.
  void read(KernelContext* context, const Shape* scale_shape, Call* call) const;

  const Value* value_of(KernelContext* context, size_t index) const {
    const Value* value = nullptr;
    api_.call<Slot::KernelContext_GetInput>(context, index, &value);
    return value;
  }

  void* data_of(const Value* value) const {
    void* data = nullptr;
    api_.call<Slot::GetTensorMutableData>(const_cast<Value*>(value), &data);
    return data;
  }

  template <class Body>
  void naming_the_node(Body body) const {
    try {
      body();
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(node_ + error.what());
    }
  }

  const NormOp& op_;
  Api api_;
  std::string node_;
  Attributes attributes_;

 private:
  void check_addends(Dims x, const Tensor& second, const Tensor& bias) const;
  void input(KernelContext* context, size_t index, Tensor* tensor) const;
  void* output(KernelContext* context, size_t index, Dims shape) const;

  size_t outputs_ = 1;  // that the node may have; some of them may be left out
};

}  // namespace rmsnorm::ort
