// silu(z) = z * sigmoid(z), with the limits that z * Sigmoid(z) has (cpu/silu.h).
#pragma once

#include "../exp_constants.h"
#include "device.cuh"

namespace rmsnorm::cuda {

// kTail[k] + kTail[k + 1] * r + ...
template <class S, int k = 0>
RMSNORM_DEVICE S tail(S r) {
  using C = ExpConstants<S>;
  constexpr S term = C::kTail[k];
  if constexpr (k + 1 < C::kTerms) return fused(tail<S, k + 1>(r), r, term);
  return term;
}

// NaN passes.
template <class S>
RMSNORM_DEVICE S clamped(S z, S low, S high) {
  const S above = low > z ? low : z;
  return high < above ? high : above;
}

// An integer times 2^n, added to the bits of v.
RMSNORM_DEVICE float times_power(float v, float n) {
  return float_of(bits_of(v) + (bits_of(n) << ExpConstants<float>::kMantissa));
}
RMSNORM_DEVICE double times_power(double v, double n) {
  return double_of(bits_of(v) + (bits_of(n) << ExpConstants<double>::kMantissa));
}

template <class S>
RMSNORM_DEVICE S silu(S z) {
  using C = ExpConstants<S>;
  const S small = C::kSmall, shift = C::kShift;
  const S bounded = clamped<S>(z, C::kLowest, C::kHighest);
  const S whole_last = fused(bounded, S(-C::kLog2E), shift);
  const S whole = add(whole_last, -shift);
  const S r = fused(whole, S(C::kLn2Low), fused(whole, S(C::kLn2High), bounded));
  const S decay = times_power(fused(fused(tail<S>(r), r, S(-1)), r, S(1)), whole_last);
  return multiply(z, divide(small, add(small, decay)));
}

// For results of 16 bits: 9 instructions instead of 30, and a relative error of 2^-21.
RMSNORM_DEVICE float short_silu(float z) {
  // Nothing of 16 bits is left of a product with a sigmoid of less, and 1 / 2^128 is 0.
  constexpr float kLowest = -120, kHighest = 40;
  constexpr float kLog2E = 0x1.715476p0f, kLn2 = 0x1.62e43p-1f;
  // The power of two in it keeps every sigmoid above kLowest among the normal numbers.
  constexpr float kSmall = 0x1p-32f;
  const float bounded = clamped(z, kLowest, kHighest);
  const float power = multiply(bounded, -kLog2E);
  const float rest = fused(bounded, -kLog2E, -power);
  const float decay = multiply(power_of_two_near(add(power, -32.0f)), fused(rest, kLn2, 1.0f));
  return multiply(multiply(z, reciprocal_near(add(kSmall, decay))), kSmall);
}

// As exact as elements T ask for.
template <class T, class S>
RMSNORM_DEVICE S silu_for(S z) {
  if constexpr (sizeof(S) == 4 && sizeof(T) == 2) {
    return short_silu(z);
  } else {
    return silu(z);
  }
}

}  // namespace rmsnorm::cuda
