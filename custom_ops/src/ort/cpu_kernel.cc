#include "cpu_kernel.h"

#include <algorithm>

#include "launch.h"

namespace rmsnorm::ort {
namespace {

template <class S>
bool all_ones(const void* values, int64_t count) {
  const S* value = static_cast<const S*>(values);
  return std::all_of(value, value + count, [](S v) { return v == S(1); });
}

}  // namespace

CpuKernel::CpuKernel(const NormOp& op, const KernelInfo* info) : NormKernel(op, info) {
  naming_the_node([&] {
    std::string error;
    kernels_ = select_kernel_set(&error);
    if (!kernels_) throw InvalidArgument(error);
    take_constant_scale(info);
  });
}

void CpuKernel::take_constant_scale(const KernelInfo* info) {
  int is_constant = 0;
  const Value* value = nullptr;
  constexpr auto kSlot = Slot::KernelInfoGetConstantInput_tensor;
  const bool known = api_.try_call<kSlot>(info, op_.is.ports.scale, &is_constant, &value);
  if (!known || !is_constant || !value) return;
  Tensor scale;
  read_tensor(api_, value, &scale);
  scale_is_constant_ = true;
  scale_shape_.assign(scale.shape.begin(), scale.shape.end());
  Bytes converted = in_stash_type(scale);
  const void* values = converted ? converted.get() : scale.data;
  const int64_t count = scale.shape.elements();
  scale_is_ones_ = attributes_.settings.stash == Element::kFloat64 ? all_ones<double>(values, count)
                                                                   : all_ones<float>(values, count);
  if (!scale_is_ones_) constant_scale_ = std::move(converted);
}

// Null when the scale already has the stash type.
Bytes CpuKernel::in_stash_type(const Tensor& scale) const {
  const Element stash = attributes_.settings.stash;
  if (op_.scale_type == stash) return nullptr;
  const int64_t count = scale.shape.elements();
  Bytes bytes = make_bytes(count * size_of(stash));
  kernels_->convert(op_.scale_type, scale.data, stash, bytes.get(), count);
  return bytes;
}

void CpuKernel::compute(KernelContext* context) const {
  naming_the_node([&] {
    Call call;
    read(context, scale_is_constant_ ? &scale_shape_ : nullptr, &call);
    Problem& problem = call.problem;
    if (problem.layout.items() == 0) return;
    Bytes converted;
    if (!scale_is_constant_) {
      converted = in_stash_type(call.scale);
      problem.scale = converted ? converted.get() : call.scale.data;
    } else if (constant_scale_) {
      problem.scale = constant_scale_.get();
    } else if (!scale_is_ones_) {
      problem.scale = data_of(value_of(context, op_.is.ports.scale));
    }
    problem.streaming = should_stream(problem);
    Staging staging(*kernels_);
    const Tensor &second = call.second, &bias = call.bias;
    if (problem.second && (bias.data || second.shape != call.x.shape)) {
      staging.add(&problem, second.shape.elements(), bias.data, bias.shape.elements());
    }
    if (op_.result != op_.type) staging.retype(&problem, op_.result);
    launch(api_, context, *kernels_, problem, staging);
  });
}

}  // namespace rmsnorm::ort
