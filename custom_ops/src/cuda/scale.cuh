// The scale, of any type, in the stash type.
#pragma once

#include "vector.cuh"

namespace rmsnorm::cuda {

RMSNORM_DEVICE float number_of(Half v) { return to_float(v); }
RMSNORM_DEVICE float number_of(BFloat16 v) { return to_float(v); }
RMSNORM_DEVICE float number_of(float v) { return v; }
RMSNORM_DEVICE double number_of(double v) { return v; }

template <int kCount, class E, class S>
RMSNORM_DEVICE void load_scale_of(const E* scale, int count, S* v) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i < count) v[i] = S(number_of(scale[i]));
  }
}

template <int kCount, class S>
RMSNORM_DEVICE void load_scale_of(const void* scale, Element type, int64_t at, int count, S* v) {
  switch (type) {
    case Element::kFloat16:
      return load_scale_of<kCount>(static_cast<const Half*>(scale) + at, count, v);
    case Element::kBFloat16:
      return load_scale_of<kCount>(static_cast<const BFloat16*>(scale) + at, count, v);
    case Element::kFloat32:
      return load_scale_of<kCount>(static_cast<const float*>(scale) + at, count, v);
    case Element::kFloat64:
      return load_scale_of<kCount>(static_cast<const double*>(scale) + at, count, v);
  }
}

// kCount elements from `at` on, of which `count` exist, or one for all of them. Null means ones.
template <int kCount, class S>
RMSNORM_DEVICE void load_scale(const void* scale, Element type, int64_t at, int step, int count,
                               S* v) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) v[i] = 1;
  if (!scale) return;
  if (step != 0) return load_scale_of<kCount>(scale, type, at, count, v);
  load_scale_of<1>(scale, type, at, 1, v);
#pragma unroll
  for (int i = 1; i < kCount; ++i) v[i] = v[0];
}

template <class E, class T, class S>
RMSNORM_DEVICE void load_aligned_scale_of(const void* scale, int64_t at, S* v) {
  const E* const from = static_cast<const E*>(scale) + at;
#pragma unroll
  for (int i = 0; i < kVector<T>; i += kVector<E>) unpack<E>(load16(from + i), v + i);
}

// A whole vector of a scale that is of type T or S and begins at 16 bytes.
template <class T, class S>
RMSNORM_DEVICE void load_aligned_scale(const void* scale, bool is_stash, int64_t at, S* v) {
  if (!scale) {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) v[i] = 1;
  } else if (sizeof(T) == sizeof(S) || is_stash) {
    load_aligned_scale_of<S, T>(scale, at, v);
  } else {
    load_aligned_scale_of<T, T>(scale, at, v);
  }
}

}  // namespace rmsnorm::cuda
