// The two passes over a tile: norms that lie side by side, each a column. Both walk the reduced
// offsets once and read contiguous pieces; nothing is transposed.
#pragma once

#include "offsets.h"
#include "stage.h"

namespace rmsnorm::RMSNORM_ISA {

// Most columns of one tile: 8 KiB of double sums and as much of reciprocals. Fewer where a tile is
// larger than an ordinary L2, down to what keeps the runs long. What leaves L2 costs less than runs
// of 512 bytes do: 768 x 4096 from memory is 1.2-1.7 x as fast as with tiles of 512 KiB.
constexpr int kMost = 1024;
constexpr int kLeast = 128;
constexpr int64_t kTileBytes = 1024 * 1024;
// X and Y of as much each are in L2.
constexpr int64_t kNearBytes = 512 * 1024;
// Elements of a column that are added in S before the sum moves into double.
constexpr int kGroup = 8;
// Rows that share one load of the reciprocals.
constexpr int kRows = 4;

// `width` columns from `at` on, and where their scale starts (null for ones).
template <class S>
struct Tile {
  Offsets& rows;
  int64_t at;
  int width;
  const S* scale;
  int along;      // step of the scale along the columns, 0 or 1
  int64_t ahead;  // from this tile to the next, 0 where none follows
  // X and Y are beyond L2: pass 1 fetches its next rows, pass 2 the next tile and its next rows of
  // Y. Reading a line from memory takes 2.7 ns and streaming one out 2.4, both at once 3.5.
  bool is_far;
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

// Into L2, for a pass to come.
template <class S, class T>
[[gnu::always_inline]] inline void fetch(const T* from) {
  for (int line = 0; line < kWidth<S>; line += 64 / int(sizeof(T))) {
    __builtin_prefetch(from + line, 0, 2);
  }
}

template <class T, class S>
[[gnu::always_inline]] inline void fetch_inputs(const Stage<T, S>& stage, int64_t at) {
  fetch<S>(stage.x + at);
  if (stage.second) fetch<S>(stage.second + at);
}

// The squares of one row beside those of the rows before it, in two chains.
template <Form F, class T, class S, class Count>
[[gnu::always_inline]] inline void add_square(const Stage<T, S>& stage, int64_t at, V<S>* chain,
                                              Count count) {
  const V<S> v = stage.template first<F>(at, count);
  *chain = fma(v, v, *chain);
}

// Squares of kGroup elements of each of the columns at `c`. What lies `ahead` is fetched.
template <Form F, class T, class S, class Count>
[[gnu::always_inline]] inline V<S> group_sum(const Stage<T, S>& stage, const int64_t* row,
                                             int64_t ahead, int c, Count count) {
  int64_t at[kGroup];
  V<S> chain[2] = {};
#pragma GCC unroll 8
  for (int g = 0; g < kGroup; ++g) {
    at[g] = in_register(row[g] + c);
    if (ahead) fetch_inputs(stage, at[g] + ahead);
  }
#pragma GCC unroll 8
  for (int g = 0; g < kGroup; ++g) add_square<F>(stage, at[g], chain + g % 2, count);
  return chain[0] + chain[1];
}

// The same of the last, incomplete group.
template <Form F, class T, class S, class Count>
[[gnu::always_inline]] inline V<S> rest_sum(const Stage<T, S>& stage, const int64_t* row, int group,
                                            int c, Count count) {
  V<S> even{}, odd{};
#pragma GCC unroll 1
  for (int g = 0; g < group; g += 2) {
    add_square<F>(stage, row[g] + c, &even, count);
    if (g + 1 < group) add_square<F>(stage, row[g + 1] + c, &odd, count);
  }
  return even + odd;
}

template <Form F, class T, class S>
[[gnu::noinline]] void sum_columns(const Stage<T, S>& shared, const Tile<S>& tile, double* total) {
  const Stage<T, S> stage = shared;
  const int width = tile.width;
  const int64_t count = tile.rows.count;
  for (int c = 0; c < width; c += kWidth<S>) {
    for (int d = 0; d < kWidth<S>; d += kWidth<double>) store_raw(total + c + d, V<double>{});
  }
  const auto add = [&](auto sum) __attribute__((always_inline)) {
    int c = 0;
    for (; c + kWidth<S> <= width; c += kWidth<S>) add_to<S>(total + c, sum(c, Full{}));
    if (c < width) add_to<S>(total + c, sum(c, width - c));
  };
  int64_t r = 0;
  for (; r + kGroup <= count; r += kGroup) {
    const int64_t* const offset = tile.rows.x(r);
    const int64_t ahead = tile.is_far ? tile.rows.apart(r, kGroup) : 0;
    int64_t row[kGroup];  // in registers: a store might change what others can see
#pragma GCC unroll 8
    for (int g = 0; g < kGroup; ++g) row[g] = tile.at + offset[g];
    add([&](int c, auto lanes) { return group_sum<F>(stage, row, ahead, c, lanes); });
  }
  if (r == count) return;
  const int rest = int(count - r);
  int64_t row[kGroup];
  for (int g = 0; g < rest; ++g) row[g] = tile.at + tile.rows.x(r)[g];
  add([&](int c, auto lanes) { return rest_sum<F>(stage, row, rest, c, lanes); });
}

template <bool kIs>
struct Along {
  static constexpr bool kValue = kIs;
};

// Pass 2 over kCount rows, whose scales have one value each or go along.
template <bool kSimple, bool kAlong, class Store, int kCount, class T, class S>
[[gnu::always_inline]] inline void finish_rows(const Stage<T, S>& stage, const Tile<S>& tile,
                                               int64_t first, const S* high, const S* low) {
  const S one = 1;
  const int width = tile.width;
  const int64_t ahead = tile.is_far ? tile.ahead : 0;
  const int64_t y_ahead = tile.is_far ? tile.rows.apart(first, kRows) : 0;
  int64_t row[kCount];  // in registers: a store might change what others can see
  const S* scale[kCount];
  V<S> same[kCount];
#pragma GCC unroll 4
  for (int g = 0; g < kCount; ++g) {
    row[g] = tile.at + tile.rows.x(first)[g];
    scale[g] = tile.scale ? tile.scale + tile.rows.scale(first)[g] : &one;
    if (!kAlong) same[g] = broadcast<S>(*scale[g]);
  }
  const auto piece = [&](int c, auto loads, auto stores) {
    int64_t at[kCount];
#pragma GCC unroll 4
    for (int g = 0; g < kCount; ++g) {
      at[g] = in_register(row[g] + c);
      if (ahead) fetch_inputs(stage, at[g] + ahead);
      if (!__is_same(Store, Streamed) && y_ahead) fetch<S>(stage.y + at[g] + y_ahead);
    }
    const Reciprocal<T, S> reciprocal{load<S>(high + c), load<S>(low + c)};
    // All loads before the first store: rows often lie a multiple of 4 KiB apart, and then a load
    // waits for the store before it, whose address looks the same.
    V<S> result[kCount];
#pragma GCC unroll 4
    for (int g = 0; g < kCount; ++g) {
      const V<S> factor = kAlong ? load<S>(scale[g] + c, loads) : same[g];
      const V<S> v = in_register(stage.template value<kSimple>(at[g], loads));
      result[g] = stage.template result<kSimple>(at[g], v, reciprocal, factor, loads);
    }
#pragma GCC unroll 4
    for (int g = 0; g < kCount; ++g) store<S>(stage.y + at[g], result[g], stores);
  };
  int c = 0;
  for (; c + kWidth<S> <= width; c += kWidth<S>) piece(c, Full{}, Store{});
  if (c < width) piece(c, width - c, width - c);
}

template <bool kSimple, class Store, class T, class S>
[[gnu::noinline]] void finish_columns(const Stage<T, S>& shared, const Tile<S>& tile, const S* high,
                                      const S* low) {
  const Stage<T, S> stage = shared;
  // Rows a multiple of 4 KiB apart compete for the same eight places of L1, and so do their
  // results: one by one they are 1.2-1.4 x as fast in caches.
  const bool alike = tile.rows.apart(0, 1) * int64_t(sizeof(T)) % 4096 == 0;
  int64_t r = 0;
  const auto finish = [&](auto along) __attribute__((always_inline)) {
    constexpr bool kAlong = decltype(along)::kValue;
    for (; kSimple && !alike && r + kRows <= tile.rows.count; r += kRows) {
      finish_rows<kSimple, kAlong, Store, kRows>(stage, tile, r, high, low);
    }
    for (; r < tile.rows.count; ++r) {
      finish_rows<kSimple, kAlong, Store, 1>(stage, tile, r, high, low);
    }
  };
  tile.along ? finish(Along<true>{}) : finish(Along<false>{});
}

}  // namespace rmsnorm::RMSNORM_ISA
