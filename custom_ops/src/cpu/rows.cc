// Norms whose innermost run is reduced: y = v / root(mean(v^2)) * scale along contiguous runs.
// Two passes over a group of rows: the first reads them (and brings them to L1), the second reads
// them again and writes Y.
#include "cursor.h"
#include "kernels.h"
#include "run.h"

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

template <class T>
inline int64_t most_rows(const Problem& p) {
  // A residual sum reads two arrays and writes two: with 32 rows of 128 they leave L1, which cost
  // up to 1.4 x in L3.
  const int64_t touched = p.second ? 4 : 1;
  const int64_t fit = kGroupBytes / (p.layout.averaged * int64_t(sizeof(T)) * touched);
  return fit < 2 ? 2 : fit < kGroup ? fit : kGroup;
}

template <class T, class S, class Sum, class Finish>
[[gnu::noinline]] void run_rows(const Stage<T, S>& stage, const Problem& p, int64_t begin,
                                int64_t end, Sum* sum_some, Finish* finish_some) {
  const int64_t most = most_rows<T>(p);
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

// Rows that are computed in S and not kept in T lie in a ring from one pass to the next where a
// group of them fits and has no gaps: else pass 2 computes them once more.
template <class T, class S, class Sum, class Finish>
[[gnu::noinline]] void run_holding(Stage<T, S> stage, const Problem& p, int64_t begin, int64_t end,
                                   Sum* sum_some, Finish* finish_some) {
  alignas(64) S ring[Stage<T, S>::kRing];
  const int64_t group = most_rows<T>(p) * p.layout.averaged;
  if (!stage.again && p.layout.reduced.count == 1 && group <= Stage<T, S>::kHeld) stage.held = ring;
  run_rows(stage, p, begin, end, sum_some, finish_some);
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
    const auto finish = finish_rows<C::kSimple, false, Full, T, S>;
    if constexpr (C::kForm == Form::kPreGated && !C::kSimple) {
      return run_holding(stage, p, begin, end, sum, finish);
    }
    run_rows(stage, p, begin, end, sum, finish);
  });
}

#define RMSNORM_INSTANTIATE(T, S) template void rows<T, S>(const Problem&, int64_t, int64_t);
RMSNORM_EACH_TYPE(RMSNORM_INSTANTIATE)

}  // namespace rmsnorm::RMSNORM_ISA
