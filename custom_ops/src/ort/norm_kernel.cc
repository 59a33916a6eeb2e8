#include "norm_kernel.h"

#include <algorithm>

#include "launch.h"

namespace rmsnorm::ort {
namespace {

template <class S>
bool all_ones(const void* values, int64_t count) {
  const S* value = static_cast<const S*>(values);
  return std::all_of(value, value + count, [](S v) { return v == S(1); });
}

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
  try {
    create(info);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(node_ + error.what());
  }
}

void NormKernel::create(const KernelInfo* info) {
  attributes_ = read_attributes(info, op_);
  // Which dimensions a negative axis reduces does not depend on the rank.
  if (attributes_.to_the_end && attributes_.axes[0] < 0) {
    attributes_.axes = axes_to_the_end(attributes_.axes[0], 0);
    attributes_.to_the_end = false;
  }
  api_.call<Slot::KernelInfo_GetOutputCount>(info, &outputs_);
  refuse_mean(api_, info, op_.is.ports, outputs_);
  std::string error;
  kernels_ = select_kernel_set(&error);
  if (!kernels_) throw InvalidArgument(error);
  take_constant_scale(info);
}

void NormKernel::take_constant_scale(const KernelInfo* info) {
  int is_constant = 0;
  const Value* value = nullptr;
  constexpr auto kSlot = Slot::KernelInfoGetConstantInput_tensor;
  const bool known = api_.try_call<kSlot>(info, op_.is.ports.scale, &is_constant, &value);
  if (!known || !is_constant || !value) return;
  const Tensor scale = read_tensor(api_, value);
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
Bytes NormKernel::in_stash_type(const Tensor& scale) const {
  const Element stash = attributes_.settings.stash;
  if (op_.scale_type == stash) return nullptr;
  const int64_t count = scale.shape.elements();
  Bytes bytes = make_bytes(count * size_of(stash));
  kernels_->convert(op_.scale_type, scale.data, stash, bytes.get(), count);
  return bytes;
}

void NormKernel::compute(KernelContext* context) const {
  try {
    run(context);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(node_ + error.what());
  }
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

void NormKernel::run(KernelContext* context) const {
  const Ports& ports = op_.is.ports;
  const Tensor x = input(context, 0);
  Tensor scale, second, bias;
  if (!scale_is_constant_) scale = input(context, ports.scale);
  Problem problem;
  problem.form = op_.is.form;
  problem.type = op_.type;
  problem.settings = attributes_.settings;
  problem.x = x.data;
  if (ports.second != Ports::kNone) {
    second = input(context, ports.second);
    if (ports.bias != Ports::kNone) bias = optional_input(context, ports.bias);
    check_addends(x.shape, second, bias);
    problem.second = second.data;
  }
  Shape by_rank;
  if (attributes_.to_the_end) by_rank = axes_to_the_end(attributes_.axes[0], x.shape.size());
  const Dims axes(attributes_.to_the_end ? by_rank : attributes_.axes);
  const Dims scale_shape = scale_is_constant_ ? Dims(scale_shape_) : scale.shape;
  const std::string error = plan_layout(x.shape, axes, scale_shape, &problem.layout);
  if (!error.empty()) throw InvalidArgument(error);
  problem.y = output(context, 0, x.shape);
  if (ports.sum < outputs_) problem.sum = output(context, ports.sum, x.shape);
  if (ports.inverse < outputs_) {
    const Shape means = one_each(x.shape, axes);
    problem.inverse = static_cast<float*>(output(context, ports.inverse, means));
  }
  if (problem.layout.items() == 0) return;
  Bytes converted;
  if (!scale_is_constant_) {
    converted = in_stash_type(scale);
    problem.scale = converted ? converted.get() : scale.data;
  } else if (constant_scale_) {
    problem.scale = constant_scale_.get();
  } else if (!scale_is_ones_) {
    problem.scale = data_of(value_of(context, ports.scale));
  }
  problem.streaming = should_stream(problem);
  Staging staging(*kernels_);
  if (problem.second && (bias.data || second.shape != x.shape)) {
    staging.add(&problem, second.shape.elements(), bias.data, bias.shape.elements());
  }
  if (op_.result != op_.type) staging.retype(&problem, op_.result);
  launch(api_, context, *kernels_, problem, staging);
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
