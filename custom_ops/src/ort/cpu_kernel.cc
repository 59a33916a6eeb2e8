#include "cpu_kernel.h"

#include "launch.h"

namespace rmsnorm::ort {
namespace {

// A smaller constant scale is kept even where it has the stash type as it is: onnxruntime would be
// asked for it twice at every call, 15 to 20 of the 280 ns of a node of one short row. Copies of
// larger ones cost more than that where nodes share a scale (64 nodes of 1 x 4096: 1.2 x slower).
constexpr int64_t kMostKeptBytes = 1024;

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
  const int64_t bytes = scale.shape.elements() * size_of(attributes_.settings.stash);
  if (!scale_has_stash_type() || bytes <= kMostKeptBytes) {
    scale_shape_.assign(scale.shape.begin(), scale.shape.end());
    kept_scale_ = in_stash_type(scale);
    constant_scale_ = scale.data;
  }
}

bool CpuKernel::scale_has_stash_type() const {
  return op_.scale_type == attributes_.settings.stash;
}

Bytes CpuKernel::in_stash_type(const Tensor& scale) const {
  const Element stash = attributes_.settings.stash;
  const int64_t count = scale.shape.elements();
  Bytes bytes = make_bytes(count * size_of(stash));
  kernels_->convert(op_.scale_type, scale.data, stash, bytes.get(), count);
  return bytes;
}

void CpuKernel::compute(KernelContext* context) const {
  naming_the_node([&] {
    Call call;
    read(context, kept_scale_ ? &scale_shape_ : nullptr, &call);
    Problem& problem = call.problem;
    if (problem.layout.items() == 0) return;
    Bytes converted;
    if (kept_scale_) {
      problem.scale = kept_scale_.get();
    } else if (scale_has_stash_type()) {
      problem.scale = call.scale.data;
    } else {
      converted = in_stash_type(call.scale);
      problem.scale = converted.get();
    }
    problem.streaming = should_stream(problem, company_.is_alone());
    Staging staging(*kernels_);
    const Tensor &second = call.second, &bias = call.bias;
    if (problem.second && (bias.data || second.shape != call.x.shape)) {
      staging.add(&problem, second.shape.elements(), bias.data, bias.shape.elements());
    }
    if (op_.result != op_.type) staging.retype(&problem, op_.result);
    if (op_.scale_type == problem.type) {
      problem.own_scale = kept_scale_ ? constant_scale_ : call.scale.data;
    }
    launch(api_, context, *kernels_, problem, staging, &company_);
  });
}

}  // namespace rmsnorm::ort
