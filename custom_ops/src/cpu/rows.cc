// Norms whose innermost run is reduced: y = v / root(mean(v^2)) * scale along contiguous runs.
// Two passes: the first reads the row (and brings it to L1), the second reads it again and writes
// Y.
#include "cursor.h"
#include "kernels.h"
#include "stage.h"
#include "sum.h"

namespace rmsnorm::RMSNORM_ISA {
namespace {

// Short rows go through each pass in groups, so that the long latency of root and quotient of one
// row hides behind the others. A group stays in L1.
constexpr int kGroup = 8;
constexpr int64_t kGroupBytes = 16 * 1024;

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

// Passes over a few rows. Not inlined: each serves several forms.
template <Form F, class T, class S>
[[gnu::noinline]] void sum_rows(const Stage<T, S>& stage, const Layout& layout, Cursor row,
                                int count, double* sum) {
  for (int i = 0; i < count; ++i, row.next()) {
    Total<S> total;
    Cursor run(layout.reduced);
    for (int64_t r = 0; r < layout.reduced.count; ++r, run.next()) {
      add_run<F>(stage, row.x + run.x, layout.inner, total);
    }
    sum[i] = total.value();
  }
}

template <bool kSimple, class Store, class T, class S>
inline void finish_row(const Stage<T, S>& stage, const Problem& p, const Cursor& row,
                       const Reciprocal<T, S>& reciprocal) {
  const S* scale = static_cast<const S*>(p.scale);
  Cursor run(p.layout.reduced);
  for (int64_t r = 0; r < p.layout.reduced.count; ++r, run.next()) {
    const int64_t at = row.x + run.x;
    if (scale && p.layout.inner_scale) {
      finish_run<kSimple, Store>(stage, at, p.layout.inner, reciprocal,
                                 scale + row.scale + run.scale, 1);
    } else {
      S same[kWidth<S>];
      store_raw(same, broadcast<S>(scale ? scale[row.scale + run.scale] : S(1)));
      finish_run<kSimple, Store>(stage, at, p.layout.inner, reciprocal, same, 0);
    }
  }
}

template <bool kSimple, class Store, class T, class S>
[[gnu::noinline]] void finish_rows(const Stage<T, S>& stage, const Problem& p, Cursor row,
                                   int count, const double* sum, float* inverse) {
  S high[kGroup], low[kGroup];
  for (int i = 0; i < count; ++i) {
    reciprocal_of_root(p.settings, sum[i] / double(p.layout.averaged), high + i, low + i);
  }
  for (int i = 0; inverse && i < count; ++i) inverse[i] = float(high[i]);
  for (int i = 0; i < count; ++i, row.next()) {
    finish_row<kSimple, Store>(stage, p, row,
                               Reciprocal<T, S>{broadcast(high[i]), broadcast(low[i])});
  }
}

template <class T, class S, class Sum, class Finish>
[[gnu::noinline]] void run_rows(const Stage<T, S>& stage, const Problem& p, int64_t begin,
                                int64_t end, Sum* sum_some, Finish* finish_some) {
  const int64_t fit = kGroupBytes / (p.layout.averaged * int64_t(sizeof(T)));
  const int most = fit < 1 ? 1 : fit < kGroup ? int(fit) : kGroup;
  Cursor row(p.layout.kept, begin);
  while (begin < end) {
    const int count = end - begin < most ? int(end - begin) : most;
    double sum[kGroup];
    sum_some(stage, p.layout, row, count, sum);
    finish_some(stage, p, row, count, sum, p.inverse ? p.inverse + begin : nullptr);
    for (int i = 0; i < count; ++i) row.next();
    begin += count;
  }
}

// Where every run begins at a line of the cache.
template <class T>
bool streams(const Problem& p) {
  const int64_t run = p.layout.inner * int64_t(sizeof(T));
  return p.streaming && run % 64 == 0 && reinterpret_cast<uintptr_t>(p.y) % 64 == 0;
}

}  // namespace

template <class T, class S>
void rows(const Problem& p, int64_t begin, int64_t end) {
  const Stage<T, S> stage(p);
  choose(stage, [&](auto choice) {
    using C = decltype(choice);
    if constexpr (C::kSimple) {
      if (streams<T>(p)) {
        run_rows(stage, p, begin, end, sum_rows<C::kForm, T, S>, finish_rows<true, Streamed, T, S>);
        return end_streaming();
      }
    }
    run_rows(stage, p, begin, end, sum_rows<C::kForm, T, S>, finish_rows<C::kSimple, Full, T, S>);
  });
}

RMSNORM_INSTANTIATE(rows)

}  // namespace rmsnorm::RMSNORM_ISA
