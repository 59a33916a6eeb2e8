// silu(z) = z * sigmoid(z) in the precision of S, with the limits that z * Sigmoid(z) has:
// silu(+inf) = inf, silu(-inf) = -inf * 0 = NaN, NaN stays NaN.
#pragma once

#include "vector.h"

namespace rmsnorm::RMSNORM_ISA {

template <class S>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kShift =
      0x1.8p23f;  // adding it leaves the nearest integer in the last bits
  static constexpr float kLog2E = 0x1.715476p0f;
  static constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: its product with any n here is exact
  static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kLowest = -151.0f * 0.6931472f;  // exp of less rounds to 0
  static constexpr int kMantissa = 23;
  static constexpr uint32_t kOne = 0x3f800000u;
  static constexpr int kDegree = 7;  // 0.35^8 / 8! = 6e-9, a tenth of a rounding error
};

template <>
struct ExpConstants<double> {
  static constexpr double kShift = 0x1.8p52;
  static constexpr double kLog2E = 0x1.71547652b82fep0;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1;  // 42 bits
  static constexpr double kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kLowest = -1076.0 * 0.6931471805599453;
  static constexpr int kMantissa = 52;
  static constexpr uint64_t kOne = 0x3ff0000000000000u;
  static constexpr int kDegree = 13;
};

constexpr double inverse_factorial(int k) { return k < 2 ? 1.0 : inverse_factorial(k - 1) / k; }

// exp(z) for z <= 0, down to the smallest subnormal.
template <class S>
inline V<S> exp_of_negative(V<S> z) {
  using C = ExpConstants<S>;
  using Bits = Vec<typename BitsOf<S>::Unsigned, kWidth<S>>;
  const V<S> shift = broadcast<S>(C::kShift);
  const V<S> bounded = z < C::kLowest ? broadcast<S>(C::kLowest) : z;  // NaN passes
  const V<S> n = fma(bounded, broadcast<S>(C::kLog2E), shift) - shift;
  V<S> r = fma(n, broadcast<S>(-C::kLn2High), bounded);
  r = fma(n, broadcast<S>(-C::kLn2Low), r);
  V<S> sum = broadcast<S>(S(inverse_factorial(C::kDegree)));
#pragma GCC unroll 16
  for (int k = C::kDegree - 1; k >= 0; --k) {
    sum = fma(sum, r, broadcast<S>(S(inverse_factorial(k))));
  }
  // 2^n as a product of two, because 2^n itself may be subnormal. The integer stands in the last
  // bits of shift + n, from where it moves into the exponent.
  const V<S> half = fma(n, broadcast<S>(S(0.5)), shift) - shift;
  const Bits first = ((Bits)(half + shift) << C::kMantissa) + C::kOne;
  const Bits second = ((Bits)((n - half) + shift) << C::kMantissa) + C::kOne;
  return sum * (V<S>)first * (V<S>)second;
}

// Not inlined: forty instructions, called from every unrolled step of every kernel.
template <class S>
[[gnu::noinline]] V<S> silu(V<S> z) {
  const V<S> one = broadcast<S>(S(1));
  const V<S> decay = exp_of_negative<S>(z < S(0) ? z : -z);
  const V<S> sigmoid = (z < S(0) ? decay : one) / (one + decay);
  return z * sigmoid;
}

}  // namespace rmsnorm::RMSNORM_ISA
