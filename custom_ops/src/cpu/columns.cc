// Norms whose innermost run is kept: many of them side by side, in tiles.
#include "kernels.h"
#include "tile.h"

namespace rmsnorm::RMSNORM_ISA {
namespace {

// Of whole vectors: what stands after the last column has no meaning.
template <class S>
inline void reciprocals(const Problem& p, const double* __restrict total, int width,
                        S* __restrict high, S* __restrict low) {
  const double averaged = double(p.layout.averaged);
  for (int c = 0; c < width; c += kWidth<S>) {
    for (int k = c; k < c + kWidth<S>; k += kWidth<double>) {
      const V<double> mean = mean_of<S>(load_raw<V<double>>(total + k), averaged);
      reciprocals_of_roots(p.settings, mean, high + k, low + k);
    }
  }
}

// values[0 .. period) over and over, up to `width` and into the vector after it.
template <class S>
inline void repeat(S* values, int period, int width) {
  for (int done = period; done < width; done *= 2) {
    for (int c = 0; c < done && done + c < width; c += kWidth<S>) {
      store_raw(values + done + c, load_raw<V<S>>(values + c));
    }
  }
}

// The scale of runs that count as one: one value for each column.
template <class S>
struct Factors {
  const S* from = nullptr;  // what `values` were made of
  S values[kMost + kWidth<S>];

  void expand(const S* scale, int inner, int64_t along, int64_t down, int width) {
    if (scale == from) return;
    from = scale;
    for (int c = 0; c < width; c += inner, scale += down) {
      if (along) {
        for (int k = 0; k < inner; ++k) values[c + k] = scale[k];
      } else {
        for (int k = 0; k < inner; k += kWidth<S>) store_raw(values + c + k, broadcast<S>(*scale));
      }
    }
  }
};

// The two passes over tiles, and where they find the columns of a problem.
template <class T, class S>
struct Passes {
  const Stage<T, S>& stage;
  const Problem& p;
  void (*sum)(const Stage<T, S>&, const Tile<S>&, double* total);
  void (*finish)(const Stage<T, S>&, const Tile<S>&, const S* high, const S* low);

  // Columns from `column` to `last` of the norms that `kept` stands at; others follow or not.
  void run(const Cursor& kept, Offsets& rows, int64_t column, int64_t last, float* inverse,
           bool more) const {
    const Layout& layout = p.layout;
    const int64_t fit = kTileBytes / (layout.reduced.count * int64_t(sizeof(T))) / 64 * 64;
    const int64_t most = fit < kLeast ? kLeast : fit < kMost ? fit : kMost;
    const int64_t tiles = (last - column + most - 1) / most;  // a narrow one takes longer
    const int64_t even = ((last - column + tiles - 1) / tiles + 63) / 64 * 64;
    const int64_t first = column;
    double total[kMost];
    S high[kMost], low[kMost];
    for (; column < last; column += even) {
      const int width = int(last - column < even ? last - column : even);
      const int64_t jump = layout.inner * layout.reduced.count - column + first;
      const S* scale = static_cast<const S*>(p.scale);
      if (scale) scale += kept.scale + column * layout.inner_scale;
      const Tile<S> tile{rows,
                         kept.x + column,
                         width,
                         scale,
                         scale != nullptr && layout.inner_scale != 0,
                         column + width < last ? width
                         : more                ? jump
                                               : 0,
                         is_far()};
      sum(stage, tile, total);
      reciprocals(p, total, width, high, low);
      if (inverse) copy(inverse + column, high, width);
      finish(stage, tile, high, low);
    }
  }

