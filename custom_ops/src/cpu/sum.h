// A sum in a fixed number of lanes and one fixed tree: the same bits on every instruction set with
// FMA, for any split of the work.
#pragma once

#include "convert.h"

namespace rmsnorm::RMSNORM_ISA {

// Steps of kLanes elements that are added in S before the lanes move into double. In a row of one
// value all roundings of a lane go the same way: 16 steps cost up to 3.6 units of 2^-24 in the
// result (4.3 without FMA), 8 steps 2.5 (3.1), 4 steps 2.1 (2.4), and no measurable time.
constexpr int kStepsPerBlock = 4;

// As many vectors of doubles as they have lanes, each added up, one total in each lane: lane i and
// lane i + half of the width first.
template <class D>
[[gnu::always_inline]] inline D across(D* sum) {
  if constexpr (sizeof(D) == 64) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const D a = sum[2 * i], b = sum[2 * i + 1];
      sum[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
               __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const D a = sum[2 * i], b = sum[2 * i + 1];
      sum[i] = __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13) +
               __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15);
    }
    return __builtin_shufflevector(sum[0], sum[1], 0, 2, 4, 6, 8, 10, 12, 14) +
           __builtin_shufflevector(sum[0], sum[1], 1, 3, 5, 7, 9, 11, 13, 15);
  } else if constexpr (sizeof(D) == 32) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const D a = sum[2 * i], b = sum[2 * i + 1];
      sum[i] =
          __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    }
    return __builtin_shufflevector(sum[0], sum[1], 0, 2, 4, 6) +
           __builtin_shufflevector(sum[0], sum[1], 1, 3, 5, 7);
  } else {
    return __builtin_shufflevector(sum[0], sum[1], 0, 2) +
           __builtin_shufflevector(sum[0], sum[1], 1, 3);
  }
}

// The total of one vector of doubles, in the same order.
template <class D>
[[gnu::always_inline]] inline double folded(D sum) {
  if constexpr (sizeof(D) == 64) {
    return folded(__builtin_shufflevector(sum, sum, 0, 1, 2, 3) +
                  __builtin_shufflevector(sum, sum, 4, 5, 6, 7));
  } else if constexpr (sizeof(D) == 32) {
    return folded(__builtin_shufflevector(sum, sum, 0, 1) +
                  __builtin_shufflevector(sum, sum, 2, 3));
  } else {
    return sum[0] + sum[1];
  }
}

template <class S>
class Total {
 public:
  [[gnu::always_inline]] void clear() {
#pragma GCC unroll 4
    for (int q = 0; q < kParts; ++q) part_[q] = V<double>{};
  }

  // Tree over the lanes, halving their number: in S down to 64 bytes, in double down to eight. The
  // first lanes need no clear total.
  template <bool kFirst = false>
  [[gnu::always_inline]] void add(const V<S>* lane) {
    V<S> narrow[kVectors];
#pragma GCC unroll 16
    for (int k = 0; k < kVectors; ++k) narrow[k] = lane[k];
#pragma GCC unroll 4
    for (int half = kVectors / 2; half >= kNarrow; half /= 2) {
#pragma GCC unroll 16
      for (int k = 0; k < half; ++k) narrow[k] += narrow[k + half];
    }
#pragma GCC unroll 4
    for (int q = 0; q < kParts; ++q) {
      V<double> part;
      if constexpr (__is_same(S, double)) {
        part = narrow[q];
      } else if constexpr (kParts == 1) {
        part = to_double(low_half(narrow[0])) + to_double(high_half(narrow[0]));
      } else {
        const V<S> low = narrow[q / 2], high = narrow[(q + kParts) / 2];
        part = q % 2 ? to_double(high_half(low)) + to_double(high_half(high))
                     : to_double(low_half(low)) + to_double(low_half(high));
      }
      part_[q] = kFirst ? part : part_[q] + part;
    }
  }

  // The totals of kWidth<double> rows, one in each lane:
  // ((part 0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)).
  [[gnu::always_inline]] static V<double> values(const Total* rows) {
    constexpr int n = kWidth<double>;
    V<double> sum[n];
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) sum[i] = rows[i].halved();
    return across(sum);
  }

  // The total of one row, added in the same order.
  [[gnu::always_inline]] double value() const { return folded(halved()); }

 private:
  static constexpr int kParts = 8 / kWidth<double>;
  static constexpr int kNarrow = 64 / kVectorBytes;

  // The first levels of the tree, those between registers.
  [[gnu::always_inline]] V<double> halved() const {
    if constexpr (kParts == 4) return (part_[0] + part_[2]) + (part_[1] + part_[3]);
    if constexpr (kParts == 2) return part_[0] + part_[1];
    return part_[0];
  }

  V<double> part_[kParts];
};

}  // namespace rmsnorm::RMSNORM_ISA
