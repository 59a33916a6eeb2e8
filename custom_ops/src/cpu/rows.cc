// Norms whose innermost run is reduced: y = v / root(mean(v^2)) * scale along contiguous runs.
// Two passes over a group of rows: the first reads them (and brings them to L1), the second reads
// them again and writes Y.
#include "cursor.h"
#include "groups.h"
#include "kernels.h"
#include "run.h"

namespace rmsnorm::RMSNORM_ISA {
namespace {

// Rows go through each pass in groups, so that root and quotient are computed for eight rows at
// once and their latency counts once a group. A group stays in L1 if two rows do. (Rows that
// ahead.h and groups.h take do not come here.) Measured and dropped, for groups of rows of 512
// elements and more: pass 1 of a group between or inside pass 2 of the one before, and prefetches
// of the next group where Y is kept in the caches.
constexpr int kGroup = 32;
constexpr int64_t kGroupBytes = 16 * 1024;
// Where Y passes the caches by, pass 2 prefetches the next group, and memory is read while it is
// written. 64 stores may wait for memory; groups of 3 KiB leave some for the sums (float32, share
// of copy: 0.75-1.0 from 192 to 1024 elements; 4 KiB 0.5-1.0, and 16 KiB without prefetches
// 0.65-0.75).
constexpr int64_t kStreamedBytes = 3 * 1024;

// Pass 2 takes narrow rows in fours, others in pairs: four wide rows and their four outputs compete
// for the same few places of L1.
constexpr int64_t kNarrowBytes = 1024;
// Rows between that and a page go one by one where memory may be read: processors prefetch within a
// page in its order (float32, 256 and 512 elements: 1.2 x as fast at 12 MB, 1.1 x slower at 4 MB).
constexpr int64_t kCachedBytes = 2 << 20;

// Rows of a group.
template <class Store>
int64_t most_of(const Problem& p, int64_t row_bytes) {
  const bool streamed = __is_same(Store, Streamed) && row_bytes <= kGroupBytes;
  // A residual sum reads two arrays and writes two: with 32 rows of 128 they leave L1, which cost
  // up to 1.4 x in L3.
  const int64_t fit = streamed ? kStreamedBytes / (row_bytes * (p.second ? 2 : 1))
                               : kGroupBytes / (row_bytes * (p.second ? 4 : 1));
  const int64_t least = streamed ? 1 : 2;
  return fit < least ? least : fit < kGroup ? fit : kGroup;
}

template <class S>
struct Group {
  int count;
  int64_t row[kGroup];
  int64_t scale[kGroup];
  bool alike;  // all of them have the same scale
  Total<S> total[kGroup];
  // What they are multiplied by.
  S high[kGroup];
  S low[kGroup];

  void take(Cursor& cursor, int64_t most, bool all_alike) {
    count = int(most);
    cursor.take(count, row, scale);
    alike = true;
    for (int i = 1; i < count && !all_alike; ++i) alike &= scale[i] == scale[0];
  }

