// RegisterCustomOps, the one symbol that this library exports.
#include <cstdio>
#include <deque>
#include <map>
#include <mutex>

#include "norm_op.h"

namespace rmsnorm::ort {
namespace {

// Older releases write past the end of a vector when told the shape of an output that the node
// leaves out, and say nowhere whether it does (1.24, 1.25 and 1.26 abort). There the optional
// output gets no shape: it runs, but is not computed in place.
constexpr int kChecksOutputs = 28;

bool checks_outputs(const ApiBase& base) {
  int major = 0, minor = 0;
  const int read = std::sscanf(base.GetVersionString(), "%d.%d", &major, &minor);
  return read == 2 && (major > 1 || minor >= kChecksOutputs);
}

// The operators as one onnxruntime in this process sees them. Sessions keep pointers into it, so it
// is never freed; a second registration shares it.
struct Registry {
  Registry(const ApiTable* table, bool infers_optional) : api(table), info(api) {
    constexpr Element kTypes[] = {Element::kFloat32, Element::kFloat16, Element::kBFloat16,
                                  Element::kFloat64};
    const std::pair<Form, const spec::Op*> forms[] = {
        {Form::kPlain, &spec::kRMSNormalization},
        {Form::kSkip, &spec::kSkipRMSNormalization},
        {Form::kGated, &spec::kGatedRMSNormalization},
        {Form::kPreGated, &spec::kPreGatedRMSNormalization},
    };
    api.call<Slot::CreateCustomOpDomain>(static_cast<const char*>(spec::kDomain), &domain);
    for (const auto& [form, op] : forms) {
      for (const Element type : kTypes) {
        for (const Element scale_type : kTypes)
          add(norms.emplace_back(api, form, *op, type, scale_type, infers_optional));
      }
    }
    add(info);
  }

  void add(const CustomOp& op) { api.call<Slot::CustomOpDomain_Add>(domain, &op); }

  Api api;
  InfoOp info;
  std::deque<NormOp> norms;
  CustomOpDomain* domain = nullptr;
};

Registry& registry_of(const ApiBase& base, const ApiTable* table) {
  static std::mutex mutex;
  static auto& registries = *new std::map<const ApiTable*, Registry*>;
  const std::lock_guard<std::mutex> lock(mutex);
  Registry*& registry = registries[table];
  if (!registry) registry = new Registry(table, checks_outputs(base));
  return *registry;
}

Status* too_old(const ApiBase& base) {
  const std::string text = std::string("rmsnorm_onnx needs onnxruntime 1.") +
                           std::to_string(spec::kOrtApiVersion) + " or newer, this is " +
                           base.GetVersionString();
  return Api(base.GetApi(1)).raw<Slot::CreateStatus>(int(kFail), text.c_str());
}

}  // namespace
}  // namespace rmsnorm::ort

extern "C" __attribute__((visibility("default"))) rmsnorm::ort::Status* RegisterCustomOps(
    rmsnorm::ort::SessionOptions* options, const rmsnorm::ort::ApiBase* base) {
  using namespace rmsnorm::ort;
  const ApiTable* table = base->GetApi(rmsnorm::spec::kOrtApiVersion);
  if (!table) return too_old(*base);
  const Api api(table);
  return api.guard(
      [&] { api.call<Slot::AddCustomOpDomain>(options, registry_of(*base, table).domain); });
}
