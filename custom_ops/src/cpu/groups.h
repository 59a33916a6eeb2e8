// Pass 2 of wide rows by columns. A line takes two cycles from L2 to L1, and that is what such rows
// wait for: X twice, Y to be written, and the scale. The rows of a group share a block of the
// scale.
#pragma once

#include "ahead.h"

namespace rmsnorm::RMSNORM_ISA {

constexpr int64_t kPageBytes = 4096;

// Rows of a group, how many of them pass 2 takes at once, vectors at once in each, and bytes of a
// row between one row and the next.
template <int kMost, int kAtOnce, int kVectorsAtOnce, int64_t kBytes>
struct GroupOf {
  static constexpr int kRows = kMost;
  static constexpr int kTogether = kAtOnce;
  static constexpr int kUnroll = kVectorsAtOnce;
  static constexpr int64_t kColumnBytes = kBytes;
};
// Longer columns are as fast in L2 and up to 1.2 x slower in L3 (with 16 rows a group, or next rows
// prefetched, no faster). Loads of eight lines, then stores: 1.05-1.1 x as fast as four.
using Groups = GroupOf<8, 1, 8, 1024>;
// From 64 KiB of scale on, where X is read from L3 once more. Beside Groups: as fast at 32768 and
// 65536 floats, 1.1 x at 131072 and 262144.
using WideGroups = GroupOf<4, 2, 4, 2048>;
// Rows of 16 bits no wider than a page, a whole one after the other: roots are found less often
// (float16, beside Groups: 1.02-1.06 x as fast; float32: 1.0).
using ShortGroups = GroupOf<16, 1, 8, kPageBytes>;
using SingleRows = GroupOf<1, 1, kUnroll, 0>;
using LoneRow = GroupOf<1, 1, 8, 0>;

// Pass 2 over one run in each of `count` rows of a group, which begin at `first` and are `apart`.
template <class G, bool kSimple, class Store, class T, class S, class W>
[[gnu::always_inline]] inline void finish_columns(const Stage<T, S>& stage, int64_t first,
                                                  int64_t apart, int count, int64_t length,
                                                  const S* high, const S* low, const W* scale,
                                                  int step) {
  T* const no_sum = nullptr;  // pass 1 has written it
  const auto finish = [&](int i, int64_t from, int64_t columns,
                          auto rows) __attribute__((always_inline)) {
    constexpr int kRows = decltype(rows)::kCount;
    int64_t at[kRows];
    for (int m = 0; m < kRows; ++m) at[m] = first + (i + m) * apart + from;
    finish_runs<kSimple, false, Store, kRows, G::kUnroll>(
        stage, no_sum, at, columns, 0, high + i, low + i, scale + from * step, step, false);
  };
  const auto finish_all = [&](int64_t from, int64_t columns) __attribute__((always_inline)) {
    int i = 0;
    if constexpr (G::kTogether > 1) {
      constexpr int n = G::kTogether;
      for (; i + n <= count; i += n) finish(i, from, columns, Vectors<n>{});
    }
    for (; i < count; ++i) finish(i, from, columns, Vectors<1>{});
  };
  if (G::kRows == 1 || count == 1) return finish(0, 0, length, Vectors<1>{});
  constexpr int64_t kColumns = G::kColumnBytes / int64_t(sizeof(T));
  int64_t from = 0;
  for (; from + kColumns <= length; from += kColumns) finish_all(from, kColumns);
  if (from < length) finish_all(from, length - from);
}

// Rows for which it was measured to be faster, of those that ahead.h leaves and with vectors of 32
// bytes and more: 1.05-1.3 x from 4 KiB of X on.
template <Form F, class T, class S>
bool takes_groups(const Problem& p) {
  const bool wide = p.layout.inner * int64_t(sizeof(T)) > kPageBytes;
  return is_dense(p) && (wide || is_short<F, T, S>(p));
}

// Pass 1 over one row that reads memory, the lines of Y as well.
template <Form F, class T, class S>
[[gnu::noinline]] void add_fetching(const Stage<T, S>& stage, int64_t at, int64_t length,
                                    Total<S>& total) {
  constexpr int64_t kBlock = int64_t(kLanes<S>) * kStepsPerBlock;
  for (const int64_t end = at + length; at < end; at += kBlock) {
    const int64_t count = end - at < kBlock ? end - at : kBlock;
    for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(T))) prefetch(stage.y + at + i);
    add_run<F>(stage, at, count, total);
  }
}

