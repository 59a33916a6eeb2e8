#include "norm_op.h"

#include <vector>

#include "cpu_kernel.h"
#ifdef RMSNORM_CUDA
#include "cuda_kernel.h"
#endif

namespace rmsnorm::ort {
namespace {

const NormOp& self(const CustomOp* op) { return *static_cast<const NormOp*>(op); }

// Nodes of this operator become a Kernel.
template <class Kernel>
void run_with(CustomOp* op) {
  op->CreateKernelV2 = [](const CustomOp* op, const ApiTable*, const KernelInfo* info,
                          void** made) {
    return self(op).api.guard([&] { *made = new Kernel(self(op), info); });
  };
  op->KernelComputeV2 = [](void* data, KernelContext* context) {
    const Kernel& kernel = *static_cast<const Kernel*>(data);
    return kernel.api().guard([&] { kernel.compute(context); });
  };
  op->KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
}

// A length that is neither known nor named reads -1, and would be written down as the length -1.
bool every_length_is_stated(const Api& api, const TensorInfo* shape, size_t rank) {
  std::vector<int64_t> lengths(rank);
  std::vector<const char*> names(rank);
  api.call<Slot::GetDimensions>(shape, lengths.data(), rank);
  api.call<Slot::GetSymbolicDimensions>(shape, names.data(), rank);
  for (size_t i = 0; i < rank; ++i) {
    if (lengths[i] < 0 && (!names[i] || !*names[i])) return false;
  }
  return true;
}

Status* infer_shapes(const CustomOp* op, ShapeInferContext* context) {
  const Api& api = self(op).api;
  return api.guard([&] {
    TensorInfo* x = nullptr;  // belongs to the context
    api.call<Slot::ShapeInferContext_GetInputTypeShape>(context, size_t(0), &x);
    size_t rank = 0;
    api.call<Slot::GetDimensionsCount>(x, &rank);
    if (rank == 0) return;  // an unknown rank looks the same; saying "scalar" would break the model
    if (!every_length_is_stated(api, x, rank)) return;
    constexpr auto kSet = Slot::ShapeInferContext_SetOutputTypeShape;
    const size_t sum = self(op).is.ports.sum;
    // Not an error where the node leaves the sum out.
    if (sum != Ports::kNone && self(op).infers_optional) api.try_call<kSet>(context, sum, x);
    // onnxruntime takes the type of X, which comes with its shape, for that of Y. All overloads are
    // asked through the first one, so the type of Y is not known from `op`.
    if (self(op).is.built_in) {
      TensorInfo* scale = nullptr;
      int type = 0;
      api.call<Slot::ShapeInferContext_GetInputTypeShape>(context, self(op).is.ports.scale, &scale);
      api.call<Slot::GetTensorElementType>(scale, &type);
      api.call<Slot::SetTensorElementType>(x, type);
    }
    api.call<kSet>(context, size_t(0), x);
  });
}

// Y may take the place of X, and the sum that of the second input. Element by element a kernel
// reads before it writes, so either pair is safe. Zero stands for an operator without a sum.
template <int kSum>
size_t in_place(int** inputs, int** outputs) {
  static int from[] = {0, 1};
  static int to[] = {0, kSum};
  *inputs = from;
  *outputs = to;
  return kSum ? 2 : 1;
}

size_t nowhere(int**, int**) { return 0; }

}  // namespace

NormOp::NormOp(const Api& api, const Kind& kind, Device device, Element type, Element scale_type,
               bool infers_optional)
    : CustomOp(common_callbacks()),
      api(api),
      is(kind),
      device(device),
      type(type),
      scale_type(scale_type),
      result(kind.built_in ? scale_type : type),
      infers_optional(infers_optional) {
  GetName = [](const CustomOp* op) { return self(op).is.spec->name; };
  GetInputTypeCount = [](const CustomOp* op) { return self(op).is.spec->inputs; };
  GetOutputTypeCount = [](const CustomOp* op) { return self(op).is.spec->outputs; };
  GetInputType = [](const CustomOp* op, size_t index) {
    return int(index == self(op).is.ports.scale ? self(op).scale_type : self(op).type);
  };
  GetInputCharacteristic = [](const CustomOp* op, size_t index) -> int {
    const Kind& is = self(op).is;
    return index + is.optional_inputs >= is.spec->inputs ? kOptional : kRequired;
  };
  GetOutputType = [](const CustomOp* op, size_t index) {
    const Ports& ports = self(op).is.ports;
    const bool statistic = index == ports.inverse || index == ports.mean;
    return int(statistic ? Element::kFloat32 : index == 0 ? self(op).result : self(op).type);
  };
  GetOutputCharacteristic = [](const CustomOp* op, size_t index) -> int {
    const spec::Op& spec = *self(op).is.spec;
    return index + spec.optional_outputs >= spec.outputs ? kOptional : kRequired;
  };
  if (is.built_in) GetStartVersion = [](const CustomOp*) { return 1; };
  run_with<CpuKernel>(this);
#ifdef RMSNORM_CUDA
  if (device == Device::kCuda) {
    run_with<CudaKernel>(this);
    GetExecutionProviderType = [](const CustomOp*) { return "CUDAExecutionProvider"; };
  }
#endif
  InferOutputShapeFn = infer_shapes;
  const size_t sum = is.ports.sum;
  GetMayInplace = result != type ? nowhere
                  : sum == 1     ? in_place<1>
                  : sum == 3     ? in_place<3>
                                 : in_place<0>;
  ReleaseMayInplace = [](int*, int*) {};
}

}  // namespace rmsnorm::ort
