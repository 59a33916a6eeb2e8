// What a norm multiplies by: the reciprocal of its root, more exactly than one float holds it.
#pragma once

#include "convert.h"

namespace rmsnorm::RMSNORM_ISA {

// 1 / (root of the mean + epsilon_outside), in double. A NaN mean stays NaN; an infinite one gives
// 0.
[[gnu::always_inline]] inline V<double> reciprocal_of_root(const Settings& settings,
                                                           V<double> mean) {
  const V<double> floor = broadcast(settings.floor);
  const V<double> bounded = mean < floor ? floor : mean;
  return 1.0 / (square_root(bounded + settings.epsilon) + settings.epsilon_outside);
}

// A power of two as times_power() takes it.
[[gnu::always_inline]] inline HalfWidth as_power(HalfWidth power) {
#if defined(__AVX512F__)
  return _mm256_getexp_ps(power);
#else
  return power;
#endif
}

// v times a power of two. Pipes that multiply are what pass 2 waits for where X is in L1; this
// takes those that add.
[[gnu::always_inline]] inline V<float> times_power(V<float> v, V<float> power) {
#if defined(__AVX512F__)
  return _mm512_scalef_ps(v, power);
#else
  return v * power;
#endif
}

// kWidth<double> reciprocals of roots, each as the sum of two S. Where a product and a sum are
// rounded together, the first float is the nearest towards zero and the second the power of two
// nearest to what is left; elsewhere, both are the nearest.
template <class S>
[[gnu::always_inline]] inline void reciprocals_of_roots(const Settings& settings, V<double> mean,
                                                        S* high, S* low) {
  const V<double> inverse = reciprocal_of_root(settings, mean);
  if constexpr (__is_same(S, double)) {
    store_raw(high, inverse);
    store_raw(low, V<double>{});
  } else {
    using Words = Vec<int32_t, kWidth<double>>;
    HalfWidth first = to_float(inverse);
    if constexpr (kFuses) {
      const auto above = to_double(first) > inverse;  // -1 where it is
      first = (HalfWidth)((Words)first + __builtin_convertvector(above, Words));
    }
    const V<double> rest = inverse - to_double(first);
    HalfWidth second = to_float(rest == rest ? rest : V<double>{});  // inf - inf: a root is 0
    if constexpr (kFuses) second = as_power((HalfWidth)(((Words)second + 0x400000) & 0x7F800000));
    store_raw(high, first);
    store_raw(low, second);
  }
}

// One of them: the same bits.
template <class S>
[[gnu::always_inline]] inline void reciprocal_of_root(const Settings& settings, double mean,
                                                      S* high, S* low) {
  S highs[kWidth<double>], lows[kWidth<double>];
  reciprocals_of_roots(settings, broadcast(mean), highs, lows);
  *high = highs[0];
  *low = lows[0];
}

// Factor of the normalized value, as the sum of two S. The second takes most of the rounding of the
// reciprocal out of float results; 16-bit results do not see it.
template <class T, class S>
struct Reciprocal {
  static constexpr bool kHasRemainder = sizeof(S) == 4 && sizeof(T) >= 4;
  V<S> high;
  V<S> low;

  V<S> times(V<S> v) const {
    if constexpr (kHasRemainder) {
      const V<S> once = in_register(v);
      return fma(once, high, times_power(once, low));
    } else {
      return v * high;
    }
  }
};

}  // namespace rmsnorm::RMSNORM_ISA
