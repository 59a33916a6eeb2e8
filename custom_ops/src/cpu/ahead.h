// Pass 1 of some rows beside pass 2 of others. Stores wait until everything before them is done: a
// root and a quotient right before pass 2 would stop them for 70 to 90 cycles a row (a loop that
// did nothing else beside the passes). And memory is read while it is written.
#pragma once

#include "run.h"

namespace rmsnorm::RMSNORM_ISA {

// The square sum of a row of one block, whose length the compiler knows.
template <Form F, int kLength, class T, class S>
[[gnu::always_inline]] inline Total<S> sum_of(const Stage<T, S>& stage, int64_t at) {
  static_assert(kLength % kLanes<S> == 0 && kLength <= kLanes<S> * kStepsPerBlock);
  V<S> lane[kVectors];
  add_steps<F>(stage, at, at + kLength, lane);
  Total<S> total;
  total.template add<true>(lane);
  return total;
}

// The way from sums to what rows are multiplied by, in steps that stand between the passes of other
// rows.
constexpr int kSteps = 4;

template <int kRows, class S>
class Roots {
 public:
  [[gnu::always_inline]] void step(int which, const Settings& settings, const Total<S>* total,
                                   double averaged, S* high, S* low) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectorsOfRows; ++i) {
      constexpr int width = kWidth<double>;
      V<double>& value = value_[i];
      if (which == 0) {
        if constexpr (kRows == 1) {
          value = broadcast(total->value());
        } else {
          value = Total<S>::values(total + i * width);
        }
      }
      if (which == 1) value = root_of(settings, mean_of<S>(value, averaged));
      if (which == 2) value = 1.0 / value;
      if (which == 3) store_split(value, high + i * width, low + i * width);
      value = in_register(value);
    }
  }

 private:
  static constexpr int kVectorsOfRows = (kRows + kWidth<double> - 1) / kWidth<double>;
  V<double> value_[kVectorsOfRows];
};

// Rows of one head each, as norms of queries and keys have. Pass 1 runs one and a half or two
// groups ahead of pass 2, and the roots of the group between are found meanwhile. Rows too few for
// a group go through one pass after the other.
template <Form F, class Store, int kLength, class T, class S>
[[gnu::noinline]] void run_heads(const Stage<T, S>& shared, const Problem& p, int64_t begin,
                                 int64_t end) {
  // Further ahead, rows leave L1 before pass 2, or wait in it for stores (up to 1.2 x).
  constexpr int kMostBytes = __is_same(Store, Streamed) ? 128 : 512;
  constexpr int kRows = kLength * int(sizeof(T)) <= kMostBytes ? 8 : 4;
  constexpr int kLead = kLength * int(sizeof(T)) <= kMostBytes / 2 ? kRows : kRows / 2;
  Stage<T, S> stage = shared;  // of the first row that is not finished
  stage.advance(begin * kLength);
  // Eight of 32 registers hold the scale: 1.03 x.
  constexpr int kScaleVectors = kLength / kWidth<S>;
  constexpr bool kHoldsScale = kVectorBytes == 64 && kScaleVectors <= 8;
  V<S> held[kScaleVectors];
#pragma GCC unroll 8
  for (int i = 0; kHoldsScale && i < kScaleVectors; ++i) {
    held[i] = in_register(load<S>(static_cast<const S*>(p.scale) + i * kWidth<S>));
  }
  const void* const scale = kHoldsScale ? held : p.scale;
  const Settings settings = p.settings;
  constexpr int kPlaces = kRows < kWidth<double> ? kWidth<double> : kRows;
  Total<S> total[kPlaces];
  S high[2][kPlaces], low[2][kPlaces];
  const auto sum = [&](int i, int row) __attribute__((always_inline)) {
    total[i] = sum_of<F, kLength>(stage, row * kLength);
  };
  const auto finish = [&](int row, const S* highs, const S* lows) __attribute__((always_inline)) {
    T* const no_sum = nullptr;
    const int64_t at = row * kLength;
    finish_runs<true, false, Store, 1>(stage, no_sum, &at, kLength, 0, highs, lows,
                                       static_cast<const S*>(scale), 1, false);
  };
  const auto tell = [&](int count, const S* highs) {
    for (int i = 0; p.inverse && i < count; ++i) p.inverse[begin + i] = float(highs[i]);
  };
  int64_t groups = (end - begin) / kRows;
  Roots<kRows, S> chain;
  if (groups > 0) {
    for (int i = kRows; i < kPlaces; ++i) total[i].clear();
    for (int i = 0; i < kRows; ++i) sum(i, i);
    for (int k = 0; k < kSteps; ++k) chain.step(k, settings, total, kLength, high[0], low[0]);
    for (int i = 0; groups > 1 && i < kLead; ++i) sum(i, kRows + i);
  }
  for (int side = 0; groups > 0; --groups, begin += kRows, side = 1 - side) {
    const S *const highs = high[side], *const lows = low[side];
    tell(kRows, highs);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      // Stores would wait for roots that nobody needs: 60 cycles.
      for (int k = 0; groups > 1 && k < kSteps; ++k) {
        if (i != kRows - kLead + k * kLead / kSteps) continue;
        chain.step(k, settings, total, kLength, high[1 - side], low[1 - side]);
      }
      if (groups > 1 + (i + kLead) / kRows) sum((i + kLead) % kRows, i + kRows + kLead);
      finish(i, highs + i, lows + i);
    }
    stage.advance(kRows * kLength);
  }
  if (const int rest = int(end - begin)) {
    for (int i = 0; i < rest; ++i) sum(i, i);
    find_roots(p, total, rest, high[0], low[0]);
    tell(rest, high[0]);
    for (int i = 0; i < rest; ++i) finish(i, high[0] + i, low[0] + i);
  }
}