  // Short runs that follow one another without a gap: in pass 2, `fold` of them are one. Not in
  // pass 1, where the order of the additions would depend on how many columns there are.
  void run_folded(const Cursor& kept, Offsets& rows, Offsets& one, int fold, Factors<S>* factors,
                  float* inverse, bool more) const {
    const Layout& layout = p.layout;
    const int inner = int(layout.inner), width = fold * inner;
    const int64_t count = layout.reduced.count, whole = count / fold;
    const int rest = int(count % fold) * inner;
    double total[kMost];
    sum(stage, Tile<S>{rows, kept.x, inner, nullptr, 0, 0, false}, total);
    S high[kMost + kWidth<S>], low[kMost + kWidth<S>];
    reciprocals(p, total, inner, high, low);
    if (inverse) copy(inverse, high, inner);
    repeat(high, inner, width);
    repeat(low, inner, width);
    const S* scale = static_cast<const S*>(p.scale);
    const int64_t down = layout.reduced.scale[0];
    const bool in_place = layout.inner_scale && down == inner;
    const int64_t ahead = more ? inner * count : 0;
    for (int64_t r = 0; r * fold < count; ++r) {
      const int here = r < whole ? width : rest;
      const S* from = scale ? scale + kept.scale + r * fold * down : nullptr;
      if (from && !in_place) factors->expand(from, inner, layout.inner_scale, down, here);
      const Tile<S> tile{one,
                         kept.x + r * width,
                         here,
                         !scale || in_place ? from : factors->values,
                         scale != nullptr,
                         ahead,
                         is_far()};
      finish(stage, tile, high, low);
    }
  }

  bool is_far() const { return p.layout.elements() * int64_t(sizeof(T)) > kNearBytes; }

  static void copy(float* to, const S* from, int count) {
    for (int c = 0; c < count; ++c) to[c] = float(from[c]);
  }
};

// How many runs make whole vectors of 64 bytes, and a few of them; 1 where a run has two lines by
// itself (masks at its end cost less than a scale for each element), or none follows at once.
template <class S>
int fold_of(const Layout& layout) {
  constexpr int kLine = 64 / int(sizeof(S));
  constexpr int64_t kEnough = 16 * kLine;
  const Walk& reduced = layout.reduced;
  const bool is_dense = reduced.rank == 1 && reduced.x[0] == layout.inner;
  if (!is_dense || layout.inner >= 2 * kLine) return 1;
  int64_t fold = 1;
  while (fold * layout.inner % kLine) fold *= 2;
  while (fold * layout.inner < kEnough) fold *= 2;
  if (fold > reduced.count) fold = reduced.count;
  return fold * layout.inner <= kMost ? int(fold) : 1;
}

template <class T, class S>
[[gnu::noinline]] void run_columns(const Passes<T, S>& passes, int64_t begin, int64_t end) {
  const Layout& layout = passes.p.layout;
  const int64_t tiles = layout.tiles();
  const int fold = fold_of<S>(layout);
  Cursor kept(layout.kept, begin / tiles);
  Walk single;
  Offsets rows(layout.reduced), one(single);
  Factors<S> factors;
  while (begin < end) {
    const int64_t first = begin % tiles;
    const int64_t count = end - begin < tiles - first ? end - begin : tiles - first;
    float* inverse = passes.p.inverse;
    if (inverse) inverse += begin / tiles * layout.inner;
    const int64_t last = first + count == tiles ? layout.inner : (first + count) * kTile;
    begin += count;
    if (fold > 1) {
      passes.run_folded(kept, rows, one, fold, &factors, inverse, begin < end);
    } else {
      passes.run(kept, rows, first * kTile, last, inverse, begin < end);
    }
    kept.next();
  }
}

// Where every row of a tile begins at a line of the cache, and pass 1 leaves nothing in Y: a
// streamed store would throw that out of the caches first.
template <class T, class S>
bool streams(const Problem& p, const Stage<T, S>& stage) {
  int64_t run = p.layout.inner * int64_t(sizeof(T));
  if (fold_of<S>(p.layout) > 1) run *= p.layout.reduced.count;
  return p.streaming && stage.kept != stage.y && run % 64 == 0 &&
         reinterpret_cast<uintptr_t>(p.y) % 64 == 0;
}

}  // namespace

template <class T, class S>
void columns(const Problem& p, int64_t begin, int64_t end) {
  const Stage<T, S> stage(p);
  choose(stage, [&](auto choice) {
    using C = decltype(choice);
    const auto sum = sum_columns<C::kForm, T, S>;
    if (streams(p, stage)) {
      run_columns(Passes<T, S>{stage, p, sum, finish_columns<C::kSimple, Streamed, T, S>}, begin,
                  end);
      return end_streaming();
    }
    run_columns(Passes<T, S>{stage, p, sum, finish_columns<C::kSimple, Full, T, S>}, begin, end);
  });
}

#define RMSNORM_INSTANTIATE(T, S) template void columns<T, S>(const Problem&, int64_t, int64_t);
RMSNORM_EACH_TYPE(RMSNORM_INSTANTIATE)

}  // namespace rmsnorm::RMSNORM_ISA
