// What a norm multiplies by: the reciprocal of its root, more exactly than one float holds it.
#pragma once

#include "convert.h"

namespace rmsnorm::RMSNORM_ISA {

// Of one row, or of one in each lane. A product is found sooner than a quotient, and only a result
// in double could show its second rounding.
template <class S, class D>
[[gnu::always_inline]] inline D mean_of(D total, double averaged) {
  if constexpr (__is_same(S, double)) return total / averaged;
  return total * (1.0 / averaged);
}

// Root of the mean + epsilon_outside, in double. A NaN mean stays NaN.
[[gnu::always_inline]] inline V<double> root_of(const Settings& settings, V<double> mean) {
  const V<double> floor = broadcast(settings.floor);
  const V<double> bounded = mean < floor ? floor : mean;
  return square_root(bounded + settings.epsilon) + settings.epsilon_outside;
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

// kWidth<double> reciprocals, each as the sum of two S. Where a product and a sum are rounded
// together, the first float is the nearest towards zero and the second the power of two nearest to
// what is left; elsewhere, both are the nearest.
template <class S>
[[gnu::always_inline]] inline void store_split(V<double> value, S* high, S* low) {
  if constexpr (__is_same(S, double)) {
    store_raw(high, value);
    store_raw(low, V<double>{});
  } else if constexpr (kFuses) {
    // On the bits of a double: no conversion waits for another.
    using Words = Vec<int64_t, kWidth<double>>;
    const V<double> first = (V<double>)((Words)value & -0x20000000);
    const V<double> rest = value - first;
    const V<double> positive = rest > 0.0 ? rest : V<double>{};  // inf - inf: a root is 0
    const Words power = ((Words)positive + (int64_t{1} << 51)) & (int64_t{0x7FF} << 52);
    store_raw(high, to_float(first));
    store_raw(low, as_power(to_float((V<double>)power)));
  } else {
    const HalfWidth first = to_float(value);
    const V<double> rest = value - to_double(first);
    store_raw(high, first);
    store_raw(low, to_float(rest == rest ? rest : V<double>{}));
  }
}

// kWidth<double> of them from the means.
template <class S>
[[gnu::always_inline]] inline void reciprocals_of_roots(const Settings& settings, V<double> mean,
                                                        S* high, S* low) {
  store_split(1.0 / root_of(settings, mean), high, low);
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
