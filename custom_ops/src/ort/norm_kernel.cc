#include "norm_kernel.h"

#include <algorithm>

namespace rmsnorm::ort {
namespace {

// A task this small still costs more to compute than to hand to a thread.
constexpr int64_t kTaskBytes = 32 * 1024;
// Less than this, read and written, is done before a second thread has woken up.
constexpr int64_t kSerialBytes = 64 * 1024;

template <class S>
bool all_ones(const void* values, int64_t count) {
  const S* value = static_cast<const S*>(values);
  return std::all_of(value, value + count, [](S v) { return v == S(1); });
}

// onnxruntime leaves such an output unwritten.
void refuse_mean(const Api& api, const KernelInfo* info, const Ports& ports) {
  size_t count = 0, size = 0;
  api.call<Slot::KernelInfo_GetOutputCount>(info, &count);
  if (ports.mean >= count) return;
  api.try_call<Slot::KernelInfo_GetOutputName>(info, ports.mean, static_cast<char*>(nullptr),
                                               &size);
  if (size > 1) throw InvalidArgument("expected no use of the output mean: an RMS norm has none");
}

// The shape of one value per norm.
Shape one_each(const Shape& x, const Shape& axes) {
  Shape shape = x;
  for (const int64_t axis : axes) shape[size_t(axis < 0 ? axis + int64_t(x.size()) : axis)] = 1;
  return shape;
}

// Of the innermost dimensions of x, leading ones aside: repeats over the others.
bool repeats_over(const Shape& shape, const Shape& x) {
  Shape tail = shape;
  while (!tail.empty() && tail.front() == 1) tail.erase(tail.begin());
  return tail.size() <= x.size() && std::equal(tail.rbegin(), tail.rend(), x.rbegin());
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
  refuse_mean(api_, info, op_.is.ports);
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
  Bytes converted = in_stash_type(scale);
  const void* values = converted ? converted.get() : scale.data;
  scale_is_ones_ = attributes_.settings.stash == Element::kFloat64
                       ? all_ones<double>(values, scale.elements())
                       : all_ones<float>(values, scale.elements());
  if (!scale_is_ones_) constant_scale_ = std::move(converted);
}

// Null when the scale already has the stash type.
Bytes NormKernel::in_stash_type(const Tensor& scale) const {
  const Element stash = attributes_.settings.stash;
  if (op_.scale_type == stash) return nullptr;
  Bytes bytes(new char[size_t(scale.elements() * size_of(stash))]);
  kernels_->convert(op_.scale_type, scale.data, stash, bytes.get(), scale.elements());
  return bytes;
}

void NormKernel::compute(KernelContext* context) const {
  try {
    run(context);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(node_ + error.what());
  }
}

// A built-in operator has `axis`, and its meaning depends on the rank.
Shape NormKernel::axes_to_the_end(const Shape& x) const {
  Shape axes = attributes_.axes;
  const int64_t end = axes[0] < 0 ? 0 : int64_t(x.size());
  while (axes.back() + 1 < end) axes.push_back(axes.back() + 1);
  return axes;
}

void NormKernel::check_addends(const Tensor& x, const Tensor& second, const Tensor& bias) const {
  if (second.shape != x.shape && !(op_.is.built_in && repeats_over(second.shape, x.shape))) {
    const char* name = op_.is.form == Form::kSkip ? "skip" : "gate";
    throw InvalidArgument(std::string("expected ") + name + " of the shape of X, " +
                          to_text(x.shape) + ", got " + to_text(second.shape));
  }
  if (bias.data && !repeats_over(bias.shape, x.shape)) {
    throw InvalidArgument("expected a bias of the innermost dimensions of X, " + to_text(x.shape) +
                          ", got " + to_text(bias.shape));
  }
}

void NormKernel::run(KernelContext* context) const {
  const Ports& ports = op_.is.ports;
  const Tensor x = input(context, 0);
  const Tensor scale = input(context, ports.scale);
  Problem problem;
  problem.form = op_.is.form;
  problem.type = op_.type;
  problem.settings = attributes_.settings;
  problem.x = x.data;
  Tensor second, bias;
  if (ports.second != Ports::kNone) {
    second = input(context, ports.second);
    if (ports.bias != Ports::kNone) bias = optional_input(context, ports.bias);
    check_addends(x, second, bias);
    problem.second = second.data;
  }
  Shape all_axes;
  if (attributes_.to_the_end) all_axes = axes_to_the_end(x.shape);
  const Shape& axes = attributes_.to_the_end ? all_axes : attributes_.axes;
  auto plan = plan_layout(x.shape, axes, scale.shape);
  if (const auto* error = std::get_if<std::string>(&plan)) throw InvalidArgument(*error);
  problem.layout = std::get<Layout>(plan);
  problem.y = output(context, 0, x.shape);
  if (ports.sum != Ports::kNone) problem.sum = output(context, ports.sum, x.shape);
  if (ports.inverse != Ports::kNone) {
    const Shape means = one_each(x.shape, axes);
    problem.inverse = static_cast<float*>(output(context, ports.inverse, means));
  }
  if (problem.layout.items() == 0) return;
  Bytes converted;
  if (constant_scale_) {
    problem.scale = constant_scale_.get();
  } else if (!scale_is_ones_) {
    converted = in_stash_type(scale);
    problem.scale = converted ? converted.get() : scale.data;
  }
  problem.streaming = should_stream(problem);
  Staging staging(*kernels_);
  if (problem.second && (bias.data || second.shape != x.shape)) {
    staging.add(&problem, second.elements(), bias.data, bias.elements());
  }
  if (op_.result != op_.type) staging.retype(&problem, op_.result);
  launch(context, problem, staging);
}

void NormKernel::launch(KernelContext* context, const Problem& problem,
                        const Staging& staging) const {
  struct Work {
    const Staging& staging;
    const Problem& problem;
    int64_t items;
    int64_t per_task;
  };
  const int64_t items = problem.layout.items();
  const int64_t item_bytes = problem.layout.item_elements() * size_of(problem.type);
  Work work{staging, problem, items, std::max<int64_t>(1, kTaskBytes / item_bytes)};
  const int64_t tasks = (items + work.per_task - 1) / work.per_task;
  if (tasks == 1 || 2 * items * item_bytes < kSerialBytes || !staging.splits(problem.layout)) {
    staging.run(problem, 0, items);
    return;
  }
  const auto task = [](void* data, size_t index) {
    const Work& w = *static_cast<const Work*>(data);
    const int64_t begin = int64_t(index) * w.per_task;
    w.staging.run(w.problem, begin, std::min(begin + w.per_task, w.items));
  };
  api_.call<Slot::KernelContext_ParallelFor>(context, +task, size_t(tasks), size_t(0), &work);
}

Tensor NormKernel::optional_input(KernelContext* context, size_t index) const {
  const Value* value = nullptr;
  api_.call<Slot::KernelContext_GetInput>(context, index, &value);
  return value ? read_tensor(api_, value) : Tensor{};
}

Tensor NormKernel::input(KernelContext* context, size_t index) const {
  const Value* value = nullptr;
  api_.call<Slot::KernelContext_GetInput>(context, index, &value);
  if (!value) {
    throw InvalidArgument("expected input " + std::to_string(index) + ", got none");
  }
  return read_tensor(api_, value);
}

// Null when the node leaves this output out.
void* NormKernel::output(KernelContext* context, size_t index, const Shape& shape) const {
  size_t count = 0;
  if (index > 0) api_.call<Slot::KernelContext_GetOutputCount>(context, &count);
  if (index > 0 && index >= count) return nullptr;
  Value* value = nullptr;
  api_.call<Slot::KernelContext_GetOutput>(context, index, shape.data(), shape.size(), &value);
  void* data = nullptr;
  if (value) api_.call<Slot::GetTensorMutableData>(value, &data);
  return data;
}

}  // namespace rmsnorm::ort
