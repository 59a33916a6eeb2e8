#include "cuda_abi.h"

#include "../src/cuda/kernels.h"
#include "cuda_execution.h"
#include "test_problem.h"

using namespace rmsnorm;

namespace {

thread_local std::string answer;  // what the last call returned as text

// body(problem) for the device, or the text of what is wrong with the problem.
template <class Body>
const char* with_problem(const TestDevice& d, const TestProblem& t, Body body) {
  cuda_host::device = {d.arch, d.processors, d.shared_bytes, d.l2_bytes};
  Problem p;
  answer = to_problem(t, &p);
  p.scale = t.scale;
  p.streaming = t.streaming > 0;
  if (answer.empty()) answer = body(p);
  return answer.c_str();
}

std::string start(const Problem& p, Element scale_type, const cuda::Device& device) {
  if (p.layout.items() == 0) return "";
  const cuda::Plan plan = cuda::plan(p, scale_type, device);
  const auto choose = [&] {
    switch (plan.path) {
      case cuda::Path::kRows:
        return cuda::rows;
      case cuda::Path::kReread:
        return cuda::reread;
      default:
        return cuda::columns;
    }
  };
  return choose()(p, scale_type, plan, device, nullptr);
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
    return start(p, Element(t->scale_type), cuda_host::device);
  });
}

const char* rmsnorm_cuda_test_plan(const TestDevice* device, const TestProblem* t) {
  return with_problem(*device, *t, [&](const Problem& p) {
    return to_text(cuda::plan(p, Element(t->scale_type), cuda_host::device));
  });
}
