// silu(z) = z * sigmoid(z) in the precision of S, with the limits that z * Sigmoid(z) has:
// silu(+inf) = inf, silu(-inf) = -inf * 0 = NaN, NaN stays NaN.
#pragma once

#include "../exp_constants.h"
#include "vector.h"

namespace rmsnorm::RMSNORM_ISA {

// NaN passes. The compiler would take two instructions each where one does exactly this.
template <class S>
inline V<S> clamp(V<S> z, V<S> low, V<S> high) {
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) {
    return _mm512_min_ps(high, _mm512_max_ps(low, z));
  } else {
    return _mm512_min_pd(high, _mm512_max_pd(low, z));
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(S) == 4) {
    return _mm256_min_ps(high, _mm256_max_ps(low, z));
  } else {
    return _mm256_min_pd(high, _mm256_max_pd(low, z));
  }
#else
  const V<S> above = low > z ? low : z;
  return high < above ? high : above;
#endif
}

// Registers whose chains of operations run side by side in pass 2; pass 1 has its sums besides.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTogether = 4;
#else
constexpr int kTogether = 2;
#endif

// 2^-k / (2^-k + 2^-k * exp(-z)) with k = kScale: no power of two in it leaves the normal numbers,
// and where the sigmoid is subnormal, the quotient rounds it once. Of n registers step by step: one
// after the other, their chains fill the processor's window.
template <class C, class S, int n>
[[gnu::always_inline]] inline void silu_by(V<S>* z) {
  using Bits = Vec<typename BitsOf<S>::Unsigned, kWidth<S>>;
  const V<S> shift = broadcast<S>(C::kShift), small = broadcast<S>(C::kSmall);
  const auto each = [](auto body) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) body(i);
  };
  V<S> r[n], shifted[n], sum[n];
  each([&](int i) {
    const V<S> bounded = clamp<S>(z[i], broadcast<S>(C::kLowest), broadcast<S>(C::kHighest));
    shifted[i] = fma(bounded, broadcast<S>(-C::kLog2E), shift);
    r[i] = bounded;
  });
  each([&](int i) {
    const V<S> whole = shifted[i] - shift;
    r[i] = fma(whole, broadcast<S>(C::kLn2High), r[i]);
    if (C::kLn2Low != 0) r[i] = fma(whole, broadcast<S>(C::kLn2Low), r[i]);
    sum[i] = broadcast<S>(C::kTail[C::kTerms - 1]);
  });
#pragma GCC unroll 16
  for (int k = C::kTerms - 2; k >= 0; --k) {
    each([&](int i) { sum[i] = fma(sum[i], r[i], broadcast<S>(C::kTail[k])); });
  }
  each([&](int i) { sum[i] = fma(sum[i], r[i], broadcast<S>(S(-1))); });
  each([&](int i) { sum[i] = fma(sum[i], r[i], broadcast<S>(S(1))); });
  each([&](int i) {
    // The integer in the last bits of `shifted` moves into the exponent.
    const V<S> decay = (V<S>)((Bits)sum[i] + ((Bits)shifted[i] << C::kMantissa));
    z[i] *= small / (small + decay);
  });
}

// Of n registers, as exact as elements T ask for.
template <class S, class T, int n>
[[gnu::always_inline]] inline void silu(V<S>* z) {
  if constexpr (sizeof(S) == 4 && sizeof(T) == 2) {
    silu_by<ShortExp, S, n>(z);
  } else {
    silu_by<ExpConstants<S>, S, n>(z);
  }
}

template <class S, class T>
[[gnu::always_inline]] inline V<S> silu(V<S> z) {
  silu<S, T, 1>(&z);
  return z;
}

}  // namespace rmsnorm::RMSNORM_ISA
