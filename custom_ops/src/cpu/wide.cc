// Rows so wide that threads share one. Every chunk has a sum of its own, and those are added in
// order, at any number of threads.
#include "cursor.h"
#include "groups.h"
#include "kernels.h"

namespace rmsnorm::RMSNORM_ISA {
namespace {

// Elements [begin, end) of a row: one chunk, or several side by side.
struct Range {
  int64_t begin;
  int64_t end;
};

// body(offset in X, offset in the scale, length) for each contiguous part of a range.
template <class Body>
inline void each_part(const Layout& layout, const Cursor& row, Range range, Body body) {
  Cursor run(layout.reduced, range.begin / layout.inner);
  int64_t at = range.begin % layout.inner;
  while (range.begin < range.end) {
    const int64_t left = layout.inner - at, wanted = range.end - range.begin;
    const int64_t length = left < wanted ? left : wanted;
    body(row.x + run.x + at, row.scale + run.scale + at * layout.inner_scale, length);
    range.begin += length;
    at = 0;
    run.next();
  }
}

// body(index of the first row, how many, first chunk, one past the last) for chunks [begin, end):
// parts of a row, and whole rows in groups of up to `most`.
template <class Body>
inline void each_group(int64_t chunks, int most, int64_t begin, int64_t end, Body body) {
  while (begin < end) {
    const int64_t first = begin % chunks, whole = first == 0 ? (end - begin) / chunks : 0;
    const int count = whole < 1 ? 1 : whole < most ? int(whole) : most;
    const int64_t left = end - begin < chunks - first ? end - begin : chunks - first;
    body(begin / chunks, count, first, first + left);
    begin += left + (count - 1) * chunks;
  }
}

inline Range range_of(const Layout& layout, int64_t first, int64_t last) {
  const int64_t size = layout.chunk_elements(), end = last * size;
  return {first * size, end < layout.averaged ? end : layout.averaged};
}

// Whether rows lie at equal distances and have the same scale.
inline bool are_alike(const Walk& kept) {
  return kept.rank == 0 || (kept.rank == 1 && kept.scale[0] == 0);
}

template <Form F, class T, class S>
[[gnu::noinline]] double sum_range(const Stage<T, S>& stage, const Layout& layout,
                                   const Cursor& row, Range range) {
  Total<S> total;
  total.clear();
  each_part(layout, row, range,
            [&](int64_t at, int64_t, int64_t length) { add_run<F>(stage, at, length, total); });
  return total.value();
}

// The same range of `count` rows that are alike.
template <class G, bool kSimple, class Store, class T, class S, class W>
[[gnu::noinline]] void finish_range(const Stage<T, S>& stage, const Problem& p, int64_t index,
                                    int count, Range range, const S* high, const S* low,
                                    const W* scale) {
  const bool along = scale && p.layout.inner_scale;
  const Cursor row(p.layout.kept, index);
  const int64_t apart = count > 1 ? p.layout.kept.x[0] : 0;
  each_part(p.layout, row, range, [&](int64_t at, int64_t scale_at, int64_t length) {
    if (along) {
      return finish_columns<G, kSimple, Store>(stage, at, apart, count, length, high, low,
                                               scale + scale_at, 1);
    }
    if constexpr (__is_same(W, S)) {
      S same[kWidth<S>];
      store_raw(same, broadcast<S>(scale ? scale[scale_at] : S(1)));
      finish_columns<G, kSimple, Store>(stage, at, apart, count, length, high, low, same, 0);
    }
  });
}

// Forwards. Backwards, from the chunks that were summed last, took 1.1-1.4 times as long.
template <class G, bool kSimple, class Store, class T, class S, class W>
void finish_rows(const Stage<T, S>& stage, const Problem& p, int64_t begin, int64_t end,
                 const double* sums, const W* scale) {
  const int64_t chunks = p.layout.chunks();
  const int most = are_alike(p.layout.kept) ? G::kRows : 1;
  each_group(chunks, most, begin, end, [&](int64_t index, int count, int64_t first, int64_t last) {
    S high[G::kRows], low[G::kRows];
    for (int i = 0; i < count; ++i, sums += chunks) {
      double sum = 0;
      for (int64_t c = 0; c < chunks; ++c) sum += sums[c];
      const double mean = mean_of<S>(sum, double(p.layout.averaged));
      reciprocal_of_root(p.settings, mean, high + i, low + i);
      if (p.inverse && first == 0) p.inverse[index + i] = float(high[i]);
    }
    const Range range = range_of(p.layout, first, last);
    finish_range<G, kSimple, Store>(stage, p, index, count, range, high, low, scale);
  });
}

}  // namespace

template <class T, class S>
void sum_chunks(const Problem& p, int64_t begin, int64_t end, double* sums) {
  const Stage<T, S> stage(p);
  const int64_t chunks = p.layout.chunks();
  choose(stage, [&](auto choice) {
    each_group(chunks, 1, begin, end, [&](int64_t index, int, int64_t first, int64_t last) {
      const Cursor row(p.layout.kept, index);
      for (int64_t c = first; c < last; ++c) {
        sums[c] =
            sum_range<decltype(choice)::kForm>(stage, p.layout, row, range_of(p.layout, c, c + 1));
      }
      sums += chunks;
    });
  });
}

template <class T, class S>
void finish_chunks(const Problem& p, int64_t begin, int64_t end, const double* sums) {
  const Stage<T, S> stage(p);
  const S* const scale = static_cast<const S*>(p.scale);
  if constexpr (Stage<T, S>::kIsCommon) {
    const auto finish = [&](const auto* read) {
      if (streams<T>(p)) {
        finish_rows<WideGroups, true, Streamed>(stage, p, begin, end, sums, read);
        return end_streaming();
      }
      finish_rows<WideGroups, true, Full>(stage, p, begin, end, sums, read);
    };
    // Of several rows, float16 took 1.05-1.1 times as long so, and bfloat16 1.0.
    if constexpr (sizeof(T) == 2) {
      const bool own = p.own_scale && p.layout.inner_scale && p.layout.kept.count == 1;
      if (own && stage.is_simple()) return finish(static_cast<const T*>(p.own_scale));
    }
    if (stage.is_simple()) return finish(scale);
  }
  finish_rows<SingleRows, false, Full>(stage, p, begin, end, sums, scale);
}

// Pass 2 finds in a cache what pass 1 read: a group of rows, not all of them.
template <class T, class S>
void wide_rows(const Problem& p, int64_t begin, int64_t end) {
  constexpr int64_t most = WideGroups::kRows;
  const int64_t chunks = p.layout.chunks();
  for (int64_t count; begin < end; begin += count) {
    count = end - begin < most ? end - begin : most;
    double sums[most * kMostChunks];
    sum_chunks<T, S>(p, begin * chunks, (begin + count) * chunks, sums);
    finish_chunks<T, S>(p, begin * chunks, (begin + count) * chunks, sums);
  }
}

#define RMSNORM_INSTANTIATE(T, S)                                                     \
  template void sum_chunks<T, S>(const Problem&, int64_t, int64_t, double*);          \
  template void finish_chunks<T, S>(const Problem&, int64_t, int64_t, const double*); \
  template void wide_rows<T, S>(const Problem&, int64_t, int64_t);
RMSNORM_EACH_TYPE(RMSNORM_INSTANTIATE)

}  // namespace rmsnorm::RMSNORM_ISA
