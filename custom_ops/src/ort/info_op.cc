#include <cstring>

#include "../cuda/launch.h"
#include "../dispatch.h"
#include "norm_op.h"

namespace rmsnorm::ort {
namespace {

const InfoOp& self(const CustomOp* op) { return *static_cast<const InfoOp*>(op); }

#ifdef RMSNORM_CUDA
// A sentence becomes a string; an object is one already.
std::string in_json(const std::string& said) {
  if (!said.empty() && said[0] == '{') return said;
  std::string quoted = "\"";
  for (const char c : said)
    quoted += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return quoted + "\"";
}
#endif

// null in a library without CUDA.
std::string describe_cuda() {
#ifdef RMSNORM_CUDA
  return "{\"architectures\": \"" RMSNORM_CUDA "\", \"device\": " + in_json(cuda::describe()) + "}";
#else
  return "null";
#endif
}

std::string describe() {
  std::string error;
  const KernelSet* active = select_kernel_set(&error);
  if (!active) throw InvalidArgument(error);
  std::string names;
  for (const KernelSet* set : supported_kernel_sets()) {
    names += std::string(names.empty() ? "\"" : ", \"") + set->name + "\"";
  }
  return "{\"spec\": " + std::string(spec::kJson) + ", \"isa\": {\"supported\": [" + names +
         "], \"active\": \"" + active->name + "\"}, \"cuda\": " + describe_cuda() + "}";
}

}  // namespace

InfoOp::InfoOp(const Api& api) : CustomOp(common_callbacks()), api(api) {
  GetName = [](const CustomOp*) { return "LibraryInfo"; };
  GetInputTypeCount = [](const CustomOp*) { return size_t(0); };
  GetInputType = [](const CustomOp*, size_t) -> int { return kUint8; };
  GetOutputTypeCount = [](const CustomOp*) { return size_t(1); };
  GetOutputType = [](const CustomOp*, size_t) -> int { return kUint8; };
  CreateKernelV2 = [](const CustomOp* op, const ApiTable*, const KernelInfo*,
                      void** kernel) -> Status* {
    *kernel = const_cast<CustomOp*>(op);  // no state of its own
    return nullptr;
  };
  KernelDestroy = [](void*) {};
  KernelComputeV2 = [](void* kernel, KernelContext* context) {
    const Api& api = self(static_cast<const CustomOp*>(kernel)).api;
    return api.guard([&] {
      const std::string text = describe();
      const int64_t size = int64_t(text.size());
      Value* value = nullptr;
      void* data = nullptr;
      api.call<Slot::KernelContext_GetOutput>(context, size_t(0), &size, size_t(1), &value);
      api.call<Slot::GetTensorMutableData>(value, &data);
      std::memcpy(data, text.data(), text.size());
    });
  };
}

}  // namespace rmsnorm::ort
