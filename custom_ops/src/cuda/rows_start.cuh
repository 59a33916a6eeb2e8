// From a plan to one of the kernels over rows.
#pragma once

#include "choose.h"
#include "reread.cuh"
#include "rows.cuh"
#include "rows.h"

namespace rmsnorm::cuda {

template <class S>
std::string enqueue_rows(void (*kernel)(const Task<S>), const Start& start) {
  const Plan& plan = start.plan;
  const Shape shape{plan.blocks, plan.threads * plan.rows, plan.shared_bytes, plan.cluster,
                    start.overlaps()};
  return enqueue(kernel, shape, start.stream, Task<S>(start.problem, start.scale_type, plan));
}

template <class T>
std::string start_rows(const Start& start) {
  using S = HeldStash<T>;
  return choose_form<T, S>(start.problem.form, [&](auto choice) {
    constexpr Form kForm = decltype(choice)::kForm;
    constexpr int kMost = kForm == Form::kPlain ? 8 : 4;
    if (start.plan.spread) {
      // Rows of a warp or more have four vectors at least.
      return start.plan.vectors == 4 ? enqueue_rows<S>(hold_rows<T, S, kForm, 4, true>, start)
                                     : enqueue_rows<S>(hold_rows<T, S, kForm, kMost, true>, start);
    }
    switch (start.plan.vectors) {
      case 1:
        return enqueue_rows<S>(hold_rows<T, S, kForm, 1, false>, start);
      case 2:
        return enqueue_rows<S>(hold_rows<T, S, kForm, 2, false>, start);
      case 4:
        return enqueue_rows<S>(hold_rows<T, S, kForm, 4, false>, start);
      default:
        return enqueue_rows<S>(hold_rows<T, S, kForm, kMost, false>, start);
    }
  });
}

template <class T>
std::string start_reread(const Start& start) {
  return choose<T>(start.problem, [&](auto choice) {
    using C = decltype(choice);
    return enqueue_rows<typename C::S>(reread_rows<T, typename C::S, C::kForm>, start);
  });
}

}  // namespace rmsnorm::cuda
