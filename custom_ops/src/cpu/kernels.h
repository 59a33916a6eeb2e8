// The kernels of one instruction set: an element type T of X and a stash type S each.
#pragma once

#include "convert.h"

namespace rmsnorm::RMSNORM_ISA {

template <class T, class S>
void rows(const Problem& problem, int64_t begin, int64_t end);

template <class T, class S>
void columns(const Problem& problem, int64_t begin, int64_t end);

// The halves of a wide row; see KernelSet.
template <class T, class S>
void sum_chunks(const Problem& problem, int64_t begin, int64_t end, double* sums);

template <class T, class S>
void finish_chunks(const Problem& problem, int64_t begin, int64_t end, const double* sums);

// Wide rows, both halves of each.
template <class T, class S>
void wide_rows(const Problem& problem, int64_t begin, int64_t end);

template <class T, class S>
void run_layout(const Problem& p, int64_t begin, int64_t end) {
  if (p.layout.columns) {
    columns<T, S>(p, begin, end);
  } else if (p.layout.is_wide()) {
    wide_rows<T, S>(p, begin, end);
  } else {
    rows<T, S>(p, begin, end);
  }
}

// Instructions for bfloat16 change the kernels of one pair of types.
#if defined(__AVX512BF16__)
#define RMSNORM_EACH_TYPE(instantiate) instantiate(BFloat16, float)
#else
#define RMSNORM_EACH_TYPE(instantiate)                                                \
  instantiate(float, float) instantiate(Half, float) instantiate(BFloat16, float)     \
      instantiate(double, float) instantiate(float, double) instantiate(Half, double) \
          instantiate(BFloat16, double) instantiate(double, double)
#endif

}  // namespace rmsnorm::RMSNORM_ISA
