// Any rows: of any width, at any address, in several runs, with any scale. Pass 2 reads them again,
// from L1 where a row is not too wide and from L2 else. The sums are those of rows.cuh: the same
// threads add the same vectors.
#pragma once

#include "enqueue.cuh"
#include "scale.cuh"
#include "share.cuh"
#include "vector.cuh"

namespace rmsnorm::cuda {

// A vector of the row, or spread elements of it.
template <int kVector, class S>
RMSNORM_DEVICE Spot spot_for(const Task<S>& task, const Share& share, int64_t index) {
  if (!task.spread) return spot_of<kVector>(task, share.place, index);
  const int lane = share.lane % kWarp;
  const int64_t at = (index - lane) * kVector + lane, all = share.exists ? task.inner - at : 0;
  return {share.place.x + at, share.place.scale + at * task.scale_step,
          at_most_2_to_20(spread_over_lanes(all)), false};
}

template <class T>
RMSNORM_DEVICE Words load_at(bool spread, const void* tensor, int64_t at, int left) {
  const T* const from = static_cast<const T*>(tensor) + at;
  if (spread) return load_spread(from, left);
  return load_anywhere(from, left);
}

template <class T, class S>
RMSNORM_DEVICE void store_at(const Task<S>& task, const Share& share, void* tensor, const Words& v,
                             const Spot& spot) {
  T* const to = static_cast<T*>(tensor) + spot.x;
  if (task.spread) return store_spread(to, v, spot.left);
  store_anywhere(to, v, neighbours_of(share.lane, task.threads, spot.left, spot.first),
                 task.streaming);
}

template <class T, class S, Form F>
RMSNORM_KERNEL(512)
reread_rows(RMSNORM_ARGUMENT Task<S> task) {
  allow_kernels_after();
  const Share share = share_of(task);
  const auto spot_at = [&](int64_t j) {
    return spot_for<kVector<T>>(task, share, share.first + j * share.stride);
  };
  const auto load = [&](const void* tensor, const Spot& spot) {
    return load_at<T>(task.spread, tensor, spot.x, spot.left);
  };
  // All lanes of a warp take as many steps: those of its first lane.
  const int64_t left = task.row_vectors - (share.exists ? share.first - share.lane % kWarp : 0);
  const int64_t steps = left > 0 ? quotient(left + share.stride - 1, share.stride) : 0;
  wait_for_kernels_before();
  Held<T, S, F> held;
  SquareSum<T, S> sum;
#pragma unroll 1
  for (int64_t j = 0; j < steps; ++j) {
    const Spot spot = spot_at(j);
    const Words x = load(task.x, spot);
    Words second{};
    if constexpr (F == Form::kSkip || F == Form::kPreGated) second = load(task.second, spot);
    S v[kVector<T>];
    held.take(x, second, v);
    sum.add(0, v);
    if (j % kVectorsPerBlock == kVectorsPerBlock - 1) sum.settle();
  }
  const Precise<T, S> reciprocal = reciprocal_for(task, share, sum.value());
#pragma unroll 1
  for (int64_t j = 0; j < steps; ++j) {
    const Spot spot = spot_at(j);
    const Words x = load(task.x, spot);
    Words second{};
    if constexpr (F != Form::kPlain) second = load(task.second, spot);
    S v[kVector<T>], scale[kVector<T>];
    if (task.scale_like_x) {
      unpack<T>(load_at<T>(task.spread, task.scale, spot.scale, spot.left), scale);
    } else {
      load_scale<kVector<T>>(task.scale, task.scale_type, spot.scale, task.scale_step,
                             task.spread ? kWarp : 1, spot.left, scale);
    }
    held.take(x, second, v);
    if constexpr (F == Form::kSkip) {
      if (task.sum) store_at<T>(task, share, task.sum, held.value(), spot);
    }
    store_at<T>(task, share, task.y, held.result(task.rounding, scale, &reciprocal, 0), spot);
  }
  if (task.is_cluster) cluster_sync();
}

}  // namespace rmsnorm::cuda
