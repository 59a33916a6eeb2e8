// Norms whose innermost run is reduced: y = v / root(mean(v^2)) * scale along contiguous runs.
// Two passes over a group of rows: the first reads them (and brings them to L1), the second reads
// them again and writes Y.
#include "cursor.h"
#include "kernels.h"
#include "stage.h"
#include "sum.h"

namespace rmsnorm::RMSNORM_ISA {
namespace {

// Rows go through each pass in groups, at least two, so that root and quotient are computed for
// eight rows at once and their latency counts once a group. A group stays in L1 if two rows do.
// Measured and dropped: pass 1 of a group between or inside pass 2 of the one before, and
// prefetches of the next group (both lose more in L1 than they gain in L2).
constexpr int kGroup = 32;
constexpr int64_t kGroupBytes = 16 * 1024;

// What the rows of a group are multiplied by.
template <class S>
struct Factors {
  S high[kGroup];
  S low[kGroup];
};

// Pass 2 takes narrow rows in fours, others in pairs: four wide rows and their four outputs compete
// for the same few places of L1.
constexpr int64_t kNarrowBytes = 1024;

// Vectors of pass 2 whose scale stays in registers from one row to the next.
constexpr int kUnroll = 4;
template <int kNumber>
struct Vectors {
  static constexpr int kCount = kNumber;
};

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
  const int64_t whole = at + (length & -int64_t(kLanes<S>));
  add_steps<F>(stage, at, whole, lane);
  if (whole == at + length) return total.add(lane);
  V<S> with_rest[kVectors];  // its address is taken; those above stay in registers
  for (int k = 0; k < kVectors; ++k) with_rest[k] = lane[k];
  add_rest<F>(stage, whole, at + length, with_rest);
  total.add(with_rest);
}

// Pass 2 over the last, incomplete vector.
template <bool kSimple, class T, class S>
[[gnu::noinline]] void finish_rest(const Stage<T, S>& stage, int64_t at, int count,
                                   const Reciprocal<T, S>& reciprocal, const S* scale, int step) {
  const V<S> factors = step ? load<S>(scale, count) : load<S>(scale);
  stage.template finish<kSimple>(at, reciprocal, factors, count);
}

// Loads that follow stores to addresses alike in their last 12 bits wait for them: then a run is
// walked from its end, as memcpy does. Not beyond L2, where prefetching upwards counts more.
template <class Store, class T, class S>
bool walks_down(const Stage<T, S>& stage, const Layout& layout) {
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
#pragma GCC unroll 2
    for (int k = 0; k < n; k += 2) {
      store_pair<S>(to + k * kWidth<S>, value[k], value[k + 1], Store{});
    }
  }
}

// Pass 2 over one contiguous run in each of kRows rows that share their scale, which has `step` 1,
// or 0 and a full vector of one value.
template <bool kSimple, bool kAnew, class Store, int kRows, class T, class S>
inline void finish_runs(const Stage<T, S>& shared, T* sum, const int64_t* start, int64_t length,
                        const Reciprocal<T, S>* given, const S* scale, int step, bool down) {
  const Stage<T, S> stage = shared;
  Reciprocal<T, S> reciprocal[kRows];
  int64_t at[kRows];
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    reciprocal[m] = given[m];
    at[m] = start[m];
  }
  const auto vectors_at = [&](int64_t i, auto vectors) {
    constexpr int n = decltype(vectors)::kCount;
    V<S> some[n];
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) some[k] = load<S>(scale + (i + k * kWidth<S>)*step);
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) {
      V<S> value[n], result[n];
#pragma GCC unroll 4
      for (int k = 0; k < n; ++k) {
        const int64_t here = at[m] + i + k * kWidth<S>;
        value[k] = stage.template value<kSimple, kAnew>(here);
        result[k] = stage.template result<kSimple>(here, value[k], reciprocal[m], some[k]);
      }
      if (kAnew && sum) store_all<S, n, Store>(sum + at[m] + i, value);
      store_all<S, n, Store>(stage.y + at[m] + i, result);
    }
  };
  int64_t whole = 0;
  if constexpr (kSimple) {
    constexpr int64_t block = kUnroll * kWidth<S>;
    const int64_t blocks = int64_t(uint64_t(length) / uint64_t(block));
    const int64_t next = down ? -block : block;
    int64_t i = down ? (blocks - 1) * block : 0;
    for (int64_t b = 0; b < blocks; ++b, i += next) vectors_at(i, Vectors<kUnroll>{});
    whole = blocks * block;
  }
  for (; whole + kWidth<S> <= length; whole += kWidth<S>) vectors_at(whole, Vectors<1>{});
  if (whole == length) return;
  for (int m = 0; m < kRows; ++m) {
    finish_rest<kSimple>(shared, start[m] + whole, int(length - whole), given[m],
                         scale + whole * step, step);
  }
}

