// The kernels behind a C interface, so that tests/test_kernels.py reaches them without onnxruntime.
#include <cstring>
#include <memory>

#include "dispatch.h"
#include "layout.h"

using namespace rmsnorm;

namespace {

thread_local std::string answer;  // what the last call returned as text

const char* say(std::string text) {
  answer = std::move(text);
  return answer.c_str();
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

struct TestProblem {
  int32_t form, type, scale_type, stash, normalized, scaled;
  double epsilon, epsilon_outside, floor;
  const int64_t *shape, *axes, *scale_shape;
  int64_t rank, axis_count, scale_rank;
  const void *x, *second, *scale;
  void *y, *sum;
  int64_t split;  // items per kernel call, 0 for all at once
};

// Names of the supported instruction sets, best first, separated by spaces.
const char* rmsnorm_test_isas() {
  std::string names;
  for (const KernelSet* set : supported_kernel_sets()) names += std::string(" ") + set->name;
  return say(names);
}

// Empty when it ran, the text of the error otherwise.
const char* rmsnorm_test_run(const char* isa, const TestProblem* t) {
  std::string error;
  const KernelSet* kernels = select_kernel_set(isa, &error);
  if (!kernels) return say(error);
  const Shape x(t->shape, t->shape + t->rank);
  const Shape axes(t->axes, t->axes + t->axis_count);
  const Shape scale(t->scale_shape, t->scale_shape + t->scale_rank);
  const auto plan = plan_layout(x, axes, scale);
  if (const auto* text = std::get_if<std::string>(&plan)) return say(*text);
  Problem p;
  p.form = Form(t->form);
  p.type = Element(t->type);
  p.settings = {t->epsilon,        t->epsilon_outside,     t->floor,
                Element(t->stash), Element(t->normalized), Element(t->scaled)};
  p.layout = std::get<Layout>(plan);
  p.x = t->x;
  p.second = t->second;
  p.y = t->y;
  p.sum = t->sum;
  const int64_t count = p.layout.scale_elements;
  std::unique_ptr<char[]> converted(new char[size_t(count * size_of(p.settings.stash))]);
  if (t->scale) {
    kernels->convert(Element(t->scale_type), t->scale, p.settings.stash, converted.get(), count);
    p.scale = converted.get();
  }
  const int64_t items = p.layout.items();
  const int64_t step = t->split > 0 ? t->split : items + 1;
  for (int64_t begin = 0; begin < items; begin += step) {
    kernels->run(p, begin, begin + step < items ? begin + step : items);
  }
  return say("");
}

// A sentence about the layout, for tests of the plan alone.
const char* rmsnorm_test_layout(const int64_t* x, int64_t rank, const int64_t* axes,
                                int64_t axis_count, const int64_t* scale, int64_t scale_rank) {
  const auto plan = plan_layout(Shape(x, x + rank), Shape(axes, axes + axis_count),
                                Shape(scale, scale + scale_rank));
  if (const auto* text = std::get_if<std::string>(&plan)) return say(*text);
  const Layout& layout = std::get<Layout>(plan);
  return say(std::string(layout.columns ? "columns" : "rows") + " kept " +
             std::to_string(layout.kept.rank) + " reduced " + std::to_string(layout.reduced.rank) +
             " inner " + std::to_string(layout.inner) + " step " +
             std::to_string(layout.inner_scale) + " averaged " + std::to_string(layout.averaged));
}

}  // extern "C"
#pragma GCC visibility pop