template <class G, Form F, class T, class S, class W>
[[gnu::noinline]] void run_groups(const Stage<T, S>& shared, const Problem& p, int64_t begin,
                                  int64_t end, const W* scale) {
  constexpr int kPlaces = G::kRows < kWidth<double> ? kWidth<double> : G::kRows;
  const Stage<T, S> stage = shared;  // that no store changes: 1.03-1.06 x as fast at 16 x 4096
  const int64_t length = p.layout.inner;
  // A residual sum moves four arrays: 1.0-1.12 x as fast from 6 MB of X on, 0.95-1.05 x at 4 MB.
  constexpr int64_t kMostCached = 4 << 20;
  const bool fetches =
      F == Form::kSkip && p.layout.kept.count * length * int64_t(sizeof(T)) > kMostCached;
  Total<S> total[kPlaces];
  S high[kPlaces], low[kPlaces];
  for (int count; begin < end; begin += count) {
    count = end - begin < G::kRows ? int(end - begin) : G::kRows;
    const int64_t first = begin * length;
    for (int i = 0; i < count; ++i) {
      Total<S> sum;
      sum.clear();
      fetches ? add_fetching<F>(stage, first + i * length, length, sum)
              : add_run<F>(stage, first + i * length, length, sum);
      total[i] = sum;
    }
    find_roots(p, total, count, high, low);
    for (int i = 0; p.inverse && i < count; ++i) p.inverse[begin + i] = float(high[i]);
    finish_columns<G, true, Full>(stage, first, length, count, length, high, low, scale, 1);
  }
}

// The scale is read as W.
template <Form F, class T, class S, class W>
void run_groups_of(const Stage<T, S>& stage, const Problem& p, int64_t begin, int64_t end,
                   const W* scale) {
  constexpr int64_t most = 64 * 1024 / int64_t(sizeof(W));
  if constexpr (sizeof(T) == 2) {
    const bool is_narrow = p.layout.inner * int64_t(sizeof(T)) <= kPageBytes;
    if (is_narrow) return run_groups<ShortGroups, F>(stage, p, begin, end, scale);
  }
  p.layout.inner <= most ? run_groups<Groups, F>(stage, p, begin, end, scale)
                         : run_groups<WideGroups, F>(stage, p, begin, end, scale);
}

template <Form F, class T, class S>
void run_groups(const Stage<T, S>& stage, const Problem& p, int64_t begin, int64_t end) {
  // Floats have to be put in the order of load_two, bfloat16 come in it: 1.05-1.15 x as fast.
  if constexpr (kByParity<S, T>) {
    const T* const own = static_cast<const T*>(p.own_scale);
    if (own) return run_groups_of<F>(stage, p, begin, end, own);
  }
  run_groups_of<F>(stage, p, begin, end, static_cast<const S*>(p.scale));
}

// Whether it was one row of 16 bits, whose scale is half as many bytes as in float, and read once:
// bfloat16 1.1-1.5 x as fast from 1024 elements on, float16 1.0-1.15 x; float32 apart from the
// groups gained nothing. Narrower rows are for ahead.h.
template <Form F, class T, class S>
bool run_alone(const Stage<T, S>& stage, const Problem& p, int64_t begin, int64_t end) {
  if (!p.own_scale || end - begin != 1 || p.layout.inner <= 256 || !is_dense(p)) return false;
  run_groups<LoneRow, F>(stage, p, begin, end, static_cast<const T*>(p.own_scale));
  return true;
}

}  // namespace rmsnorm::RMSNORM_ISA
