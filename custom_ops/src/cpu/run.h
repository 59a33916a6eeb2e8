// The two passes over one contiguous run of elements.
#pragma once

#include "stage.h"
#include "sum.h"

namespace rmsnorm::RMSNORM_ISA {

// Pass 1 over whole steps of kLanes elements. The lanes live in registers as long as nothing but
// loads and FMA stands in the loop and no call follows that they would have to survive.
template <Form F, class T, class S>
inline void add_steps(const Stage<T, S>& shared, int64_t at, int64_t end, V<S>* lane) {
  const Stage<T, S> stage = shared;  // in registers: a store might change what others can see
  V<S> sum[kVectors] = {};
  for (; at < end; at += kLanes<S>) {
#pragma GCC unroll 16
    for (int k = 0; k < kVectors; ++k) {
      const V<S> v = stage.template first<F>(at + k * kWidth<S>);
      sum[k] = fma(v, v, sum[k]);
    }
  }
#pragma GCC unroll 16
  for (int k = 0; k < kVectors; ++k) lane[k] = sum[k];
}

// Pass 1 over the last, incomplete step.
template <Form F, class T, class S>
[[gnu::noinline]] void add_rest(const Stage<T, S>& stage, int64_t at, int64_t end, V<S>* lane) {
  for (; at < end; at += kWidth<S>, ++lane) {
    const V<S> v = end - at >= kWidth<S> ? stage.template first<F>(at)
                                         : stage.template first<F>(at, int(end - at));
    *lane = fma(v, v, *lane);
  }
}

// Pass 1 over one contiguous run.
template <Form F, class T, class S>
inline void add_run(const Stage<T, S>& stage, int64_t at, int64_t length, Total<S>& total) {
  constexpr int64_t kBlock = int64_t(kLanes<S>) * kStepsPerBlock;
  V<S> lane[kVectors];
  for (; length >= kBlock; at += kBlock, length -= kBlock) {
    add_steps<F>(stage, at, at + kBlock, lane);
    total.add(lane);
  }
  if (length == 0) return;
  const int64_t whole = at + length / kLanes<S> * kLanes<S>;
  add_steps<F>(stage, at, whole, lane);
  if (whole < at + length) add_rest<F>(stage, whole, at + length, lane);
  total.add(lane);
}

// Pass 2 over the last, incomplete vector.
template <bool kSimple, class T, class S>
[[gnu::noinline]] void finish_rest(const Stage<T, S>& stage, int64_t at, int count,
                                   const Reciprocal<T, S>& reciprocal, const S* scale, int step) {
  const V<S> factor = step ? load<S>(scale, count) : load<S>(scale);
  stage.template finish<kSimple>(at, reciprocal, factor, count);
}

// Pass 2 over one contiguous run. The scale has `step` 1, or 0 and a full vector of one value.
template <bool kSimple, class Store, class T, class S>
inline void finish_run(const Stage<T, S>& shared, int64_t at, int64_t length,
                       const Reciprocal<T, S>& reciprocal, const S* scale, int step) {
  const Stage<T, S> stage = shared;
  const int64_t end = at + length;
  const int64_t whole = at + length / kWidth<S> * kWidth<S>;
  if constexpr (kSimple) {
#pragma GCC unroll 4
    for (; at < whole; at += kWidth<S>, scale += kWidth<S> * step) {
      stage.template finish<true>(at, reciprocal, load<S>(scale), Store{});
    }
  } else {
    for (; at < whole; at += kWidth<S>, scale += kWidth<S> * step) {
      stage.template finish<false>(at, reciprocal, load<S>(scale));
    }
  }
  if (at < end) finish_rest<kSimple>(shared, at, int(end - at), reciprocal, scale, step);
}

// Where every run begins at a line of the cache.
template <class T>
inline bool streams(const Problem& p) {
  const int64_t run = p.layout.inner * int64_t(sizeof(T));
  return p.streaming && run % 64 == 0 && reinterpret_cast<uintptr_t>(p.y) % 64 == 0;
}

}  // namespace rmsnorm::RMSNORM_ISA
