// RegisterCustomOps, the one symbol that this library exports.
#include <cstdio>
#include <deque>
#include <map>
#include <mutex>
#include <vector>

#include "norm_op.h"

namespace rmsnorm::ort {
namespace {

// Older releases write past the end of a vector when told the shape of an output that the node
// leaves out, and say nowhere whether it does (1.24, 1.25 and 1.26 abort). There the optional
// output gets no shape: it runs, but is not computed in place.
constexpr int kChecksOutputs = 28;

// Of its interface, which has counted like the releases of 1.x since 1.0.
int version_of(const ApiBase& base) {
  int major = 0, minor = 0;
  const int read = std::sscanf(base.GetVersionString(), "%d.%d", &major, &minor);
  return read != 2 ? 0 : major > 1 ? INT32_MAX : minor;
}

constexpr Element kTypes[] = {Element::kFloat32, Element::kFloat16, Element::kBFloat16,
                              Element::kFloat64};

// Of our own operators. The drop-ins stay on the CPU: elsewhere onnxruntime keeps its own kernels.
constexpr Device kDevices[] = {
    Device::kCpu,
#ifdef RMSNORM_CUDA
    Device::kCuda,
#endif
};

constexpr spec::Op kOnnxNorm = {"RMSNormalization", 2, 1, 0};
constexpr spec::Op kSimplified = {"SimplifiedLayerNormalization", 2, 2, 1};
constexpr spec::Op kSkipSimplified = {"SkipSimplifiedLayerNormalization", 4, 4, 3};

std::vector<Kind> our_kinds() {
  Ports skip, gated;
  skip.second = gated.second = 1;
  skip.scale = gated.scale = 2;
  skip.sum = 1;
  return {{Form::kPlain, &spec::kRMSNormalization, {}},
          {Form::kSkip, &spec::kSkipRMSNormalization, skip},
          {Form::kGated, &spec::kGatedRMSNormalization, gated},
          {Form::kPreGated, &spec::kPreGatedRMSNormalization, gated}};
}

// Drop-ins for operators of the domain "".
std::vector<Kind> onnx_kinds() {
  Kind onnx{Form::kPlain, &kOnnxNorm, {}};
  onnx.built_in = onnx.rounds_to_type = true;
  onnx.epsilon = 1e-5F;
  Kind simplified{Form::kPlain, &kSimplified, {}};
  simplified.built_in = true;
  simplified.epsilon = 1e-5F;
  simplified.ports.inverse = 1;
  return {onnx, simplified};
}

// Drop-ins for operators of the domain com.microsoft.
std::vector<Kind> microsoft_kinds() {
  Kind skip{Form::kSkip, &kSkipSimplified, {}};
  skip.built_in = true;
  skip.epsilon = 1e-12F;
  skip.optional_inputs = 1;
  skip.ports.second = 1;
  skip.ports.scale = 2;
  skip.ports.bias = 3;
  skip.ports.mean = 1;
  skip.ports.inverse = 2;
  skip.ports.sum = 3;
  return {skip};
}

// One domain of operators as one onnxruntime in this process sees it. Sessions keep pointers into
// it, so it is never freed; a second registration shares it.
struct Domain {
  Domain(const Api& api, bool infers_optional, const char* name, const std::vector<Kind>& kinds) {
    api.call<Slot::CreateCustomOpDomain>(name, &handle);
    for (const Kind& is : kinds) {
      for (const Device device : kDevices) {
        if (is.built_in && device != Device::kCpu) continue;
        for (const Element type : kTypes) {
          for (const Element scale_type : kTypes)
            add(api, is, device, type, scale_type, infers_optional);
        }
      }
    }
  }

  void add(const Api& api, const Kind& is, Device device, Element type, Element scale_type,
           bool infers_optional) {
    if (is.built_in && is.ports.second != Ports::kNone && type != scale_type) return;
    const NormOp& op = norms.emplace_back(api, is, device, type, scale_type, infers_optional);
    api.call<Slot::CustomOpDomain_Add>(handle, &op);
  }

  std::deque<NormOp> norms;
  CustomOpDomain* handle = nullptr;
};

struct Registry {
  Registry(const ApiTable* table, int version)
      : api(table, version),
        info(api),
        ours(api, version >= kChecksOutputs, spec::kDomain, our_kinds()),
        onnx(api, version >= kChecksOutputs, "", onnx_kinds()),
        microsoft(api, version >= kChecksOutputs, "com.microsoft", microsoft_kinds()) {
    api.call<Slot::CustomOpDomain_Add>(ours.handle, static_cast<const CustomOp*>(&info));
  }

  // onnxruntime refuses every session of options that hold a domain twice, so register() in
  // rmsnorm_onnx/library.py writes down what they hold; a C++ program may ask by the same entries.
  // The two built-in domains are apart because the second does harm in some models: the version of
  // a registered domain counts as 1000 where a model does not import it, and onnxruntime then knows
  // none of its own com.microsoft operators, to which its optimizers rewrite plain nodes.
  void add_to(SessionOptions* options) {
    add_to(options, ours, "rmsnorm_onnx", true);
    add_to(options, onnx, "rmsnorm_onnx.override", false);
    add_to(options, microsoft, "rmsnorm_onnx.override.com.microsoft", false);
  }

  void add_to(SessionOptions* options, const Domain& domain, std::string entry, bool always) {
    if (!always && !has(options, entry)) return;
    if (has(options, entry + ".registered")) return;
    api.call<Slot::AddCustomOpDomain>(options, domain.handle);
  }

  bool has(const SessionOptions* options, const std::string& entry) const {
    int found = 0;
    api.call<Slot::HasSessionConfigEntry>(options, entry.c_str(), &found);
    return found != 0;
  }

  Api api;
  InfoOp info;
  Domain ours, onnx, microsoft;
};

Registry& registry_of(const ApiTable* table, int version) {
  static std::mutex mutex;
  static auto& registries = *new std::map<const ApiTable*, Registry*>;
  const std::lock_guard<std::mutex> lock(mutex);
  Registry*& registry = registries[table];
  if (!registry) registry = new Registry(table, version);
  return *registry;
}

Status* too_old(const ApiBase& base) {
  const std::string text = std::string("rmsnorm_onnx needs onnxruntime 1.") +
                           std::to_string(spec::kOrtApiVersion) + " or newer, this is " +
                           base.GetVersionString();
  return Api(base.GetApi(1), 1).raw<Slot::CreateStatus>(int(kFail), text.c_str());
}

}  // namespace
}  // namespace rmsnorm::ort

extern "C" __attribute__((visibility("default"))) rmsnorm::ort::Status* RegisterCustomOps(
    rmsnorm::ort::SessionOptions* options, const rmsnorm::ort::ApiBase* base) {
  using namespace rmsnorm::ort;
  // A version that is not there would be refused, and complained about on the console.
  const int version = version_of(*base);
  const bool lends_shapes = version >= kLendsShapes;
  const ApiTable* table =
      base->GetApi(lends_shapes ? uint32_t(kLendsShapes) : rmsnorm::spec::kOrtApiVersion);
  if (!table) return too_old(*base);
  const Api api(table, version);
  return api.guard([&] { registry_of(table, version).add_to(options); });
}
