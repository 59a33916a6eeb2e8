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

}  // namespace

NormKernel::NormKernel(const NormOp& op, const KernelInfo* info) : op_(op), api_(op.api) {
  node_ = std::string(op.spec->name) + " node '" + node_name(api_, info) + "': ";
  try {
    create(info);
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(node_ + error.what());
  }
}

void NormKernel::create(const KernelInfo* info) {
  attributes_ = read_attributes(api_, info, op_.form);
  std::string error;
  kernels_ = select_kernel_set(&error);
  if (!kernels_) throw InvalidArgument(error);
  take_constant_scale(info);
}

void NormKernel::take_constant_scale(const KernelInfo* info) {
  int is_constant = 0;
  const Value* value = nullptr;
  constexpr auto kSlot = Slot::KernelInfoGetConstantInput_tensor;
  const bool known = api_.try_call<kSlot>(info, op_.scale_input(), &is_constant, &value);
  if (!known || !is_constant || !value) return;
  const Tensor scale = read_tensor(api_, value);
  Bytes converted = convert_scale(scale);
  const void* values = converted ? converted.get() : scale.data;
  scale_is_ones_ = attributes_.settings.stash == Element::kFloat64
                       ? all_ones<double>(values, scale.elements())
                       : all_ones<float>(values, scale.elements());
  if (!scale_is_ones_) constant_scale_ = std::move(converted);
}

// Null when the scale already has the stash type.
Bytes NormKernel::convert_scale(const Tensor& scale) const {
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

void NormKernel::run(KernelContext* context) const {
  const Tensor x = input(context, 0);
  const Tensor scale = input(context, op_.scale_input());
  Problem problem;
  problem.form = op_.form;
  problem.type = op_.type;
  problem.settings = attributes_.settings;
  problem.x = x.data;
  if (op_.form != Form::kPlain) {
    const Tensor second = input(context, 1);
    if (second.shape != x.shape) {
      const char* name = op_.form == Form::kSkip ? "skip" : "gate";
      throw InvalidArgument(std::string("expected ") + name + " of the shape of X, " +
                            to_text(x.shape) + ", got " + to_text(second.shape));
    }
    problem.second = second.data;
  }
  auto plan = plan_layout(x.shape, attributes_.axes, scale.shape);
  if (const auto* error = std::get_if<std::string>(&plan)) throw InvalidArgument(*error);
  problem.layout = std::get<Layout>(plan);
  problem.y = output(context, 0, x.shape).data;
  if (has_output(context, 1)) problem.sum = output(context, 1, x.shape).data;
  if (problem.layout.items() == 0) return;
  Bytes converted;
  if (constant_scale_) {
    problem.scale = constant_scale_.get();
  } else if (!scale_is_ones_) {
    converted = convert_scale(scale);
    problem.scale = converted ? converted.get() : scale.data;
  }
  launch(context, problem);
}

void NormKernel::launch(KernelContext* context, const Problem& problem) const {
  struct Work {
    const KernelSet& kernels;
    const Problem& problem;
    int64_t items;
    int64_t per_task;
  };
  const int64_t items = problem.layout.items();
  const int64_t item_bytes = problem.layout.item_elements() * size_of(problem.type);
  Work work{*kernels_, problem, items, std::max<int64_t>(1, kTaskBytes / item_bytes)};
  const int64_t tasks = (items + work.per_task - 1) / work.per_task;
  if (tasks == 1 || 2 * items * item_bytes < kSerialBytes) {
    kernels_->run(problem, 0, items);
    return;
  }
  const auto task = [](void* data, size_t index) {
    const Work& w = *static_cast<const Work*>(data);
    const int64_t begin = int64_t(index) * w.per_task;
    w.kernels.run(w.problem, begin, std::min(begin + w.per_task, w.items));
  };
  api_.call<Slot::KernelContext_ParallelFor>(context, +task, size_t(tasks), size_t(0), &work);
}

Tensor NormKernel::input(KernelContext* context, size_t index) const {
  const Value* value = nullptr;
  api_.call<Slot::KernelContext_GetInput>(context, index, &value);
  if (!value) {
    throw InvalidArgument("expected input " + std::to_string(index) + ", got none");
  }
  return read_tensor(api_, value);
}

bool NormKernel::has_output(KernelContext* context, size_t index) const {
  size_t count = 0;
  api_.call<Slot::KernelContext_GetOutputCount>(context, &count);
  return index < count;
}

// Data is null when the model does not name this output.
Tensor NormKernel::output(KernelContext* context, size_t index, const Shape& shape) const {
  Value* value = nullptr;
  api_.call<Slot::KernelContext_GetOutput>(context, index, shape.data(), shape.size(), &value);
  Tensor tensor;
  if (value) api_.call<Slot::GetTensorMutableData>(value, &tensor.data);
  return tensor;
}

}  // namespace rmsnorm::ort
