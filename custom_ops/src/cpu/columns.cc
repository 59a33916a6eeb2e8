// Norms whose innermost run is kept: up to kTile of them side by side, each a column. Both passes
// walk the reduced offsets once and read contiguous pieces; nothing is transposed.
#include "cursor.h"
#include "kernels.h"
#include "stage.h"

namespace rmsnorm::RMSNORM_ISA {
namespace {

// Elements of a column that are added in S before the sum moves into double.
constexpr int kGroup = 8;

template <class S>
inline void add_to(double* total, V<S> part) {
  constexpr int n = kWidth<double>;
  if constexpr (__is_same(S, double)) {
    store_raw(total, load_raw<V<double>>(total) + part);
  } else {
    store_raw(total, load_raw<V<double>>(total) + to_double(low_half(part)));
    store_raw(total + n, load_raw<V<double>>(total + n) + to_double(high_half(part)));
  }
}

// Squares of up to kGroup elements of each of the columns at `at`, in two chains.
template <Form F, class T, class S, class Count>
inline V<S> group_sum(const Stage<T, S>& stage, const int64_t* offset, int group, int64_t at,
                      Count count) {
  V<S> even{}, odd{};
  for (int g = 0; g < group; g += 2) {
    const V<S> v = stage.template first<F>(offset[g] + at, count);
    even = fma(v, v, even);
    if (g + 1 == group) break;
    const V<S> w = stage.template first<F>(offset[g + 1] + at, count);
    odd = fma(w, w, odd);
  }
  return even + odd;
}

template <Form F, class T, class S>
[[gnu::noinline]] void sum_columns(const Stage<T, S>& stage, const Layout& layout, int64_t at,
                                   int width, double* total) {
  Cursor step(layout.reduced);
  for (int64_t r = 0; r < layout.reduced.count; r += kGroup) {
    int64_t offset[kGroup];
    const int64_t left = layout.reduced.count - r;
    const int group = left < kGroup ? int(left) : kGroup;
    for (int g = 0; g < group; ++g, step.next()) offset[g] = at + step.x;
    int c = 0;
    if (group == kGroup) {
      for (; c + kWidth<S> <= width; c += kWidth<S>) {
        add_to<S>(total + c, group_sum<F>(stage, offset, kGroup, c, Full{}));
      }
    }
    for (; c + kWidth<S> <= width; c += kWidth<S>) {
      add_to<S>(total + c, group_sum<F>(stage, offset, group, c, Full{}));
    }
    if (c < width) add_to<S>(total + c, group_sum<F>(stage, offset, group, c, width - c));
  }
}

template <bool kSimple, class T, class S>
[[gnu::noinline]] void finish_columns(const Stage<T, S>& stage, const Problem& p, const S* scale,
                                      int64_t at, int width, const S* high, const S* low) {
  Cursor step(p.layout.reduced);
  const int64_t along = scale ? p.layout.inner_scale : 0;
  for (int64_t r = 0; r < p.layout.reduced.count; ++r, step.next()) {
    const S* row = scale ? scale + step.scale : nullptr;
    const V<S> same = broadcast<S>(scale ? *row : S(1));
    const auto piece = [&](int c, auto count) {
      const Reciprocal<T, S> reciprocal{load<S>(high + c), load<S>(low + c)};
      const V<S> factor = along ? load<S>(row + c, count) : same;
      stage.template finish<kSimple>(at + step.x + c, reciprocal, factor, count);
    };
    int c = 0;
    for (; c + kWidth<S> <= width; c += kWidth<S>) piece(c, Full{});
    if (c < width) piece(c, width - c);
  }
}

template <class T, class S, class Sum, class Finish>
[[gnu::noinline]] void run_columns(const Stage<T, S>& stage, const Problem& p, int64_t begin,
                                   int64_t end, Sum* sum_some, Finish* finish_some) {
  const Layout& layout = p.layout;
  const int64_t tiles = layout.tiles();
  Cursor kept(layout.kept, begin / tiles);
  int64_t tile = begin % tiles;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t column = tile * kTile;
    const int width = int(layout.inner - column < kTile ? layout.inner - column : kTile);
    double total[kTile] = {};
    sum_some(stage, layout, kept.x + column, width, total);
    S high[kTile], low[kTile];
    for (int c = 0; c < kTile; ++c) {
      reciprocal_of_root(p.settings, total[c] / double(layout.averaged), high + c, low + c);
    }
    if (p.inverse) {
      float* inverse = p.inverse + item / tiles * layout.inner + column;
      for (int c = 0; c < width; ++c) inverse[c] = float(high[c]);
    }
    const S* scale = static_cast<const S*>(p.scale);
    if (scale) scale += kept.scale + column * layout.inner_scale;
    finish_some(stage, p, scale, kept.x + column, width, high, low);
    if (++tile == tiles) {
      tile = 0;
      kept.next();
    }
  }
}

}  // namespace

template <class T, class S>
void columns(const Problem& p, int64_t begin, int64_t end) {
  const Stage<T, S> stage(p);
  choose(stage, [&](auto choice) {
    using C = decltype(choice);
    run_columns(stage, p, begin, end, sum_columns<C::kForm, T, S>,
                finish_columns<C::kSimple, T, S>);
  });
}

RMSNORM_INSTANTIATE(columns)

}  // namespace rmsnorm::RMSNORM_ISA
