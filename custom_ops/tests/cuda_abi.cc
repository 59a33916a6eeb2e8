#include "cuda_abi.h"

#include "../src/cuda/kernels.h"
#include "cuda_execution.h"
#include "test_problem.h"

using namespace rmsnorm;

namespace {

// body(problem) for the device, or the text of what is wrong with the problem.
template <class Body>
const char* with_problem(const TestDevice& d, const TestProblem& t, Body body) {
  cuda_host::device = {d.arch, d.processors, d.shared_bytes, d.l2_bytes};
  Problem p;
  const std::string error = to_problem(t, &p);
  p.scale = t.scale;
  p.streaming = t.streaming > 0;
  return say(error.empty() ? body(p) : error);
}

}  // namespace

const char* rmsnorm_cuda_test_run(const TestDevice* device, const TestProblem* t) {
  return with_problem(*device, *t, [&](const Problem& p) {
    const int64_t bytes = p.layout.elements() * size_of(p.type);
    cuda_host::allow_nothing();
    for (const void* tensor :
         {p.x, p.second, static_cast<const void*>(p.y), static_cast<const void*>(p.sum)}) {
      cuda_host::allow(tensor, bytes);
    }
    cuda_host::allow(p.scale, p.layout.scale_elements * size_of(Element(t->scale_type)));
    if (p.layout.items() == 0) return std::string();
    const Element scale_type = Element(t->scale_type);
    const cuda::Plan plan = cuda::plan(p, scale_type, cuda_host::device);
    return cuda::start({p, scale_type, plan, cuda_host::device, nullptr});
  });
}

const char* rmsnorm_cuda_test_plan(const TestDevice* device, const TestProblem* t) {
  return with_problem(*device, *t, [&](const Problem& p) {
    return to_text(cuda::plan(p, Element(t->scale_type), cuda_host::device));
  });
}
