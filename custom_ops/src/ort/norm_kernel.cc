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

NormKernel::Call NormKernel::read(KernelContext* context, const Shape* scale_shape) const {
  const Ports& ports = op_.is.ports;
  Call call;
  Problem& problem = call.problem;
  call.x = input(context, 0);
  const Dims x = call.x.shape;
  if (!scale_shape) call.scale = input(context, ports.scale);
  problem.form = op_.is.form;
  problem.type = op_.type;
  problem.settings = attributes_.settings;
  problem.x = call.x.data;
  if (ports.second != Ports::kNone) {
    call.second = input(context, ports.second);
    if (ports.bias != Ports::kNone) call.bias = optional_input(context, ports.bias);
    check_addends(x, call.second, call.bias);
    problem.second = call.second.data;
  }
  Shape by_rank;
  if (attributes_.to_the_end) by_rank = axes_to_the_end(attributes_.axes[0], x.size());
  const Dims axes(attributes_.to_the_end ? by_rank : attributes_.axes);
  const std::string error =
      plan_layout(x, axes, scale_shape ? Dims(*scale_shape) : call.scale.shape, &problem.layout);
  if (!error.empty()) throw InvalidArgument(error);
  problem.y = output(context, 0, x);
  if (ports.sum < outputs_) problem.sum = output(context, ports.sum, x);
  if (ports.inverse < outputs_) {
    problem.inverse = static_cast<float*>(output(context, ports.inverse, one_each(x, axes)));
  }
  return call;
}

const Value* NormKernel::value_of(KernelContext* context, size_t index) const {
  const Value* value = nullptr;
  api_.call<Slot::KernelContext_GetInput>(context, index, &value);
  return value;
}

void* NormKernel::data_of(const Value* value) const {
  void* data = nullptr;
  api_.call<Slot::GetTensorMutableData>(const_cast<Value*>(value), &data);
  return data;
}

Tensor NormKernel::optional_input(KernelContext* context, size_t index) const {
  const Value* value = value_of(context, index);
  return value ? read_tensor(api_, value) : Tensor{};
}

Tensor NormKernel::input(KernelContext* context, size_t index) const {
  const Value* value = value_of(context, index);
  if (!value) {
    throw InvalidArgument("expected input " + std::to_string(index) + ", got none");
  }
  return read_tensor(api_, value);
}

// Null when the node leaves this output out.
void* NormKernel::output(KernelContext* context, size_t index, Dims shape) const {
  Value* value = nullptr;
  api_.call<Slot::KernelContext_GetOutput>(context, index, shape.begin(), shape.size(), &value);
  return value ? data_of(value) : nullptr;
}

}  // namespace rmsnorm::ort
