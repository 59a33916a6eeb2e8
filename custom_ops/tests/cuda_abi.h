// The CUDA kernels behind a C interface: for tests/test_cuda_kernels.py.
#pragma once

#include "kernels_abi.h"

struct TestDevice {
  int32_t arch, processors, shared_bytes;
  int64_t l2_bytes;
};

#pragma GCC visibility push(default)
extern "C" {

// One norm on a device that is only said to be, all pointers of the host. Empty when it ran, the
// text of the error otherwise.
const char* rmsnorm_cuda_test_run(const TestDevice* device, const TestProblem* t);

// A sentence about the launch, for tests of the plan alone.
const char* rmsnorm_cuda_test_plan(const TestDevice* device, const TestProblem* t);

// What the emulator says about a kernel of cuda_misuse.cc.
const char* rmsnorm_cuda_test_misuse(const char* name);

}  // extern "C"
#pragma GCC visibility pop
