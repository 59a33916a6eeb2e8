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

namespace {

constexpr int64_t kLeastCache = 8 << 20;
constexpr int64_t kMostCache = 32 << 20;

}  // namespace

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

bool should_stream(const Problem& problem, bool alone) {
  // Virtual machines state up to ten times the cache they have.
  static const int64_t cache = [] {
    int64_t bytes = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
    bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
    return std::clamp<int64_t>(bytes, kLeastCache, kMostCache);
  }();
  if (problem.y == problem.x || problem.y == problem.second) return false;
  const Form form = problem.form;
  const int64_t y_bytes = problem.layout.elements() * size_of(problem.type);
  // Gates wait for arithmetic, and a sum of 16 bits goes through the caches: up to 1.3 times as
  // long where the caches could hold Y.
  const bool streams_all =
      form == Form::kPlain || (form == Form::kSkip && problem.type == problem.settings.stash);
  if (!streams_all) return y_bytes >= cache / 2;
  // What is not streamed is found in the caches by the next node, and several threads that stream
  // wait for each other. Times as fast streamed, with a stated cache of 32 MB that others use too,
  // by itself (and with a Neg after it):
  //   X and Y of  8 MB each: one thread 1.4-1.6 (1.1-1.2), two 0.7-1.1 (0.8-0.9), four 0.6 (0.8)
  //   X and Y of 16 MB each:            1.5 (1.1-1.2),         1.4-1.5 (1.0-1.1),      1.3 (1.0)
  // Residual norms of as many bytes in four arrays: 1.1-1.25 (0.9-1.1), 0.6-0.7 (0.7), 0.4 (0.5);
  // 1.3 (1.15), 1.3 (1.0-1.15), 1.0 (0.9).
  const int64_t least = alone ? std::max(cache / 2, kLeastCache) : cache;
  const int arrays = 2 + (problem.second != nullptr) + (problem.sum != nullptr);
  return y_bytes * arrays >= least;
}

}  // namespace rmsnorm
