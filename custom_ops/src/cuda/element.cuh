// Elements in memory and as they are computed with.
#pragma once

#include "../kernel.h"
#include "device.cuh"

namespace rmsnorm::cuda {

// Elements of one access.
template <class T>
constexpr int kVector = int(sizeof(Words) / sizeof(T));

RMSNORM_DEVICE uint32_t pack(Half kind, double low, double high);
RMSNORM_DEVICE uint32_t pack(BFloat16 kind, double low, double high);

// Rounded so that one more rounding to 16 bits is as good as one from double: towards zero, and the
// last bit set where something was lost.
RMSNORM_DEVICE float rounded_to_odd(double v) {
  const float f = to_float_truncated(v);
  return double(f) == v ? f : float_of(bits_of(f) | 1U);
}
RMSNORM_DEVICE uint32_t pack(Half kind, double low, double high) {
  return pack(kind, rounded_to_odd(low), rounded_to_odd(high));
}
RMSNORM_DEVICE uint32_t pack(BFloat16 kind, double low, double high) {
  return pack(kind, rounded_to_odd(low), rounded_to_odd(high));
}

// The first kCount elements; packed() makes the others zeros.
template <class T, int kCount = kVector<T>, class S>
RMSNORM_DEVICE void unpack(const Words& from, S* v) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (sizeof(T) == 8) {
      v[i] = S(double_of(uint64_t(from.word[2 * i + 1]) << 32 | from.word[2 * i]));
    } else if constexpr (sizeof(T) == 4) {
      v[i] = S(float_of(from.word[i]));
    } else {
      v[i] = S(to_float(T{uint16_t(from.word[i / 2] >> i % 2 * 16)}));
    }
  }
}

template <class T, int kCount = kVector<T>, class S>
RMSNORM_DEVICE Words packed(const S* v) {
  const auto at = [&](int i) { return i < kCount ? v[i] : S(0); };
  Words to;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 8) {
      to.word[i] = uint32_t(bits_of(double(at(i / 2))) >> i % 2 * 32);
    } else if constexpr (sizeof(T) == 4) {
      to.word[i] = bits_of(float(at(i)));
    } else {
      to.word[i] = pack(T{}, at(2 * i), at(2 * i + 1));
    }
  }
  return to;
}

// v rounded to a type narrower than S, given at run time.
RMSNORM_DEVICE float rounded(Element type, float v) {
  const Half half{uint16_t(pack(Half{}, v, 0.0f))};
  const BFloat16 brain{uint16_t(pack(BFloat16{}, v, 0.0f))};
  return type == Element::kFloat16 ? to_float(half) : to_float(brain);
}
RMSNORM_DEVICE double rounded(Element type, double v) {
  return type == Element::kFloat32 ? double(float(v)) : double(rounded(type, rounded_to_odd(v)));
}

}  // namespace rmsnorm::cuda
