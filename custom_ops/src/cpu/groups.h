// Pass 2 of wide rows by columns. A line takes two cycles from L2 to L1, and that is what such rows
// wait for: X twice, Y to be written, and the scale. Eight rows share a block of the scale.
#pragma once

#include "ahead.h"

namespace rmsnorm::RMSNORM_ISA {

// Bytes of a row between one row and the next: 16 lines. Longer blocks are as fast in L2 and up to
// 1.2 x slower in L3 (with 16 rows a group, or next rows prefetched, no faster).
constexpr int64_t kColumnBytes = 1024;
constexpr int kRowsOfGroup = 8;
// Loads of eight lines, then stores: 1.05-1.1 x as fast as four.
constexpr int kWideUnroll = 8;

// Rows for which it was measured to be faster, of those that ahead.h leaves and with vectors of 32
// bytes and more: 1.05-1.3 x from 4 KiB of X to 64 KiB of scale. (Wider ones leave L2 before pass 2
// with seven others.)
template <Form F, class T, class S>
bool takes_groups(const Problem& p) {
  constexpr int64_t page = 4096 / int64_t(sizeof(T)), most = 64 * 1024 / int64_t(sizeof(S));
  const int64_t length = p.layout.inner;
  return is_dense(p) && (length > page || is_short<F, T, S>(p)) && length <= most;
}

template <Form F, class T, class S>
[[gnu::noinline]] void run_groups(const Stage<T, S>& shared, const Problem& p, int64_t begin,
                                  int64_t end) {
  constexpr int64_t kColumns = kColumnBytes / int64_t(sizeof(T));
  const Stage<T, S> stage = shared;
  const S* const scale = static_cast<const S*>(p.scale);
  const int64_t length = p.layout.inner;
  Total<S> total[kRowsOfGroup];
  S high[kRowsOfGroup], low[kRowsOfGroup];
  for (int count; begin < end; begin += count) {
    count = end - begin < kRowsOfGroup ? int(end - begin) : kRowsOfGroup;
    const int64_t first = begin * length;
    for (int i = 0; i < count; ++i) {
      Total<S> sum;
      sum.clear();
      add_run<F>(stage, first + i * length, length, sum);
      total[i] = sum;
    }
    find_roots(p, total, count, high, low);
    for (int i = 0; p.inverse && i < count; ++i) p.inverse[begin + i] = float(high[i]);
    const auto finish = [&](int64_t from, int64_t columns) __attribute__((always_inline)) {
      for (int i = 0; i < count; ++i) {
        T* const no_sum = nullptr;
        const int64_t at = first + i * length + from;
        finish_runs<true, false, Full, 1, kWideUnroll>(stage, no_sum, &at, columns, 0, high + i,
                                                       low + i, scale + from, 1, false);
      }
    };
    int64_t from = 0;
    for (; from + kColumns <= length; from += kColumns) finish(from, kColumns);
    if (from < length) finish(from, length - from);
  }
}

}  // namespace rmsnorm::RMSNORM_ISA
