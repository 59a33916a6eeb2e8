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

#define RMSNORM_INSTANTIATE(kernel)                                         \
  template void kernel<float, float>(const Problem&, int64_t, int64_t);     \
  template void kernel<Half, float>(const Problem&, int64_t, int64_t);      \
  template void kernel<BFloat16, float>(const Problem&, int64_t, int64_t);  \
  template void kernel<double, float>(const Problem&, int64_t, int64_t);    \
  template void kernel<float, double>(const Problem&, int64_t, int64_t);    \
  template void kernel<Half, double>(const Problem&, int64_t, int64_t);     \
  template void kernel<BFloat16, double>(const Problem&, int64_t, int64_t); \
  template void kernel<double, double>(const Problem&, int64_t, int64_t);

}  // namespace rmsnorm::RMSNORM_ISA
