// Rows so wide that threads share one. Every chunk has a sum of its own, and those are added in
// order, at any number of threads.
#include "cursor.h"
#include "kernels.h"
#include "run.h"

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

// body(index of the row, its first chunk, one past its last) for every row in chunks [begin, end).
template <class Body>
inline void each_row(int64_t chunks, int64_t begin, int64_t end, Body body) {
  while (begin < end) {
    const int64_t index = begin / chunks, first = index * chunks;
    const int64_t last = end < first + chunks ? end : first + chunks;
    body(index, begin - first, last - first);
    begin = last;
  }
}

inline Range range_of(const Layout& layout, int64_t first, int64_t last) {
  const int64_t size = layout.chunk_elements(), end = last * size;
  return {first * size, end < layout.averaged ? end : layout.averaged};
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

template <bool kSimple, class Store, class T, class S>
[[gnu::noinline]] void finish_range(const Stage<T, S>& stage, const Problem& p, const Cursor& row,
                                    Range range, S high, S low) {
  const S* scale = static_cast<const S*>(p.scale);
  const bool along = scale && p.layout.inner_scale;
  each_part(p.layout, row, range, [&](int64_t at, int64_t scale_at, int64_t length) {
    S same[kWidth<S>];
    if (!along) store_raw(same, broadcast<S>(scale ? scale[scale_at] : S(1)));
    T* const no_sum = nullptr;  // pass 1 has written it
    finish_runs<kSimple, false, Store, 1>(stage, no_sum, &at, length, 0, &high, &low,
                                          along ? scale + scale_at : same, along, false);
  });
}

// Forwards. Backwards, from the chunks that were summed last, took 1.1-1.4 times as long.
template <class T, class S, class Finish>
void finish_rows(const Stage<T, S>& stage, const Problem& p, int64_t begin, int64_t end,
                 const double* sums, Finish* finish) {
  const int64_t chunks = p.layout.chunks();
  each_row(chunks, begin, end, [&](int64_t index, int64_t first, int64_t last) {
    double sum = 0;
    for (int64_t c = 0; c < chunks; ++c) sum += sums[c];
    sums += chunks;
    S high, low;
    reciprocal_of_root(p.settings, mean_of<S>(sum, double(p.layout.averaged)), &high, &low);
    if (p.inverse && first == 0) p.inverse[index] = float(high);
    finish(stage, p, Cursor(p.layout.kept, index), range_of(p.layout, first, last), high, low);
  });
}

}  // namespace

template <class T, class S>
void sum_chunks(const Problem& p, int64_t begin, int64_t end, double* sums) {
  const Stage<T, S> stage(p);
  const int64_t chunks = p.layout.chunks();
  choose(stage, [&](auto choice) {
    each_row(chunks, begin, end, [&](int64_t index, int64_t first, int64_t last) {
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
  if constexpr (Stage<T, S>::kIsCommon) {
    if (stage.is_simple() && streams<T>(p)) {
      finish_rows(stage, p, begin, end, sums, finish_range<true, Streamed, T, S>);
      return end_streaming();
    }
    if (stage.is_simple()) {
      return finish_rows(stage, p, begin, end, sums, finish_range<true, Full, T, S>);
    }
  }
  finish_rows(stage, p, begin, end, sums, finish_range<false, Full, T, S>);
}

#define RMSNORM_INSTANTIATE(T, S)                                            \
  template void sum_chunks<T, S>(const Problem&, int64_t, int64_t, double*); \
  template void finish_chunks<T, S>(const Problem&, int64_t, int64_t, const double*);
RMSNORM_EACH_TYPE(RMSNORM_INSTANTIATE)

}  // namespace rmsnorm::RMSNORM_ISA
