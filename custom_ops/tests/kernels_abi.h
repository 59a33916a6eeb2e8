// The kernels behind a C interface: for tests/test_kernels.py and bench/kernels.py, without
// onnxruntime.
#pragma once

#include <cstdint>

struct TestProblem {
  int32_t form, type, scale_type, stash, normalized, scaled;
  double epsilon, epsilon_outside, floor;
  const int64_t *shape, *axes, *scale_shape;
  int64_t rank, axis_count, scale_rank;
  const void *x, *second, *scale;
  void *y, *sum;
  int64_t split;      // items per kernel call, 0 for all at once, -n for n chunks of wide rows
  int32_t streaming;  // 1 yes, 0 no, -1 as in a session
  int32_t threads;    // that take turns at the calls, 0 as 1
};

#pragma GCC visibility push(default)
extern "C" {

// Names of the supported instruction sets, best first, separated by spaces.
const char* rmsnorm_test_isas();

// Empty when it ran, the text of the error otherwise.
const char* rmsnorm_test_run(const char* isa, const TestProblem* t);

// 1 where Y would pass the caches by, computed by one thread `alone` or by several; negative when
// the problem is refused. Reads no array.
int32_t rmsnorm_test_streams(const TestProblem* t, int32_t alone);

// A node's calls, one after the other: each has an X of `bytes`, and to each that is split other
// threads come or not. Writes which are split.
void rmsnorm_test_company(const int64_t* bytes, const int32_t* others, int64_t calls,
                          int32_t* split);

// Nanoseconds of `repeats` kernel calls over all items; negative when the problem is refused.
double rmsnorm_bench_kernel(const char* isa, const TestProblem* t, int64_t repeats);

// Nanoseconds of `repeats` copies, with stores that pass the caches by where `streaming`.
double rmsnorm_bench_copy(void* to, const void* from, int64_t bytes, int32_t streaming,
                          int64_t repeats);

// A sentence about the layout, for tests of the plan alone.
const char* rmsnorm_test_layout(const int64_t* x, int64_t rank, const int64_t* axes,
                                int64_t axis_count, const int64_t* scale, int64_t scale_rank);

}  // extern "C"
#pragma GCC visibility pop
