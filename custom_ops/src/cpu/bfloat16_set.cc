// The entry points of AVX-512 with instructions for bfloat16: kernels of its own for that type,
// those of AVX-512 for all others.
#include "kernels.h"

namespace rmsnorm::avx512 {
extern const KernelSet kKernels;
}

namespace rmsnorm::RMSNORM_ISA {
namespace {

bool is_own(const Problem& p) {
  return p.type == Element::kBFloat16 && p.settings.stash != Element::kFloat64;
}

void run(const Problem& p, int64_t begin, int64_t end) {
  is_own(p) ? run_layout<BFloat16, float>(p, begin, end) : avx512::kKernels.run(p, begin, end);
}

void run_sum_chunks(const Problem& p, int64_t begin, int64_t end, double* sums) {
  is_own(p) ? sum_chunks<BFloat16, float>(p, begin, end, sums)
            : avx512::kKernels.sum_chunks(p, begin, end, sums);
}

void run_finish_chunks(const Problem& p, int64_t begin, int64_t end, const double* sums) {
  is_own(p) ? finish_chunks<BFloat16, float>(p, begin, end, sums)
            : avx512::kKernels.finish_chunks(p, begin, end, sums);
}

void convert(Element from, const void* source, Element to, void* target, int64_t count) {
  avx512::kKernels.convert(from, source, to, target, count);
}

}  // namespace

extern const KernelSet kKernels;
const KernelSet kKernels = {"avx512bf16", run, run_sum_chunks, run_finish_chunks, convert};

}  // namespace rmsnorm::RMSNORM_ISA