// Wider rows leave L1 before pass 2; a residual sum brings more to it.
template <Form F>
constexpr int64_t kMostBlockBytes = F == Form::kSkip ? 6 * 1024 : 8 * 1024;

// Rows for groups.h that are no wider than a page, where memory is not read. It finds roots eight
// at once, which is what counts for those of one block and a part of another (float32, 320 to 448
// elements: 1.1-1.7 x as fast), and for 16 bits of any width (1.05-1.2 x; bfloat16 only where the
// scale is, too).
template <Form F, class T, class S>
inline bool is_short(const Problem& p) {
  constexpr int64_t block = kLanes<S> * kStepsPerBlock;
  constexpr int64_t most_bytes = (F == Form::kSkip ? 2 : 4) << 20;
  const int64_t length = p.layout.inner;
  if (p.layout.kept.count * length * int64_t(sizeof(T)) > most_bytes) return false;
  if (__is_same(T, Half) || (__is_same(T, BFloat16) && p.own_scale)) return true;
  return F == Form::kPlain && sizeof(T) == 4 && length > block && length < 2 * block &&
         length % kLanes<S> == 0;
}

// Rows of a few blocks, the last one whole or not. Pass 1 runs a row and a block ahead of pass 2,
// in turns of one block each, and the root is found while the last block of the row before is
// finished.
template <Form F, bool kWhole, class T, class S>
[[gnu::noinline]] void run_blocks(const Stage<T, S>& shared, const Problem& p, int64_t begin,
                                  int64_t end) {
  constexpr int64_t kBlock = int64_t(kLanes<S>) * kStepsPerBlock;
  const S* const scale = static_cast<const S*>(p.scale);
  const int64_t length = p.layout.inner;
  const Settings settings = p.settings;
  const double averaged = double(length);
  Total<S> total;
  S high[kWidth<double>], low[kWidth<double>];
  Roots<1, S> chain;
  const Stage<T, S> stage = shared;
  // Whole blocks have a length that the compiler knows, the last one whole steps.
  const auto block = [&](int64_t from, auto run) __attribute__((always_inline)) {
    const int64_t left = length - from;
    if (kWhole || left >= kBlock) return run(kBlock);
    if (left % kLanes<S> != 0) __builtin_unreachable();
    run(left);
  };
  const auto add = [&](int64_t row, int64_t from) __attribute__((always_inline)) {
    block(from, [&](int64_t count) __attribute__((always_inline)) {
      add_run<F>(stage, row * length + from, count, total);
    });
  };
  const auto find = [&](int step) __attribute__((always_inline)) {
    chain.step(step, settings, &total, averaged, high, low);
  };
  const auto finish = [&](int64_t from) __attribute__((always_inline)) {
    T* const no_sum = nullptr;
    const int64_t at = begin * length + from;
    block(from, [&](int64_t count) __attribute__((always_inline)) {
      finish_runs<true, false, Full, 1>(stage, no_sum, &at, count, 0, high, low, scale + from, 1,
                                        false);
    });
  };
  total.clear();
  for (int64_t from = 0; from < length; from += kBlock) add(begin, from);
  for (int k = 0; k < kSteps; ++k) find(k);
  total.clear();
  if (begin + 1 < end) add(begin + 1, 0);
  for (; begin < end; ++begin) {
    if (p.inverse) p.inverse[begin] = float(high[0]);
    for (int64_t from = 0; from < length; from += kBlock) {
      const bool last = from + kBlock >= length;
      if (last) {
        find(0);
        find(1);
        total.clear();
      }
      finish(from);
      const int64_t next = begin + (last ? 2 : 1);
      if (next < end) add(next, last ? 0 : from + kBlock);
    }
    find(2);
    find(3);
  }
}

// Rows of one run, without gaps, that share their scale.
inline bool is_dense(const Problem& p) {
  const Layout& layout = p.layout;
  const Walk& kept = layout.kept;
  const bool adjoin =
      kept.rank == 0 || (kept.rank == 1 && kept.x[0] == layout.inner && kept.scale[0] == 0);
  return adjoin && layout.reduced.count == 1 && p.scale && layout.inner_scale;
}

// Whether pass 1 ran ahead of pass 2, over all the rows: those for which it was measured to be
// faster, with vectors of 32 bytes and more: narrow ones 1.1-1.7 x, blocks 1.05-1.7 x where memory
// is read.
template <Form F, class Store, class T, class S>
bool run_ahead(const Stage<T, S>& stage, const Problem& p, int64_t begin, int64_t end) {
  const int64_t length = p.layout.inner;
  constexpr bool streamed = __is_same(Store, Streamed);
  if (!is_dense(p)) return false;
  if (length == 64) return run_heads<F, Store, 64>(stage, p, begin, end), true;
  if (length == 128) return run_heads<F, Store, 128>(stage, p, begin, end), true;
  if constexpr (!(streamed && sizeof(T) == 4)) {
    if (length == 256) return run_heads<F, Store, 256>(stage, p, begin, end), true;
  }
  if constexpr (!streamed && (F == Form::kSkip || sizeof(T) == 4)) {
    constexpr int64_t block = kLanes<S> * kStepsPerBlock;
    const bool fits = length * int64_t(sizeof(T)) <= kMostBlockBytes<F> && length > block;
    if (!fits || begin == end || is_short<F, T, S>(p)) return false;
    if (length % block == 0) return run_blocks<F, true>(stage, p, begin, end), true;
    // 1.1-1.2 x slower with bfloat16.
    if constexpr (!kByParity<S, T>) {
      if (length % kLanes<S> == 0) return run_blocks<F, false>(stage, p, begin, end), true;
    }
  }
  return false;
}

}  // namespace rmsnorm::RMSNORM_ISA
