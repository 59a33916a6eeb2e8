// The CUDA kernels as whoever launches them sees them: no CUDA header needed.
#pragma once

#include <string>

#include "../kernel.h"

namespace rmsnorm::cuda {

// Enqueues one norm on `stream` (a cudaStream_t) of the current device and returns at once: nothing
// is allocated, copied or waited for. All pointers are of that device; problem.scale is of
// `scale_type`. Empty, or what was asked for and what CUDA said.
std::string launch(const Problem& problem, Element scale_type, void* stream);

// Device and driver as one line of JSON, or why there is none.
std::string describe();

}  // namespace rmsnorm::cuda
