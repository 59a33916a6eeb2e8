// Which instruction set the CPU kernels use.
#pragma once

#include <string>
#include <vector>

#include "kernel.h"

namespace rmsnorm {

// What this build has and this processor can run, best first.
const std::vector<const KernelSet*>& supported_kernel_sets();

// The set called `name`, or the best one for an empty name. Null, and the reason in `error`, when
// the name is unknown or the processor lacks the instructions.
const KernelSet* select_kernel_set(const std::string& name, std::string* error);

// As above, with the name from the environment variable (spec.h), read anew at every call.
const KernelSet* select_kernel_set(std::string* error);

// Processors that this process may use; a session's pool has seldom more threads, and does not say.
int64_t processors();

// Whether Y of this problem should pass the caches by, computed by one thread `alone` or by
// several.
bool should_stream(const Problem& problem, bool alone);

}  // namespace rmsnorm
