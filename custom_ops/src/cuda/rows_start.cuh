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

template <class T, class S, Form kForm, Access kAccess>
std::string enqueue_held(const Start& start) {
  constexpr int kMost = kForm == Form::kPlain && kAccess != Access::kShifted ? 8 : 4;
  const auto with = [&](auto vectors) {
    return enqueue_rows<S>(hold_rows<T, S, kForm, decltype(vectors)::value, kAccess>, start);
  };
  if constexpr (kAccess != Access::kSpread) {  // that has rows of a warp or more, of four vectors
    if (start.plan.vectors == 1) return with(std::integral_constant<int, 1>{});
    if (start.plan.vectors == 2) return with(std::integral_constant<int, 2>{});
  }
  if (start.plan.vectors == 4) return with(std::integral_constant<int, 4>{});
  return with(std::integral_constant<int, kMost>{});
}

template <class T>
std::string start_rows(const Start& start) {
  using S = HeldStash<T>;
  return choose_form<T, S>(start.problem.form, [&](auto choice) {
    constexpr Form kForm = decltype(choice)::kForm;
    switch (start.plan.access) {
      case Access::kAligned:
        return enqueue_held<T, S, kForm, Access::kAligned>(start);
      case Access::kShifted:
        return enqueue_held<T, S, kForm, Access::kShifted>(start);
      default:
        return enqueue_held<T, S, kForm, Access::kSpread>(start);
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
