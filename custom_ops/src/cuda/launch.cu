#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "enqueue.cuh"
#include "kernels.h"
#include "launch.h"

namespace rmsnorm::cuda {
namespace {

// Every kernel is compiled for what this one is.
__global__ void any_kernel() {}

std::string read_device(int index, Device* device) {
  int major = 0, minor = 0, l2 = 0;
  cudaFuncAttributes code = {};
  const auto read = [&](int* to, cudaDeviceAttr attribute) {
    return cudaDeviceGetAttribute(to, attribute, index);
  };
  for (const cudaError_t error :
       {read(&major, cudaDevAttrComputeCapabilityMajor),
        read(&minor, cudaDevAttrComputeCapabilityMinor),
        read(&device->processors, cudaDevAttrMultiProcessorCount),
        read(&device->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin),
        read(&l2, cudaDevAttrL2CacheSize), cudaFuncGetAttributes(&code, any_kernel)}) {
    if (error != cudaSuccess) return said(error);
  }
  device->arch = std::min(10 * major + minor, code.ptxVersion);
  device->l2_bytes = l2;
  return "";
}

// The facts of the current device, asked for once. Never freed: threads may outlive main().
std::string current_device(int* index, Device* device) {
  static std::mutex mutex;
  static auto& known = *new std::vector<std::unique_ptr<Device>>;
  if (const cudaError_t error = cudaGetDevice(index); error != cudaSuccess) return said(error);
  const std::lock_guard<std::mutex> lock(mutex);
  if (known.size() <= size_t(*index)) known.resize(size_t(*index) + 1);
  std::unique_ptr<Device>& entry = known[size_t(*index)];
  if (!entry) {
    auto fresh = std::make_unique<Device>();
    if (const std::string error = read_device(*index, fresh.get()); !error.empty()) return error;
    entry = std::move(fresh);
  }
  *device = *entry;
  return "";
}

const char* name_of(Element element) {
  switch (element) {
    case Element::kFloat32:
      return "float32";
    case Element::kFloat16:
      return "float16";
    case Element::kFloat64:
      return "float64";
    case Element::kBFloat16:
      return "bfloat16";
  }
  return "?";
}

const char* name_of(Form form) {
  switch (form) {
    case Form::kPlain:
      return "plain";
    case Form::kSkip:
      return "skip";
    case Form::kGated:
      return "gated";
    case Form::kPreGated:
      return "pregated";
  }
  return "?";
}

std::string to_text(const Problem& p, Element scale_type) {
  const Layout& layout = p.layout;
  return std::string(name_of(p.form)) + " norm of " + name_of(p.type) + " in " +
         name_of(p.settings.stash) + " with a scale of " + name_of(scale_type) + ": " +
         std::to_string(layout.kept.count) + (layout.columns ? " times " : " rows, ") +
         std::to_string(layout.reduced.count) + " x " + std::to_string(layout.inner);
}

}  // namespace

std::string launch(const Problem& problem, Element scale_type, void* stream) {
  if (problem.layout.elements() == 0) return "";
  int index = 0;
  Device device;
  std::string error = current_device(&index, &device);
  if (!error.empty()) return "the current CUDA device cannot be used: " + error;
  const Plan planned = plan(problem, scale_type, device);
  error = start({problem, scale_type, planned, device, stream});
  if (error.empty()) return "";
  return "cannot start the " + to_text(problem, scale_type) + " (" + to_text(planned) +
         ") on CUDA device " + std::to_string(index) + " with code for sm_" +
         std::to_string(device.arch) + ": " + error;
}

std::string describe() {
  int runtime = 0, driver = 0, index = 0;
  Device device;
  cudaRuntimeGetVersion(&runtime);
  cudaDriverGetVersion(&driver);
  const std::string error = current_device(&index, &device);
  cudaDeviceProp properties;
  if (!error.empty()) return error;
  if (const cudaError_t got = cudaGetDeviceProperties(&properties, index); got != cudaSuccess) {
    return said(got);
  }
  const auto number = [](const char* name, int64_t value) {
    return std::string(", \"") + name + "\": " + std::to_string(value);
  };
  return std::string("{\"device\": \"") + properties.name + "\"" + number("index", index) +
         number("arch", 10 * properties.major + properties.minor) + number("code", device.arch) +
         number("processors", device.processors) + number("shared_bytes", device.shared_bytes) +
         number("l2_bytes", device.l2_bytes) + number("runtime", runtime) +
         number("driver", driver) + "}";
}

}  // namespace rmsnorm::cuda
