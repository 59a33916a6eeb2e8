#include "norm_op.h"

#include <vector>

#include "norm_kernel.h"

namespace rmsnorm::ort {
namespace {

const NormOp& self(const CustomOp* op) { return *static_cast<const NormOp*>(op); }

Status* create(const CustomOp* op, const ApiTable*, const KernelInfo* info, void** kernel) {
  return self(op).api.guard([&] { *kernel = new NormKernel(self(op), info); });
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
    for (size_t i = 0; i < self(op).inferred_outputs; ++i) {
      api.call<Slot::ShapeInferContext_SetOutputTypeShape>(context, i, x);
    }
  });
}

// Y may take the place of X, and the second output that of the second input. Element by element a
// kernel reads before it writes, so either pair is safe.
template <int kPairs>
size_t in_place(int** inputs, int** outputs) {
  static int same[] = {0, 1};
  *inputs = same;
  *outputs = same;
  return kPairs;
}

}  // namespace

NormOp::NormOp(const Api& api, Form form, const spec::Op& spec, Element type, Element scale_type,
               bool infers_optional)
    : CustomOp(common_callbacks()),
      api(api),
      form(form),
      spec(&spec),
      type(type),
      scale_type(scale_type),
      inferred_outputs(spec.outputs - (infers_optional ? 0 : spec.optional_outputs)) {
  GetName = [](const CustomOp* op) { return self(op).spec->name; };
  GetInputTypeCount = [](const CustomOp* op) { return self(op).spec->inputs; };
  GetOutputTypeCount = [](const CustomOp* op) { return self(op).spec->outputs; };
  GetInputType = [](const CustomOp* op, size_t index) {
    return int(index == self(op).scale_input() ? self(op).scale_type : self(op).type);
  };
  GetOutputType = [](const CustomOp* op, size_t) { return int(self(op).type); };
  GetOutputCharacteristic = [](const CustomOp* op, size_t index) -> int {
    const spec::Op& spec = *self(op).spec;
    return index + spec.optional_outputs >= spec.outputs ? kOptional : kRequired;
  };
  CreateKernelV2 = create;
  KernelComputeV2 = [](void* data, KernelContext* context) {
    const NormKernel& kernel = *static_cast<const NormKernel*>(data);
    return kernel.api().guard([&] { kernel.compute(context); });
  };
  KernelDestroy = [](void* kernel) { delete static_cast<NormKernel*>(kernel); };
  InferOutputShapeFn = infer_shapes;
  GetMayInplace = form == Form::kSkip ? in_place<2> : in_place<1>;
  ReleaseMayInplace = [](int*, int*) {};
}

}  // namespace rmsnorm::ort
