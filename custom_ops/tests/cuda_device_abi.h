// The CUDA kernels behind a C interface: for tests/cuda_device.py and bench/cuda.py, without
// onnxruntime. Pointers to tensors are of the current device, shapes and axes of the host.
#pragma once

#include "kernels_abi.h"

#pragma GCC visibility push(default)
extern "C" {

// Device and driver as one line of JSON, or why there is none.
const char* rmsnorm_cuda_describe();

// Enqueues one norm on a cudaStream_t. Empty, or the text of the error.
const char* rmsnorm_cuda_run(const TestProblem* t, void* stream);

// How it would be launched on a device of these facts, as one line.
const char* rmsnorm_cuda_plan(const TestProblem* t, int32_t arch, int32_t processors,
                              int32_t shared_bytes, int64_t l2_bytes);

// Nanoseconds that the host takes to enqueue one norm `repeats` times; negative when it is refused.
double rmsnorm_cuda_host(const TestProblem* t, void* stream, int64_t repeats);

// Enqueues one copy, of the kind at that index of bench/gpu/copy.cu; with `second` both are read
// and one is written. Whole vectors of 16 bytes only. Empty, or the text of the error.
const char* rmsnorm_cuda_copy(int32_t kind, void* to, const void* from, const void* second,
                              int64_t bytes, void* stream);

}  // extern "C"
#pragma GCC visibility pop
