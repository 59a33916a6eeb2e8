// Kernel launches: under the emulator, the same function runs the kernel.
#pragma once

#include <string>

#include "device.cuh"

namespace rmsnorm::cuda {

struct Shape {
  int64_t blocks = 1;
  int threads = kWarp;
  int shared_bytes = 0;
  int cluster = 1;
  bool overlaps = false;  // may start before the kernel before it on the stream ends (sm_90)
};

}  // namespace rmsnorm::cuda

#ifdef __CUDACC__

#include <cuda_runtime.h>

namespace rmsnorm::cuda {

inline std::string said(cudaError_t error) {
  cudaGetLastError();  // or the next launch of anybody would report it
  return std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
}

// Empty, or what CUDA said.
template <class... Parameters, class... Arguments>
std::string enqueue(void (*kernel)(Parameters...), const Shape& shape, void* stream,
                    const Arguments&... arguments) {
  constexpr int kAlwaysThere = 48 * 1024;
  if (shape.shared_bytes > kAlwaysThere) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes);
    if (error != cudaSuccess) return said(error);
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(shape.blocks));
  config.blockDim = dim3(unsigned(shape.threads));
  config.dynamicSmemBytes = size_t(shape.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute attributes[2] = {};
  config.attrs = attributes;
  if (shape.cluster > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {unsigned(shape.cluster), 1, 1};
  }
  if (shape.overlaps) {
    cudaLaunchAttribute& overlap = attributes[config.numAttrs++];
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
  }
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
  return error == cudaSuccess ? "" : said(error);
}

}  // namespace rmsnorm::cuda

#endif
