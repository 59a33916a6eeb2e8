// The scale, of any type, in the stash type.
#pragma once

#include "plan.h"
#include "vector.cuh"

namespace rmsnorm::cuda {

RMSNORM_DEVICE float number_of(Half v) { return to_float(v); }
RMSNORM_DEVICE float number_of(BFloat16 v) { return to_float(v); }
RMSNORM_DEVICE float number_of(float v) { return v; }
RMSNORM_DEVICE double number_of(double v) { return v; }

template <int kCount, class E, class S>
RMSNORM_DEVICE void load_scale_of(const E* scale, int apart, int count, S* v) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i < count) v[i] = S(number_of(scale[i * apart]));
  }
}

template <int kCount, class S>
RMSNORM_DEVICE void load_scale_of(const void* scale, Element type, int64_t at, int apart, int count,
                                  S* v) {
  switch (type) {
    case Element::kFloat16:
      return load_scale_of<kCount>(static_cast<const Half*>(scale) + at, apart, count, v);
    case Element::kBFloat16:
      return load_scale_of<kCount>(static_cast<const BFloat16*>(scale) + at, apart, count, v);
    case Element::kFloat32:
      return load_scale_of<kCount>(static_cast<const float*>(scale) + at, apart, count, v);
    case Element::kFloat64:
      return load_scale_of<kCount>(static_cast<const double*>(scale) + at, apart, count, v);
  }
}

// kCount elements from `at` on, `apart` from each other, of which `count` exist, or one for all of
// them if the step is 0. Null means ones.
template <int kCount, class S>
RMSNORM_DEVICE void load_scale(const void* scale, Element type, int64_t at, int step, int apart,
                               int count, S* v) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) v[i] = 1;
  if (!scale) return;
  if (step != 0) return load_scale_of<kCount>(scale, type, at, apart, count, v);
  load_scale_of<1>(scale, type, at, 1, 1, v);
#pragma unroll
  for (int i = 1; i < kCount; ++i) v[i] = v[0];
}

// What a lane has of a scale of type E: a vector, or spread elements.
template <Access kAccess, class E, class T, class S>
RMSNORM_DEVICE void load_held_scale_of(const E* from, int left, S* v) {
  if constexpr (kAccess == Access::kSpread) {
    each_spread<kVector<T>>(left, [&](int i, int at) { v[i] = S(number_of(from[at])); });
  } else {
    // Where only X begins elsewhere, all lanes find the scale at 16 bytes.
    const bool shifted = kAccess == Access::kShifted && bytes_past_16(from) != 0;
#pragma unroll
    for (int i = 0; i < kVector<T>; i += kVector<E>) {
      const bool exists = kAccess == Access::kAligned || left > i;
      unpack<E>(shifted  ? load_anywhere(from + i, left - i)
                : exists ? load16(from + i)
                         : Words{},
                v + i);
    }
  }
}

// The scale is of type T or S.
template <Access kAccess, class T, class S>
RMSNORM_DEVICE void load_held_scale(const void* scale, bool is_stash, int64_t at, int left, S* v) {
  if (!scale) {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) v[i] = 1;
  } else if (sizeof(T) == sizeof(S) || is_stash) {
    load_held_scale_of<kAccess, S, T>(static_cast<const S*>(scale) + at, left, v);
  } else {
    load_held_scale_of<kAccess, T, T>(static_cast<const T*>(scale) + at, left, v);
  }
}

}  // namespace rmsnorm::cuda
