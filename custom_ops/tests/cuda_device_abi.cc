#include "cuda_device_abi.h"

#include <chrono>

#include "cuda/launch.h"
#include "cuda/plan.h"
#include "test_problem.h"

using namespace rmsnorm;

namespace {

// Unlike the CPU's kernels, these read the scale as it comes.
std::string to_device_problem(const TestProblem& t, Problem* p) {
  p->scale = t.scale;
  p->streaming = t.streaming > 0;
  return to_problem(t, p);
}

std::string run(const TestProblem& t, void* stream) {
  Problem p;
  const std::string error = to_device_problem(t, &p);
  return error.empty() ? cuda::launch(p, Element(t.scale_type), stream) : error;
}

}  // namespace

const char* rmsnorm_cuda_describe() { return say(cuda::describe()); }

const char* rmsnorm_cuda_run(const TestProblem* t, void* stream) { return say(run(*t, stream)); }

const char* rmsnorm_cuda_plan(const TestProblem* t, int32_t arch, int32_t processors,
                              int32_t shared_bytes, int64_t l2_bytes) {
  Problem p;
  const std::string error = to_device_problem(*t, &p);
  if (!error.empty()) return say(error);
  return say(
      to_text(cuda::plan(p, Element(t->scale_type), {arch, processors, shared_bytes, l2_bytes})));
}

double rmsnorm_cuda_host(const TestProblem* t, void* stream, int64_t repeats) {
  Problem p;
  if (!to_device_problem(*t, &p).empty()) return -1;
  bool refused = false;
  const auto start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < repeats; ++i) {
    refused |= !cuda::launch(p, Element(t->scale_type), stream).empty();
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - start;
  return refused ? -1 : took.count();
}
