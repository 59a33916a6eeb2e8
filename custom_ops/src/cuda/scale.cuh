// The scale, of any type, in the stash type.
#pragma once

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

// What a lane has of a scale of type E: a whole vector at 16 bytes, or spread elements.
template <bool kSpread, class E, class T, class S>
RMSNORM_DEVICE void load_held_scale_of(const E* from, int left, S* v) {
  if constexpr (kSpread) {
    each_spread<kVector<T>>(left, [&](int i, int at) { v[i] = S(number_of(from[at])); });
  } else {
#pragma unroll
    for (int i = 0; i < kVector<T>; i += kVector<E>) unpack<E>(load16(from + i), v + i);
  }
}

// The scale is of type T or S.
template <bool kSpread, class T, class S>
RMSNORM_DEVICE void load_held_scale(const void* scale, bool is_stash, int64_t at, int left, S* v) {
  if (!scale) {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) v[i] = 1;
  } else if (sizeof(T) == sizeof(S) || is_stash) {
    load_held_scale_of<kSpread, S, T>(static_cast<const S*>(scale) + at, left, v);
  } else {
    load_held_scale_of<kSpread, T, T>(static_cast<const T*>(scale) + at, left, v);
  }
}

}  // namespace rmsnorm::cuda
