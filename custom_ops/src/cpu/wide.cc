// Rows so wide that threads share one. Every chunk has a sum of its own, and those are added in
// order, at any number of threads.
#include "cursor.h"
#include "kernels.h"
#include "run.h"

namespace rmsnorm::RMSNORM_ISA {
namespace {

// One chunk of a row, as elements [begin, end) of it.
struct Chunk {
  Chunk(const Layout& layout, int64_t index) {
    begin = index % layout.chunks() * layout.chunk_elements();
    end = begin + layout.chunk_elements();
    if (end > layout.averaged) end = layout.averaged;
  }

  int64_t begin;
  int64_t end;
};

// body(offset in X, offset in the scale, length) for each contiguous part of a chunk.
template <class Body>
inline void each_part(const Layout& layout, const Cursor& row, Chunk chunk, Body body) {
  Cursor run(layout.reduced, chunk.begin / layout.inner);
  int64_t at = chunk.begin % layout.inner;
  while (chunk.begin < chunk.end) {
    const int64_t left = layout.inner - at, wanted = chunk.end - chunk.begin;
    const int64_t length = left < wanted ? left : wanted;
    body(row.x + run.x + at, row.scale + run.scale + at * layout.inner_scale, length);
    chunk.begin += length;
    at = 0;
    run.next();
  }
}

template <Form F, class T, class S>
[[gnu::noinline]] double sum_chunk(const Stage<T, S>& stage, const Layout& layout,
                                   const Cursor& row, Chunk chunk) {
  Total<S> total;
  each_part(layout, row, chunk,
            [&](int64_t at, int64_t, int64_t length) { add_run<F>(stage, at, length, total); });
  return total.value();
}

template <bool kSimple, class Store, class T, class S>
[[gnu::noinline]] void finish_chunk(const Stage<T, S>& stage, const Problem& p, const Cursor& row,
                                    Chunk chunk, const Reciprocal<T, S>& reciprocal) {
  const S* scale = static_cast<const S*>(p.scale);
  const bool along = scale && p.layout.inner_scale;
  each_part(p.layout, row, chunk, [&](int64_t at, int64_t scale_at, int64_t length) {
    S same[kWidth<S>];
    if (!along) store_raw(same, broadcast<S>(scale ? scale[scale_at] : S(1)));
    finish_run<kSimple, Store>(stage, at, length, reciprocal, along ? scale + scale_at : same,
                               along);
  });
}

// Forwards. Backwards, from the chunks that were summed last, took 1.1-1.4 times as long.
template <class T, class S, class Finish>
void finish_rows(const Stage<T, S>& stage, const Problem& p, int64_t begin, int64_t end,
                 const double* sums, Finish* finish) {
  const int64_t chunks = p.layout.chunks();
  for (; begin < end; sums += chunks) {
    const int64_t index = begin / chunks, row_end = (index + 1) * chunks;
    const Cursor row(p.layout.kept, index);
    double sum = 0;
    for (int64_t c = 0; c < chunks; ++c) sum += sums[c];
    S high, low;
    reciprocal_of_root(p.settings, sum / double(p.layout.averaged), &high, &low);
    const Reciprocal<T, S> reciprocal{broadcast(high), broadcast(low)};
    if (p.inverse && begin == index * chunks) p.inverse[index] = float(high);
    for (; begin < end && begin < row_end; ++begin) {
      finish(stage, p, row, Chunk(p.layout, begin), reciprocal);
    }
  }
}

}  // namespace

template <class T, class S>
void sum_chunks(const Problem& p, int64_t begin, int64_t end, double* sums) {
  const Stage<T, S> stage(p);
  const int64_t chunks = p.layout.chunks();
  const int64_t first = begin / chunks * chunks;
  choose(stage, [&](auto choice) {
    for (; begin < end; ++begin) {
      sums[begin - first] = sum_chunk<decltype(choice)::kForm>(
          stage, p.layout, Cursor(p.layout.kept, begin / chunks), Chunk(p.layout, begin));
    }
  });
}

template <class T, class S>
void finish_chunks(const Problem& p, int64_t begin, int64_t end, const double* sums) {
  const Stage<T, S> stage(p);
  if (!stage.is_simple()) {
    return finish_rows(stage, p, begin, end, sums, finish_chunk<false, Full, T, S>);
  }
  if (!streams<T>(p)) {
    return finish_rows(stage, p, begin, end, sums, finish_chunk<true, Full, T, S>);
  }
  finish_rows(stage, p, begin, end, sums, finish_chunk<true, Streamed, T, S>);
  end_streaming();
}

#define RMSNORM_INSTANTIATE_WIDE(T, S)                                       \
  template void sum_chunks<T, S>(const Problem&, int64_t, int64_t, double*); \
  template void finish_chunks<T, S>(const Problem&, int64_t, int64_t, const double*);

RMSNORM_INSTANTIATE_WIDE(float, float)
RMSNORM_INSTANTIATE_WIDE(Half, float)
RMSNORM_INSTANTIATE_WIDE(BFloat16, float)
RMSNORM_INSTANTIATE_WIDE(double, float)
RMSNORM_INSTANTIATE_WIDE(float, double)
RMSNORM_INSTANTIATE_WIDE(Half, double)
RMSNORM_INSTANTIATE_WIDE(BFloat16, double)
RMSNORM_INSTANTIATE_WIDE(double, double)

}  // namespace rmsnorm::RMSNORM_ISA
