#include "api.h"

#include "spec.h"

namespace rmsnorm::ort {

void Api::check(Status* status) const {
  if (!status) return;
  const std::string text = raw<Slot::GetErrorMessage>(status);
  raw<Slot::ReleaseStatus>(status);
  throw std::runtime_error(text);
}

int64_t Tensor::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

Tensor read_tensor(const Api& api, const Value* value) {
  struct Info {
    const Api& api;
    TensorInfo* get = nullptr;
    ~Info() {
      if (get) api.raw<Slot::ReleaseTensorTypeAndShapeInfo>(get);
    }
  } info{api};
  api.call<Slot::GetTensorTypeAndShape>(value, &info.get);
  Tensor tensor;
  size_t rank = 0;
  api.call<Slot::GetDimensionsCount>(info.get, &rank);
  tensor.shape.resize(rank);
  api.call<Slot::GetDimensions>(info.get, tensor.shape.data(), rank);
  api.call<Slot::GetTensorElementType>(info.get, &tensor.element_type);
  api.call<Slot::GetTensorMutableData>(const_cast<Value*>(value), &tensor.data);
  return tensor;
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
