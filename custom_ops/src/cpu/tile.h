// The two passes over a tile: norms that lie side by side, each a column. Both walk the reduced
// offsets once and read contiguous pieces; nothing is transposed.
#pragma once

#include "cursor.h"
#include "stage.h"

namespace rmsnorm::RMSNORM_ISA {

// Most columns of one tile: 8 KiB of double sums and as much of reciprocals. Fewer where a tile
// would leave half of an ordinary L2, down to what keeps the runs long.
constexpr int kMost = 1024;
constexpr int kLeast = 128;
constexpr int64_t kTileBytes = 512 * 1024;
// Elements of a column that are added in S before the sum moves into double.
constexpr int kGroup = 8;
// Rows that share one load of the reciprocals.
constexpr int kRows = 4;

// `width` columns from `at` on, and where their scale starts (null for ones).
template <class S>
struct Tile {
  const Walk& reduced;
  int64_t at;
  int width;
  const S* scale;
  int along;      // step of the scale along the columns, 0 or 1
  int64_t ahead;  // from this tile to the next, 0 where none follows
};

// Steps through the reduced offsets. One dimension, by far the commonest, needs no digits.
class Rows {
 public:
  [[gnu::always_inline]] explicit Rows(const Walk& walk)
      : is_line_(walk.rank == 1), x_step_(walk.x[0]), scale_step_(walk.scale[0]), cursor_(walk) {}

  [[gnu::always_inline]] void next() {
    if (is_line_) {
      x += x_step_;
      scale += scale_step_;
    } else {
      cursor_.next();
      x = cursor_.x;
      scale = cursor_.scale;
    }
  }

  int64_t x = 0;
  int64_t scale = 0;

 private:
  bool is_line_;
  int64_t x_step_;
  int64_t scale_step_;
  Cursor cursor_;
};

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
[[gnu::always_inline]] inline V<S> group_sum(const Stage<T, S>& stage, const int64_t* offset,
                                             int group, int64_t at, Count count) {
  V<S> even{}, odd{};
#pragma GCC unroll 8
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
[[gnu::noinline]] void sum_columns(const Stage<T, S>& shared, const Tile<S>& tile, double* total) {
  const Stage<T, S> stage = shared;
  const int width = tile.width;
  for (int c = 0; c < width; c += kWidth<S>) {
    for (int d = 0; d < kWidth<S>; d += kWidth<double>) store_raw(total + c + d, V<double>{});
  }
  Rows step(tile.reduced);
  for (int64_t r = 0; r < tile.reduced.count; r += kGroup) {
    int64_t offset[kGroup];
    const int64_t left = tile.reduced.count - r;
    const int group = left < kGroup ? int(left) : kGroup;
    for (int g = 0; g < group; ++g, step.next()) offset[g] = tile.at + step.x;
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

// Pass 1 of the next tile will want what lies at `at`.
template <class T, class S>
[[gnu::always_inline]] inline void fetch(const Stage<T, S>& stage, int64_t at) {
  for (int line = 0; line < kWidth<S>; line += 64 / int(sizeof(T))) {
    __builtin_prefetch(stage.x + at + line, 0, 2);
    if (stage.second) __builtin_prefetch(stage.second + at + line, 0, 2);
  }
}

// Pass 2 over `rows` rows: their scales start at `scale`, or have one value each.
template <bool kSimple, bool kAlong, class Store, class T, class S>
[[gnu::always_inline]] inline void finish_rows(const Stage<T, S>& stage, int width,
                                               const int64_t* offset, const S* const* scale,
                                               int rows, int64_t ahead, const S* high,
                                               const S* low) {
  V<S> same[kRows];
  if (!kAlong) {
#pragma GCC unroll 4
    for (int g = 0; g < rows; ++g) same[g] = broadcast<S>(*scale[g]);
  }
  const auto piece = [&](int c, auto loads, auto stores) {
    const Reciprocal<T, S> reciprocal{load<S>(high + c), load<S>(low + c)};
    // All loads before the first store: rows often lie a multiple of 4 KiB apart, and then a load
    // waits for the store before it, whose address looks the same.
    V<S> result[kRows];
#pragma GCC unroll 4
    for (int g = 0; g < rows; ++g) {
      fetch(stage, offset[g] + c + ahead);
      const V<S> factor = kAlong ? load<S>(scale[g] + c, loads) : same[g];
      const V<S> v = stage.template value<kSimple>(offset[g] + c, loads);
      result[g] = stage.template result<kSimple>(offset[g] + c, v, reciprocal, factor, loads);
    }
#pragma GCC unroll 4
    for (int g = 0; g < rows; ++g) store<S>(stage.y + offset[g] + c, result[g], stores);
  };
  int c = 0;
  for (; c + kWidth<S> <= width; c += kWidth<S>) piece(c, Full{}, Store{});
  if (c < width) piece(c, width - c, width - c);
}

template <bool kSimple, class Store, class T, class S>
[[gnu::noinline]] void finish_columns(const Stage<T, S>& shared, const Tile<S>& tile, const S* high,
                                      const S* low) {
  const Stage<T, S> stage = shared;
  const S one = 1;
  const int width = tile.width, along = tile.along;
  const S* const first = tile.scale;
  Rows step(tile.reduced);
  int64_t offset[kRows];
  const S* scale[kRows];
  const int64_t count = tile.reduced.count;
  for (int64_t r = 0; r < count; r += kRows) {
    const int rows = count - r < kRows ? int(count - r) : kRows;
    for (int g = 0; g < rows; ++g, step.next()) {
      offset[g] = tile.at + step.x;
      scale[g] = first ? first + step.scale : &one;
    }
    if (rows < kRows || !kSimple) {
      along ? finish_rows<kSimple, true, Store>(stage, width, offset, scale, rows, tile.ahead, high,
                                                low)
            : finish_rows<kSimple, false, Store>(stage, width, offset, scale, rows, tile.ahead,
                                                 high, low);
    } else {
      along ? finish_rows<kSimple, true, Store>(stage, width, offset, scale, kRows, tile.ahead,
                                                high, low)
            : finish_rows<kSimple, false, Store>(stage, width, offset, scale, kRows, tile.ahead,
                                                 high, low);
    }
  }
}

}  // namespace rmsnorm::RMSNORM_ISA
