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
  // One processor's share of the last-level cache, in bytes read and written. Virtual machines
  // state up to ten times what they have, and at 12 MB streaming was 1.5-2 x faster where 32 MB are
  // real.
  static const int64_t share = [] {
    int64_t cache = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    const int64_t processors = std::max(1L, sysconf(_SC_NPROCESSORS_ONLN));
    return std::clamp<int64_t>(cache / processors, 2 << 20, 8 << 20);
  }();
  const bool in_place = problem.y == problem.x || problem.y == problem.second;
  const Layout& layout = problem.layout;
  const int64_t streams = 2 + (problem.second != nullptr) + (problem.sum != nullptr);
  const int64_t bytes = streams * layout.kept.count * layout.averaged * size_of(problem.type);
  // 16-bit rows are bound by conversion and gain only where all of it comes from memory.
  return !in_place && !layout.columns && bytes > (size_of(problem.type) < 4 ? 4 * share : share);
}

}  // namespace rmsnorm
