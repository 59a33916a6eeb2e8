// Numbers of twice the precision of S, as the sum of two of them: float64 arithmetic is 32 to 64
// times as slow as float32 on all but a few GPUs.
#pragma once

#include <type_traits>

#include "../kernel.h"
#include "device.cuh"

namespace rmsnorm::cuda {

template <class S>
struct Pair {
  S high;
  S low;
};

// What square sums and reciprocals for elements T are: S where results are narrower and do not see
// its rounding.
template <class T, class S>
using Precise = std::conditional_t<(sizeof(T) < sizeof(S)), S, Pair<S>>;

template <class Number, class S>
RMSNORM_DEVICE Number precise(S v) {
  if constexpr (std::is_same_v<Number, S>) {
    return v;
  } else {
    return {v, 0};
  }
}
template <class S>
RMSNORM_DEVICE S nearest(S v) {
  return v;
}
template <class S>
RMSNORM_DEVICE S nearest(Pair<S> v) {
  return v.high;
}

template <class S>
RMSNORM_DEVICE Pair<S> shuffle_xor(Pair<S> v, int mask) {
  return {shuffle_xor(v.high, mask), shuffle_xor(v.low, mask)};
}

// high + low anew, where low is the smaller. Overflow and NaN leave `high` alone.
template <class S>
RMSNORM_DEVICE Pair<S> normalized(S high, S low) {
  const S sum = add(high, low), rest = add(low, -add(sum, -high));
  return add(rest, -rest) == 0 ? Pair<S>{sum, rest} : Pair<S>{high, 0};
}

// What the rounded sum of a and b lost.
template <class S>
RMSNORM_DEVICE S lost(S a, S b, S sum) {
  const S of_b = add(sum, -a);
  return add(add(a, -add(sum, -of_b)), add(b, -of_b));
}

template <class S>
RMSNORM_DEVICE S total(S a, S b) {
  return add(a, b);
}
// Not normalized, so that an infinite sum stays one. Which of the two is first changes no bit.
template <class S>
RMSNORM_DEVICE Pair<S> total(Pair<S> a, Pair<S> b) {
  const S sum = add(a.high, b.high);
  return {sum, add(lost(a.high, b.high, sum), add(a.low, b.low))};
}

template <class S>
RMSNORM_DEVICE Pair<S> sum_of(Pair<S> a, Pair<S> b) {
  const Pair<S> sum = total(a, b);
  return normalized(sum.high, sum.low);
}

template <class S>
RMSNORM_DEVICE Pair<S> product(Pair<S> a, Pair<S> b) {
  const S high = multiply(a.high, b.high);
  const S low = fused(a.high, b.low, multiply(a.low, b.high));
  return normalized(high, add(fused(a.high, b.high, -high), low));
}

template <class S>
RMSNORM_DEVICE Pair<S> root_of(Pair<S> a) {
  const S root = square_root(a.high);
  return normalized(root, divide(add(fused(-root, root, a.high), a.low), add(root, root)));
}

template <class S>
RMSNORM_DEVICE Pair<S> reciprocal_of(Pair<S> a) {
  const S quotient = inverted(a.high);
  const S rest = fused(-quotient, a.low, fused(-quotient, a.high, S(1)));
  return normalized(quotient, multiply(quotient, rest));
}

// What makes 1 / (sqrt(max(mean, floor) + epsilon) + epsilon_outside) of a square sum.
template <class S>
struct Root {
  Pair<S> share;  // 1 / elements
  Pair<S> floor;
  Pair<S> epsilon;
  Pair<S> epsilon_outside;

  Root(const Settings& settings, int64_t averaged)
      : floor(split(settings.floor)),
        epsilon(split(settings.epsilon)),
        epsilon_outside(split(settings.epsilon_outside)) {
    const double count = double(averaged), high = 1 / count;
    share = split(high);
    if (sizeof(S) == 8) share.low = S(__builtin_fma(-high, count, 1.0) / count);
  }

  RMSNORM_DEVICE Pair<S> reciprocal(Pair<S> square_sum) const {
    Pair<S> mean = product(normalized(square_sum.high, square_sum.low), share);
    const bool below = mean.high < floor.high || (mean.high == floor.high && mean.low < floor.low);
    if (below) mean = floor;
    return reciprocal_of(sum_of(root_of(sum_of(mean, epsilon)), epsilon_outside));
  }

  RMSNORM_DEVICE S reciprocal(S square_sum) const {
    S mean = multiply(square_sum, share.high);
    if (mean < floor.high) mean = floor.high;
    return inverted(add(square_root(add(mean, epsilon.high)), epsilon_outside.high));
  }

 private:
  static Pair<S> split(double v) {
    const S high = S(v);
    return {high, S(v - double(high))};
  }
};

}  // namespace rmsnorm::cuda