  void find_roots(const Problem& p, int64_t index) {
    RMSNORM_ISA::find_roots(p, total, count, high, low);
    for (int i = 0; p.inverse && i < count; ++i) p.inverse[index + i] = float(high[i]);
  }
};

// One run of each row.
struct Run {
  int64_t x;
  int64_t scale;
  int64_t length;
  int64_t ahead;  // from a row of this group to one of the next
  bool first;
};

// Pass 1. Not inlined: each serves several forms.
template <Form F, class T, class S>
[[gnu::noinline]] void sum_run(const Stage<T, S>& stage, const Run& run, Group<S>& group) {
  const int64_t x = run.x, length = run.length;
  for (int i = 0; i < group.count; ++i) {
    Total<S> total;
    run.first ? total.clear() : void(total = group.total[i]);
    add_run<F>(stage, group.row[i] + x, length, total);
    group.total[i] = total;
  }
}

// Pass 2.
template <bool kSimple, bool kAnew, class Store, class T, class S>
[[gnu::noinline]] void finish_run(const Stage<T, S>& stage, const Problem& p, const Run& run,
                                  const Group<S>& group) {
  const S* const scale = static_cast<const S*>(p.scale);
  const bool along = scale && p.layout.inner_scale;
  const bool down = walks_down<Store>(stage, p.layout);
  T* const sum = static_cast<T*>(p.sum);
  const auto finish = [&](int i, auto rows) {
    constexpr int kRows = decltype(rows)::kCount;
    int64_t at[kRows];
    for (int m = 0; m < kRows; ++m) at[m] = group.row[i + m] + run.x;
    const int64_t scale_at = group.scale[i] + run.scale;
    S same[kWidth<S>];
    if (!along) store_raw(same, broadcast<S>(scale ? scale[scale_at] : S(1)));
    finish_runs<kSimple, kAnew, Store, kRows>(stage, sum, at, run.length, run.ahead, group.high + i,
                                              group.low + i, along ? scale + scale_at : same, along,
                                              down);
  };
  const int last = group.count;
  int i = 0;
  if constexpr (kSimple) {
    const int64_t row_bytes = p.layout.averaged * int64_t(sizeof(T));
    const bool narrow = row_bytes <= kNarrowBytes;
    const bool cached = p.layout.kept.count * row_bytes <= kCachedBytes;
    const bool in_order = !cached && row_bytes >= kNarrowBytes && row_bytes < kPageBytes;
    const bool together = group.alike && !in_order;
    for (; together && narrow && i + 4 <= last; i += 4) finish(i, Vectors<4>{});
    for (; together && i + 2 <= last; i += 2) finish(i, Vectors<2>{});
  }
  for (; i < last; ++i) finish(i, Vectors<1>{});
}

template <class Store, class T, class S, class Sum, class Finish>
[[gnu::noinline]] void run_rows(const Stage<T, S>& stage, const Problem& p, int64_t begin,
                                int64_t end, Sum* sum_run, Finish* finish_run) {
  const Layout& layout = p.layout;
  const int64_t row_bytes = layout.averaged * int64_t(sizeof(T));
  const int64_t most = most_of<Store>(p, row_bytes);
  // L1 holds two groups. It holds less of 16 bits beside a scale of floats, and beside two inputs:
  // there rows of 8 KiB (two inputs) and 16 KiB took 1.05-1.2 times as long with the next fetched.
  const int64_t most_fetched = __is_same(T, S) ? kGroupBytes : kGroupBytes / (p.second ? 4 : 2);
  bool alike = true;
  for (int d = 0; d < layout.kept.rank; ++d) alike &= layout.kept.scale[d] == 0;
  Cursor cursor(layout.kept, begin);
  Group<S> group;
  while (begin < end) {
    group.take(cursor, end - begin < most ? end - begin : most, alike);
    begin += group.count;
    const bool fetches = begin < end && row_bytes <= most_fetched;
    const int64_t ahead = fetches ? cursor.x - group.row[0] : 0;
    Cursor first(layout.reduced);
    for (int64_t r = 0; r < layout.reduced.count; ++r, first.next()) {
      sum_run(stage, Run{first.x, first.scale, layout.inner, ahead, r == 0}, group);
    }
    group.find_roots(p, begin - group.count);
    Cursor second(layout.reduced);
    for (int64_t r = 0; r < layout.reduced.count; ++r, second.next()) {
      finish_run(stage, p, Run{second.x, second.scale, layout.inner, ahead, r == 0}, group);
    }
  }
}

// Whether pass 1 leaves silu(gate) in Y, so that X and the gate are read at once and while it is
// computed. float32, 512 x 4096: 1.2 x as fast, 4096 x 4096: 1.3-1.4 x; while L2 holds them 1.05
// times as long, and where shorter rows may be streamed 1.05-1.2.
template <class T, class S>
bool keeps_gates(const Problem& p) {
  const int64_t row_bytes = p.layout.averaged * int64_t(sizeof(T));
  const int64_t least = streams<T>(p) ? kGroupBytes : kGroupBytes / 2;
  return __is_same(T, S) && p.form == Form::kGated && p.y != p.x && row_bytes >= least &&
         p.layout.kept.count * row_bytes > kCachedBytes;
}

// Rows that are computed in S and not kept in T lie in a ring from one pass to the next where a
// group of them fits and has no gaps: else pass 2 computes them once more.
template <class T, class S, class Sum, class Finish>
[[gnu::noinline]] void run_holding(Stage<T, S> stage, const Problem& p, int64_t begin, int64_t end,
                                   Sum* sum_run, Finish* finish_run) {
  alignas(64) S ring[Stage<T, S>::kRing];
  const int64_t averaged = p.layout.averaged;
  const int64_t group = most_of<Full>(p, averaged * int64_t(sizeof(T))) * averaged;
  if (!stage.again && p.layout.reduced.count == 1 && group <= Stage<T, S>::kHeld) stage.held = ring;
  run_rows<Full>(stage, p, begin, end, sum_run, finish_run);
}

}  // namespace

template <class T, class S>
void rows(const Problem& p, int64_t begin, int64_t end) {
  Stage<T, S> stage(p);
  if (keeps_gates<T, S>(p)) stage.kept = stage.y;
  choose(stage, [&](auto choice) {
    using C = decltype(choice);
    const auto sum = sum_run<C::kForm, T, S>;
    if constexpr (C::kSimple && C::kForm != Form::kPreGated && kVectorBytes >= 32) {
      constexpr bool is_float = __is_same(S, float);
      if (!streams<T>(p)) {
        if constexpr (sizeof(T) == 2) {
          if (run_alone<C::kForm>(stage, p, begin, end)) return;
        }
        if constexpr (is_float) {
          if (run_ahead<C::kForm, Full>(stage, p, begin, end)) return;
        }
        if (takes_groups<C::kForm, T, S>(p)) return run_groups<C::kForm>(stage, p, begin, end);
      } else if constexpr (is_float && C::kForm == Form::kPlain) {
        if (run_ahead<C::kForm, Streamed>(stage, p, begin, end)) return end_streaming();
      }
    }
    // Gated rows of float32 and float64: 1.05-1.3 x as fast from a page on, up to 1.2 times as long
    // below. In 16 bits memory does not keep silu waiting.
    if constexpr (__is_same(T, S) && C::kForm == Form::kPlain && !C::kSimple) {
      const bool wide = p.layout.inner * int64_t(sizeof(T)) >= kPageBytes;
      if (stage.form == Form::kGated && wide && streams<T>(p)) {
        run_rows<Streamed>(stage, p, begin, end, sum, finish_run<false, false, Streamed, T, S>);
        return end_streaming();
      }
    }
    // Not where pass 1 leaves gated values in Y: a streamed store would throw them out of the
    // caches first (1.2-1.35 times as long).
    if constexpr (C::kSimple && C::kForm != Form::kPreGated) {
      if (streams<T>(p)) {
        // The residual sum is added twice and written once, past the caches, in pass 2: a store in
        // pass 1 would read its lines from memory first (float32: 1.3-1.8 x as fast; a narrower
        // type would be rounded twice, which takes what it gains).
        constexpr bool anew = C::kForm == Form::kSkip && __is_same(T, S);
        if (anew) stage.kept = nullptr;
        run_rows<Streamed>(stage, p, begin, end, sum, finish_run<true, anew, Streamed, T, S>);
        return end_streaming();
      }
    }
    const auto finish = finish_run<C::kSimple, false, Full, T, S>;
    if constexpr (C::kForm == Form::kPreGated && !C::kSimple) {
      return run_holding(stage, p, begin, end, sum, finish);
    }
    run_rows<Full>(stage, p, begin, end, sum, finish);
  });
}

#define RMSNORM_INSTANTIATE(T, S) template void rows<T, S>(const Problem&, int64_t, int64_t);
RMSNORM_EACH_TYPE(RMSNORM_INSTANTIATE)

}  // namespace rmsnorm::RMSNORM_ISA
