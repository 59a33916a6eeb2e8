// From a plan to one of the kernels over rows.
#pragma once

#include "choose.h"
#include "rows.cuh"
#include "rows.h"

namespace rmsnorm::cuda {

template <class S>
std::string enqueue_rows(void (*kernel)(const Task<S>), const Start& start) {
  constexpr int kDependentLaunch = 90;
  const Plan& plan = start.plan;
  const Shape shape{plan.blocks, plan.threads * plan.rows, plan.shared_bytes, plan.cluster,
                    start.device.arch >= kDependentLaunch};
  return enqueue(kernel, shape, start.stream, Task<S>(start.problem, start.scale_type, plan));
}

template <class T>
std::string start_rows(const Start& start) {
  return choose<T>(start.problem, [&](auto choice) -> std::string {
    using C = decltype(choice);
    using S = typename C::S;
    if constexpr (C::kIsCommon) {
      if constexpr (!C::kHoldsTwo) {
        if (start.plan.vectors == 8)
          return enqueue_rows<S>(hold_rows<T, S, C::kForm, 8, false>, start);
      }
      if (start.plan.vectors == 4)
        return enqueue_rows<S>(hold_rows<T, S, C::kForm, 4, false>, start);
      if (start.plan.vectors == 2)
        return enqueue_rows<S>(hold_rows<T, S, C::kForm, 2, false>, start);
    }
    return enqueue_rows<S>(hold_rows<T, S, C::kForm, 1, false>, start);
  });
}

template <class T>
std::string start_cluster(const Start& start) {
  return choose<T>(start.problem, [&](auto choice) -> std::string {
    using C = decltype(choice);
    if constexpr (C::kIsCommon) {
      constexpr int kCount = C::kHoldsTwo ? 4 : 8;
      return enqueue_rows<typename C::S>(hold_rows<T, typename C::S, C::kForm, kCount, true>,
                                         start);
    }
    return "no cluster holds rows of these types";
  });
}

template <class T>
std::string start_reread(const Start& start) {
  return choose<T>(start.problem, [&](auto choice) -> std::string {
    using C = decltype(choice);
    using S = typename C::S;
    if constexpr (C::kIsCommon) {
      if (start.plan.cluster > 1) return enqueue_rows<S>(reread_rows<T, S, C::kForm, true>, start);
    }
    return enqueue_rows<S>(reread_rows<T, S, C::kForm, false>, start);
  });
}

}  // namespace rmsnorm::cuda
