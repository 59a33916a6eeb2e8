// Stands in for the CUDA runtime beneath the launching code as nvcc compiled it: answers as a
// device of given facts would, launches nothing, and writes down every call.
#include <cuda_runtime_api.h>
#include <cxxabi.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace {

struct Facts {
  int arch, code, processors;
};

std::mutex mutex;
std::map<int, Facts> devices;
std::string calls;
thread_local int current = 0;
cudaError_t refusal = cudaSuccess;  // of launches

// Filled by constructors of other files.
std::map<const void*, std::string>& kernels() {
  static std::map<const void*, std::string> names;
  return names;
}

cudaError_t note(const std::string& call, cudaError_t result = cudaSuccess) {
  const std::lock_guard<std::mutex> lock(mutex);
  calls += call + "\n";
  return result;
}

std::string demangled(const char* name) {
  int failed = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name, nullptr, nullptr, &failed), &std::free);
  return failed ? name : text.get();
}

std::string part(const char* name, int64_t value) {
  return std::string(" ") + name + " " + std::to_string(value);
}

std::string to_text(const cudaLaunchAttribute& attribute) {
  if (attribute.id == cudaLaunchAttributeClusterDimension) {
    const auto& size = attribute.val.clusterDim;
    return part("cluster", int64_t(size.x) * size.y * size.z);
  }
  if (attribute.id == cudaLaunchAttributeProgrammaticStreamSerialization) {
    return part("overlaps", attribute.val.programmaticStreamSerializationAllowed);
  }
  return part("attribute", int64_t(attribute.id));
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Device `index` becomes this thread's, with these facts; its launches are refused with that error.
// Code 0: there is none for it.
void rmsnorm_recorder_device(int32_t index, int32_t arch, int32_t code, int32_t processors,
                             int32_t error) {
  current = index;
  devices[index] = {arch, code, processors};
  refusal = cudaError_t(error);
}

// A line for each call since the last question.
const char* rmsnorm_recorder_calls() {
  static std::string answer;
  answer.clear();
  answer.swap(calls);
  return answer.c_str();
}

}  // extern "C"
#pragma GCC visibility pop

extern "C" {

cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return note("cudaGetDevice");
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const Facts& facts = devices[device];
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = facts.arch / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = facts.arch % 10;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = facts.processors;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = 99 << 10;
      break;
    case cudaDevAttrL2CacheSize:
      *value = 50 << 20;
      break;
    default:
      return note("cudaDeviceGetAttribute of another kind", cudaErrorInvalidValue);
  }
  return note("cudaDeviceGetAttribute" + part("device", device));
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->ptxVersion = devices[current].code;
  attributes->binaryVersion = devices[current].arch;
  return note("cudaFuncGetAttributes",
              attributes->ptxVersion ? cudaSuccess : cudaErrorNoKernelImageForDevice);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int value) {
  return note("cudaFuncSetAttribute" + part("value", value));
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel, void**) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  std::string text = "launch" + part("blocks", int64_t(grid.x) * grid.y * grid.z) +
                     part("threads", int64_t(block.x) * block.y * block.z) +
                     part("shared", int64_t(config->dynamicSmemBytes)) +
                     part("stream", int64_t(reinterpret_cast<uintptr_t>(config->stream)));
  for (unsigned i = 0; i < config->numAttrs; ++i) text += to_text(config->attrs[i]);
  return note(text + " of " + kernels()[kernel], refusal);
}
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) {
  return note("cudaLaunchKernel");
}
cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t) {
  return note("cudaMemcpyAsync");
}
cudaError_t cudaGetLastError() { return note("cudaGetLastError"); }
const char* cudaGetErrorName(cudaError_t) { return "the error's name"; }
const char* cudaGetErrorString(cudaError_t) { return "what it means"; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
// Of 13, and of 12, where it is a macro.
#undef cudaGetDeviceProperties
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  properties->major = devices[device].arch / 10;
  properties->minor = devices[device].arch % 10;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties_v2(cudaDeviceProp* properties, int device) {
  return cudaGetDeviceProperties(properties, device);
}

// What the code that nvcc generates calls when the library is loaded, and in kernels' stubs.
void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*, void*,
                            void*, void*, int*) {
  kernels()[host] = demangled(name);
}
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaSuccess; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) {
  return note("__cudaLaunchKernel");
}
unsigned __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return 0; }
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) { return 0; }

}  // extern "C"
