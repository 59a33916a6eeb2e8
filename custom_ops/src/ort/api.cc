#include "api.h"

#include "spec.h"

namespace rmsnorm::ort {

void Api::fail(Status* status) const {
  const std::string text = raw<Slot::GetErrorMessage>(status);
  raw<Slot::ReleaseStatus>(status);
  throw std::runtime_error(text);
}

// Four calls and as many allocations, half the fixed cost of a small node.
void copy_shape(const Api& api, const Value* value, Tensor* tensor) {
  struct Info {
    const Api& api;
    TensorInfo* get = nullptr;
    ~Info() {
      if (get) api.raw<Slot::ReleaseTensorTypeAndShapeInfo>(get);
    }
  } info{api};
  api.call<Slot::GetTensorTypeAndShape>(value, &info.get);
  size_t rank = 0;
  api.call<Slot::GetDimensionsCount>(info.get, &rank);
  tensor->copy.reset(new int64_t[rank]);
  api.call<Slot::GetDimensions>(info.get, tensor->copy.get(), rank);
  tensor->shape = Dims(tensor->copy.get(), rank);
}

CustomOp common_callbacks() {
  CustomOp op{};
  op.version = spec::kOrtApiVersion;
  op.GetExecutionProviderType = [](const CustomOp*) -> const char* { return nullptr; };  // CPU
  op.GetInputCharacteristic = [](const CustomOp*, size_t) -> int { return kRequired; };
  op.GetOutputCharacteristic = [](const CustomOp*, size_t) -> int { return kRequired; };
  op.GetInputMemoryType = [](const CustomOp*, size_t) -> int { return kDefaultMemory; };
  op.GetVariadicInputMinArity = [](const CustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const CustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const CustomOp*) { return 1; };
  op.GetStartVersion = [](const CustomOp*) { return spec::kVersion; };
  op.GetEndVersion = [](const CustomOp*) { return INT32_MAX; };
  return op;
}

}  // namespace rmsnorm::ort