// Pass 1 over a few rows, up to the factor of each. Not inlined: each serves several forms.
template <Form F, class T, class S>
[[gnu::noinline]] void sum_rows(const Stage<T, S>& stage, const Problem& p, const int64_t* row,
                                int count, Factors<S>* factors) {
  Total<S> total[kGroup];
  const int64_t runs = p.layout.reduced.count, length = p.layout.inner;
  for (int i = 0; i < count; ++i) {
    Total<S> sum;
    sum.clear();
    Cursor run(p.layout.reduced);
    for (int64_t r = 0; r < runs; ++r, run.next()) add_run<F>(stage, row[i] + run.x, length, sum);
    total[i] = sum;
  }
  if (count == 1) {  // eight at once take 35 ns longer than one alone
    return reciprocal_of_root(p.settings, total[0].value() / double(p.layout.averaged),
                              factors->high, factors->low);
  }
  for (int i = count; i % kWidth<double> != 0; ++i) total[i].clear();
  for (int i = 0; i < count; i += kWidth<double>) {
    const V<double> mean = Total<S>::values(total + i) / double(p.layout.averaged);
    reciprocals_of_roots(p.settings, mean, factors->high + i, factors->low + i);
  }
}

template <bool kSimple, bool kAnew, class Store, int kRows, class T, class S>
inline void finish_few(const Stage<T, S>& stage, const Problem& p, const int64_t* row,
                       int64_t scale_at, const Factors<S>& factors, int first) {
  Reciprocal<T, S> reciprocal[kRows];
  for (int m = 0; m < kRows; ++m) {
    reciprocal[m] =
        Reciprocal<T, S>{broadcast(factors.high[first + m]), broadcast(factors.low[first + m])};
  }
  const S* const scale = static_cast<const S*>(p.scale);
  const bool along = scale && p.layout.inner_scale;
  Cursor run(p.layout.reduced);
  for (int64_t r = 0; r < p.layout.reduced.count; ++r, run.next()) {
    int64_t at[kRows];
    for (int m = 0; m < kRows; ++m) at[m] = row[m] + run.x;
    S same[kWidth<S>];
    if (!along) store_raw(same, broadcast<S>(scale ? scale[scale_at + run.scale] : S(1)));
    finish_runs<kSimple, kAnew, Store, kRows>(
        stage, static_cast<T*>(p.sum), at, p.layout.inner, reciprocal,
        along ? scale + scale_at + run.scale : same, along, walks_down<Store>(stage, p.layout));
  }
}

// Pass 2 over a few rows.
template <bool kSimple, bool kAnew, class Store, class T, class S>
[[gnu::noinline]] void finish_rows(const Stage<T, S>& stage, const Problem& p, const int64_t* row,
                                   const int64_t* scale, int count, const Factors<S>& factors) {
  bool alike = true;
  for (int i = 1; i < count; ++i) alike &= scale[i] == scale[0];
  int i = 0;
  if constexpr (kSimple) {
    const bool narrow =
        !__is_same(Store, Streamed) && p.layout.averaged * int64_t(sizeof(T)) <= kNarrowBytes;
    for (; alike && narrow && i + 4 <= count; i += 4) {
      finish_few<kSimple, kAnew, Store, 4>(stage, p, row + i, scale[i], factors, i);
    }
    for (; alike && i + 2 <= count; i += 2) {
      finish_few<kSimple, kAnew, Store, 2>(stage, p, row + i, scale[i], factors, i);
    }
  }
  for (; i < count; ++i)
    finish_few<kSimple, kAnew, Store, 1>(stage, p, row + i, scale[i], factors, i);
}

template <class T, class S, class Sum, class Finish>
[[gnu::noinline]] void run_rows(const Stage<T, S>& stage, const Problem& p, int64_t begin,
                                int64_t end, Sum* sum_some, Finish* finish_some) {
  const int64_t fit = kGroupBytes / (p.layout.averaged * int64_t(sizeof(T)));
  const int64_t most = fit < 2 ? 2 : fit < kGroup ? fit : kGroup;
  Cursor cursor(p.layout.kept, begin);
  while (begin < end) {
    const int count = int(end - begin < most ? end - begin : most);
    int64_t row[kGroup], scale[kGroup];
    cursor.take(count, row, scale);
    Factors<S> factors;
    sum_some(stage, p, row, count, &factors);
    for (int i = 0; p.inverse && i < count; ++i) p.inverse[begin + i] = float(factors.high[i]);
    finish_some(stage, p, row, scale, count, factors);
    begin += count;
  }
}

// Where every run begins at a line of the cache.
template <class T>
bool streams(const Problem& p) {
  const uintptr_t run = uintptr_t(p.layout.inner) * sizeof(T);
  const uintptr_t both = reinterpret_cast<uintptr_t>(p.y) | reinterpret_cast<uintptr_t>(p.sum);
  return p.streaming && (run | both) % 64 == 0;
}

}  // namespace

template <class T, class S>
void rows(const Problem& p, int64_t begin, int64_t end) {
  Stage<T, S> stage(p);
  choose(stage, [&](auto choice) {
    using C = decltype(choice);
    const auto sum = sum_rows<C::kForm, T, S>;
    if constexpr (C::kSimple) {
      if (streams<T>(p)) {
        // The residual sum is added twice and written once, past the caches, in pass 2: a store in
        // pass 1 would read its lines from memory first (float32: 1.3-1.8 x as fast; a narrower
        // type would be rounded twice, which takes what it gains).
        constexpr bool anew = C::kForm == Form::kSkip && __is_same(T, S);
        if (anew) stage.kept = nullptr;
        run_rows(stage, p, begin, end, sum, finish_rows<true, anew, Streamed, T, S>);
        return end_streaming();
      }
    }
    run_rows(stage, p, begin, end, sum, finish_rows<C::kSimple, false, Full, T, S>);
  });
}

RMSNORM_INSTANTIATE(rows)

}  // namespace rmsnorm::RMSNORM_ISA
