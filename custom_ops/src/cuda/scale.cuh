// The scale, of any type, in the stash type.
#pragma once

#include "task.cuh"
#include "vector.cuh"

namespace rmsnorm::cuda {

// kCount elements from `at` on, of which `count` exist.
template <class E, int kCount, class S>
RMSNORM_DEVICE void load_scale_of(const void* scale, int64_t at, int count, S* v) {
  constexpr int kPiece = kVector<E> < kCount ? kVector<E> : kCount;
#pragma unroll
  for (int i = 0; i < kCount; i += kPiece) {
    const int left = count - i;
    if (left <= 0) continue;
    S piece[kVector<E>];
    unpack<E>(
        load_anywhere<true>(static_cast<const E*>(scale) + at + i, left < kPiece ? left : kPiece),
        piece);
#pragma unroll
    for (int k = 0; k < kPiece; ++k) v[i + k] = piece[k];
  }
}

// One element at a time: for what no model has.
template <int kCount, class S>
RMSNORM_DEVICE void load_doubles(const double* scale, int count, int step, S* v) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if (i < count) v[i] = S(scale[i * step]);
  }
}

template <class S>
RMSNORM_DEVICE S scale_at(const void* scale, Element type, int64_t at) {
  S v;
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

template <int kCount, class S>
RMSNORM_DEVICE void load_scale(const Task<S>& task, const Spot& spot, S* v) {
  if (!task.scale || task.scale_step == 0) {
    const S same = task.scale ? scale_at<S>(task.scale, task.scale_type, spot.scale) : S(1);
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = same;
    return;
  }
  switch (task.scale_type) {
    case Element::kFloat16:
      return load_scale_of<Half, kCount>(task.scale, spot.scale, spot.left, v);
    case Element::kBFloat16:
      return load_scale_of<BFloat16, kCount>(task.scale, spot.scale, spot.left, v);
    case Element::kFloat32:
      return load_scale_of<float, kCount>(task.scale, spot.scale, spot.left, v);
    case Element::kFloat64:
      return load_doubles<kCount>(static_cast<const double*>(task.scale) + spot.scale, spot.left, 1,
                                  v);
  }
}

// One request of 64 bytes or less, for the vectors of this thread.
template <class S>
RMSNORM_DEVICE void prefetch_scale(const Task<S>& task, const Spot& spot) {
  if (!task.scale || spot.left <= 0) return;
  prefetch(static_cast<const char*>(task.scale) + spot.scale * size_of(task.scale_type));
}

}  // namespace rmsnorm::cuda
