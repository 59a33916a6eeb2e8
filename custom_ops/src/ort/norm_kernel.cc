#include "norm_kernel.h"

namespace rmsnorm::ort {
namespace {

// onnxruntime leaves such an output unwritten.
void refuse_mean(const Api& api, const KernelInfo* info, const Ports& ports, size_t outputs) {
  size_t size = 0;
  if (ports.mean >= outputs) return;
  api.try_call<Slot::KernelInfo_GetOutputName>(info, ports.mean, static_cast<char*>(nullptr),
                                               &size);
  if (size > 1) throw InvalidArgument("expected no use of the output mean: an RMS norm has none");
}

// A built-in operator has `axis`, and all after it are reduced too.
Shape axes_to_the_end(int64_t axis, size_t rank) {
  Shape axes;
  for (const int64_t end = axis < 0 ? 0 : int64_t(rank); axis < end || axes.empty(); ++axis) {
    axes.push_back(axis);
  }
  return axes;
}

// The shape of one value per norm.
Shape one_each(Dims x, Dims axes) {
  Shape shape(x.begin(), x.end());
  for (const int64_t axis : axes) shape[size_t(axis < 0 ? axis + int64_t(x.size()) : axis)] = 1;
  return shape;
}

// Of the innermost dimensions of x, leading ones aside: repeats over the others.
bool repeats_over(Dims shape, Dims x) {
  while (!shape.empty() && shape[0] == 1) shape = Dims(shape.data + 1, shape.count - 1);
  return shape.size() <= x.size() && shape == Dims(x.end() - shape.size(), shape.size());
}

}  // namespace

NormKernel::NormKernel(const NormOp& op, const KernelInfo* info) : op_(op), api_(op.api) {
  node_ = std::string(op.is.spec->name) + " node '" + node_name(api_, info) + "': ";
  naming_the_node([&] {
    attributes_ = read_attributes(info, op_);
    // Which dimensions a negative axis reduces does not depend on the rank.
    if (attributes_.to_the_end && attributes_.axes[0] < 0) {
      attributes_.axes = axes_to_the_end(attributes_.axes[0], 0);
      attributes_.to_the_end = false;
    }
    api_.call<Slot::KernelInfo_GetOutputCount>(info, &outputs_);
    refuse_mean(api_, info, op_.is.ports, outputs_);
  });
}

void NormKernel::check_addends(Dims x, const Tensor& second, const Tensor& bias) const {
  if (second.shape != x && !(op_.is.built_in && repeats_over(second.shape, x))) {
    const char* name = op_.is.form == Form::kSkip ? "skip" : "gate";
    throw InvalidArgument(std::string("expected ") + name + " of the shape of X, " + to_text(x) +
                          ", got " + to_text(second.shape));
  }
  if (bias.data && !repeats_over(bias.shape, x)) {
    throw InvalidArgument("expected a bias of the innermost dimensions of X, " + to_text(x) +
                          ", got " + to_text(bias.shape));
  }
}

inline void NormKernel::input(KernelContext* context, size_t index, Tensor* tensor) const {
  const Value* value = value_of(context, index);
  if (!value) throw InvalidArgument("expected input " + std::to_string(index) + ", got none");
  read_tensor(api_, value, tensor);
}

// Null when the node leaves this output out.
inline void* NormKernel::output(KernelContext* context, size_t index, Dims shape) const {
  Value* value = nullptr;
  api_.call<Slot::KernelContext_GetOutput>(context, index, shape.begin(), shape.size(), &value);
  return value ? data_of(value) : nullptr;
}

void NormKernel::read(KernelContext* context, const Shape* scale_shape, Call* call) const {
  const Ports& ports = op_.is.ports;
  Tensor &x = call->x, &scale = call->scale, &second = call->second, &bias = call->bias;
  input(context, 0, &x);
  if (!scale_shape) input(context, ports.scale, &scale);
  Problem& problem = call->problem;
  problem.form = op_.is.form;
  problem.type = op_.type;
  problem.settings = attributes_.settings;
  problem.x = x.data;
  if (ports.second != Ports::kNone) {
    input(context, ports.second, &second);
    const Value* addend = ports.bias == Ports::kNone ? nullptr : value_of(context, ports.bias);
    if (addend) read_tensor(api_, addend, &bias);
    check_addends(x.shape, second, bias);
    problem.second = second.data;
  }
  Shape by_rank;
  if (attributes_.to_the_end) by_rank = axes_to_the_end(attributes_.axes[0], x.shape.size());
  const Dims axes(attributes_.to_the_end ? by_rank : attributes_.axes);
  const std::string error =
      plan_layout(x.shape, axes, scale_shape ? Dims(*scale_shape) : scale.shape, &problem.layout);
  if (!error.empty()) throw InvalidArgument(error);
  problem.y = output(context, 0, x.shape);
  if (ports.sum < outputs_) problem.sum = output(context, ports.sum, x.shape);
  if (ports.inverse < outputs_) {
    const Shape means = one_each(x.shape, axes);
    problem.inverse = static_cast<float*>(output(context, ports.inverse, means));
  }
}

}  // namespace rmsnorm::ort
