// The two passes over contiguous runs of elements.
#pragma once

#include "stage.h"
#include "sum.h"

namespace rmsnorm::RMSNORM_ISA {

// Vectors that pass 2 takes at once; their scale stays in registers from one row to the next.
constexpr int kUnroll = 4;
template <int kNumber>
struct Vectors {
  static constexpr int kCount = kNumber;
};

// Pass 1 over whole steps of kLanes elements. The lanes live in registers as long as nothing but
// loads and FMA stands in the loop and no call follows that they would have to survive.
template <Form F, class T, class S>
[[gnu::always_inline]] inline void add_steps(const Stage<T, S>& shared, int64_t at, int64_t end,
                                             V<S>* lane) {
  const Stage<T, S> stage = shared;  // in registers: a store might change what others can see
  V<S> sum[kVectors] = {};
  constexpr int kHalf = kVectors / 2;
  for (; at < end; at += kLanes<S>) {
#pragma GCC unroll 8
    for (int k = 0; k < kHalf; ++k) {
      // Even elements in the first half of the lanes, odd ones in the second, at any width.
      constexpr bool split = kByParity<S, T>;
      V<S>&a = sum[split ? k : 2 * k], &b = sum[split ? kHalf + k : 2 * k + 1];
      V<S> v[2];
      stage.template first_two<F>(at + 2 * k * kWidth<S>, v);
      a = fma(v[0], v[0], a);
      b = fma(v[1], v[1], b);
    }
  }
#pragma GCC unroll 16
  for (int k = 0; k < kVectors; ++k) lane[k] = sum[k];
}

// Pass 1 over the last, incomplete step.
template <Form F, class T, class S>
[[gnu::always_inline]] inline void add_rest(const Stage<T, S>& stage, int64_t at, int64_t end,
                                            V<S>* lane) {
  for (; at < end; at += kWidth<S>, ++lane) {
    const V<S> v = end - at >= kWidth<S> ? stage.template first<F>(at)
                                         : stage.template first<F>(at, int(end - at));
    *lane = fma(v, v, *lane);
  }
}

// Pass 1 over one contiguous run.
template <Form F, class T, class S>
[[gnu::always_inline]] inline void add_run(const Stage<T, S>& stage, int64_t at, int64_t length,
                                           Total<S>& total) {
  constexpr int64_t kBlock = int64_t(kLanes<S>) * kStepsPerBlock;
  V<S> lane[kVectors];
  for (; length >= kBlock; at += kBlock, length -= kBlock) {
    add_steps<F>(stage, at, at + kBlock, lane);
    total.add(lane);
  }
  if (length == 0) return;
  const int64_t whole = at + (length & -int64_t(kLanes<S>));
  add_steps<F>(stage, at, whole, lane);
  if (whole == at + length) return total.add(lane);
  V<S> with_rest[kVectors];  // its address is taken; those above stay in registers
  for (int k = 0; k < kVectors; ++k) with_rest[k] = lane[k];
  add_rest<F>(stage, whole, at + length, with_rest);
  total.add(with_rest);
}

// What `count` rows are multiplied by, from their sums; `total`, `high` and `low` have room for
// whole vectors of doubles.
template <class S>
[[gnu::always_inline]] inline void find_roots(const Problem& p, Total<S>* total, int count, S* high,
                                              S* low) {
  const double averaged = double(p.layout.averaged);
  if (count == 1) {  // eight at once take 35 ns longer than one alone
    return reciprocal_of_root(p.settings, mean_of<S>(total->value(), averaged), high, low);
  }
  for (int i = count; i % kWidth<double> != 0; ++i) total[i].clear();
  for (int i = 0; i < count; i += kWidth<double>) {
    reciprocals_of_roots(p.settings, mean_of<S>(Total<S>::values(total + i), averaged), high + i,
                         low + i);
  }
}

// Pass 2 over the last, incomplete vector.
template <bool kSimple, class T, class S, class W>
[[gnu::noinline]] void finish_rest(const Stage<T, S>& stage, int64_t at, int count, S high, S low,
                                   const W* scale, int step) {
  const V<S> factors = step ? load<S>(scale, count) : load<S>(scale);
  const Reciprocal<T, S> reciprocal{broadcast(high), broadcast(low)};
  stage.template finish<kSimple>(at, reciprocal, factors, count);
}

// Loads that follow stores to addresses alike in their last 12 bits wait for them: then a run is
// walked from its end, as memcpy does. Not beyond L2, where prefetching upwards counts more.
template <class Store, class T, class S>
inline bool walks_down(const Stage<T, S>& stage, const Layout& layout) {
  constexpr int64_t kMostBytes = 256 * 1024;
  const uintptr_t apart = reinterpret_cast<uintptr_t>(stage.y) -
                          reinterpret_cast<uintptr_t>(stage.again ? stage.again : stage.x);
  return !__is_same(Store, Streamed) && apart % 4096 != 0 && apart % 4096 < 2048 &&
         layout.kept.count * layout.averaged * int64_t(sizeof(T)) <= kMostBytes;
}

template <class S, int n, class Store, class T>
inline void store_all(T* to, const V<S>* value) {
  if constexpr (n == 1) {
    store<S>(to, value[0], Store{});
  } else {
#pragma GCC unroll 4
    for (int k = 0; k < n; k += 2) store_two<S>(to + k * kWidth<S>, value + k, Store{});
  }
}

// Pass 2 over one contiguous run in each of kRows rows, which have a factor each and share their
// scale; that has `step` 1, or 0 and a full vector of one value. While Y passes the caches by, what
// lies `ahead` is read into them.
template <bool kSimple, bool kAnew, class Store, int kRows, int kAtOnce = kUnroll, class T, class S,
          class W>
[[gnu::always_inline]] inline void finish_runs(const Stage<T, S>& shared, T* sum,
                                               const int64_t* start, int64_t length, int64_t ahead,
                                               const S* high, const S* low, const W* scale,
                                               int step, bool down) {
  const Stage<T, S> stage = shared;
  Reciprocal<T, S> reciprocal[kRows];
  int64_t at[kRows];
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    reciprocal[m] = Reciprocal<T, S>{broadcast(high[m]), broadcast(low[m])};
    at[m] = start[m];
  }
  const auto vectors_at = [&](int64_t i, auto vectors) {
    constexpr int n = decltype(vectors)::kCount;
    V<S> some[n];
    if constexpr (n == 1) {
      some[0] = load<S>(scale + i * step);
    } else {
#pragma GCC unroll 4
      for (int k = 0; k < n; k += 2) {
        load_two_for<T, S>(scale + (i + k * kWidth<S>)*step, kWidth<S> * step, some + k);
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) {
      V<S> value[n], result[n];
      if constexpr (n == 1) {
        value[0] = stage.template value<kSimple, kAnew>(at[m] + i);
      } else {
#pragma GCC unroll 4
        for (int k = 0; k < n; k += 2) {
          stage.template simple_two<kAnew>(at[m] + i + k * kWidth<S>, value + k);
        }
      }
#pragma GCC unroll 8
      for (int k = 0; k < n; ++k) {
        const int64_t here = at[m] + i + k * kWidth<S>;
        if constexpr (__is_same(Store, Streamed)) {
          prefetch(stage.x + here + ahead);
          if (kAnew) prefetch(stage.second + here + ahead);
        }
        result[k] = stage.template result<kSimple>(here, value[k], reciprocal[m], some[k]);
      }
      if (kAnew && sum) store_all<S, n, Store>(sum + at[m] + i, value);
      store_all<S, n, Store>(stage.y + at[m] + i, result);
    }
  };
  int64_t whole = 0;
  if constexpr (kSimple) {
    constexpr int64_t block = kAtOnce * kWidth<S>;
    const int64_t blocks = int64_t(uint64_t(length) / uint64_t(block));
    const int64_t next = down ? -block : block;
    int64_t i = down ? (blocks - 1) * block : 0;
    for (int64_t b = 0; b < blocks; ++b, i += next) vectors_at(i, Vectors<kAtOnce>{});
    whole = blocks * block;
  } else if (kRows == 1 && stage.is_gated()) {
    // Whole steps, as pass 1 took them.
    constexpr int n = kTogether;
    for (const int64_t end = length & -int64_t(kLanes<S>); whole < end; whole += n * kWidth<S>) {
      V<S> some[n];
#pragma GCC unroll 2
      for (int k = 0; k < n; k += 2) {
        load_two_for<T, S>(scale + (whole + k * kWidth<S>)*step, kWidth<S> * step, some + k);
      }
      stage.template finish_gated<n, Store>(at[0] + whole, reciprocal[0], some);
    }
  }
  for (; whole + kWidth<S> <= length; whole += kWidth<S>) vectors_at(whole, Vectors<1>{});
  if (whole == length) return;
  for (int m = 0; m < kRows; ++m) {
    finish_rest<kSimple>(shared, start[m] + whole, int(length - whole), high[m], low[m],
                         scale + whole * step, step);
  }
}

// Where every run begins at a line of the cache.
template <class T>
inline bool streams(const Problem& p) {
  const uintptr_t run = uintptr_t(p.layout.inner) * sizeof(T);
  const uintptr_t both = reinterpret_cast<uintptr_t>(p.y) | reinterpret_cast<uintptr_t>(p.sum);
  return p.streaming && (run | both) % 64 == 0;
}

}  // namespace rmsnorm::RMSNORM_ISA
