#include "dispatch.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "spec.h"

namespace rmsnorm {

namespace baseline {
extern const KernelSet kKernels;
}
#ifdef RMSNORM_X86
namespace avx2 {
extern const KernelSet kKernels;
}
namespace avx512 {
extern const KernelSet kKernels;
}
namespace avx512bf16 {
extern const KernelSet kKernels;
}
#endif

const std::vector<const KernelSet*>& supported_kernel_sets() {
  static const std::vector<const KernelSet*> sets = [] {
    std::vector<const KernelSet*> found;
#ifdef RMSNORM_X86
    // The builtins also ask the operating system (XGETBV) whether it saves the wide registers.
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                          __builtin_cpu_supports("f16c");
    const bool has_avx512 =
        has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (has_avx512 && __builtin_cpu_supports("avx512bf16")) found.push_back(&avx512bf16::kKernels);
    if (has_avx512) found.push_back(&avx512::kKernels);
    if (has_avx2) found.push_back(&avx2::kKernels);
#endif
    found.push_back(&baseline::kKernels);
    return found;
  }();
  return sets;
}

const KernelSet* select_kernel_set(const std::string& name, std::string* error) {
  std::string names;
  for (const KernelSet* set : supported_kernel_sets()) {
    if (name.empty() || name == set->name) return set;
    names += std::string(names.empty() ? "" : ", ") + set->name;
  }
  *error = std::string(spec::kIsaVariable) + " asks for instruction set '" + name +
           "'; this processor and library support: " + names;
  return nullptr;
}

const KernelSet* select_kernel_set(std::string* error) {
  const char* forced = std::getenv(spec::kIsaVariable);
  return select_kernel_set(forced ? forced : "", error);
}

int64_t processors() {
  static const int64_t count = std::max(1U, std::thread::hardware_concurrency());
  return count;
}

bool should_stream(const Problem& problem) {
  // Half of the last-level cache, which the next node finds Y in otherwise. By itself a norm is up
  // to 1.4 x faster from 4 MB of Y on, but a norm and a Neg after it take (two threads, 32 MB of
  // cache) 2.5 x as long at 4 MB, 1.5 x at 8 MB, and less only from 16 MB on. Virtual machines
  // state up to ten times the cache they have.
  static const int64_t least = [] {
    int64_t cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return std::clamp<int64_t>(cache / 2, 4 << 20, 16 << 20);
  }();
  const bool in_place = problem.y == problem.x || problem.y == problem.second;
  return !in_place && problem.layout.elements() * size_of(problem.type) >= least;
}

}  // namespace rmsnorm
