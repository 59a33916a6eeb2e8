// A sum in a fixed number of lanes and one fixed tree: the same bits on every instruction set with
// FMA, for any split of the work.
#pragma once

#include "convert.h"

namespace rmsnorm::RMSNORM_ISA {

// Steps of kLanes elements that are added in S before the lanes move into double: 16 additions
// leave an error far below one rounding of the result.
constexpr int kStepsPerBlock = 16;

template <class S>
class Total {
 public:
  // Tree over the lanes, halving their number until eight doubles are left.
  [[gnu::always_inline]] void add(const V<S>* lane) {
    V<double> wide[kWide];
#pragma GCC unroll 16
    for (int k = 0; k < kVectors; ++k) {
      if constexpr (__is_same(S, float)) {
        wide[2 * k] = to_double(low_half(lane[k]));
        wide[2 * k + 1] = to_double(high_half(lane[k]));
      } else {
        wide[k] = lane[k];
      }
    }
#pragma GCC unroll 8
    for (int half = kWide / 2; half >= kParts; half /= 2) {
#pragma GCC unroll 16
      for (int m = 0; m < half; ++m) wide[m] += wide[m + half];
    }
#pragma GCC unroll 4
    for (int q = 0; q < kParts; ++q) part_[q] += wide[q];
  }

  [[gnu::always_inline]] double value() const {
    double part[8];
#pragma GCC unroll 4
    for (int q = 0; q < kParts; ++q) store_raw(part + q * kWidth<double>, part_[q]);
    return ((part[0] + part[4]) + (part[2] + part[6])) +
           ((part[1] + part[5]) + (part[3] + part[7]));
  }

 private:
  static constexpr int kParts = 8 / kWidth<double>;
  static constexpr int kWide = kVectors * int(sizeof(double) / sizeof(S));

  V<double> part_[kParts] = {};
};

}  // namespace rmsnorm::RMSNORM_ISA
