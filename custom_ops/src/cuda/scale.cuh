// The scale, of any type, in the stash type.
#pragma once

#include "vector.cuh"

namespace rmsnorm::cuda {

template <class S>
RMSNORM_DEVICE S scale_at(const void* scale, Element type, int64_t at) {
  switch (type) {
    case Element::kFloat16:
      return S(to_float(static_cast<const Half*>(scale)[at]));
    case Element::kBFloat16:
      return S(to_float(static_cast<const BFloat16*>(scale)[at]));
    case Element::kFloat32:
      return S(static_cast<const float*>(scale)[at]);
    default:
      return S(static_cast<const double*>(scale)[at]);
  }
}

// kCount elements from `at` on, of which `count` exist, or one for all of them. Null means ones.
template <int kCount, class S>
RMSNORM_DEVICE void load_scale(const void* scale, Element type, int64_t at, int step, int count,
                               S* v) {
  const S same = scale && step == 0 ? scale_at<S>(scale, type, at) : S(1);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    v[i] = scale && step != 0 && i < count ? scale_at<S>(scale, type, at + i) : same;
  }
}

template <class E, class T, class S>
RMSNORM_DEVICE void load_aligned_scale_of(const void* scale, int64_t at, S* v) {
  const E* const from = static_cast<const E*>(scale) + at;
#pragma unroll
  for (int i = 0; i < kVector<T>; i += kVector<E>) unpack<E>(load16_constant(from + i), v + i);
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
