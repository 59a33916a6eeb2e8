// Rows read once: all of a row is held in the registers of a group of lanes, of a block or of the
// blocks of a cluster. They are whole aligned vectors, or spread over the lanes of warps.
#pragma once

#include "enqueue.cuh"
#include "scale.cuh"
#include "share.cuh"

namespace rmsnorm::cuda {

template <bool kSpread, class T>
RMSNORM_DEVICE Words load_held(const T* from, int left) {
  if constexpr (kSpread) return load_spread(from, left);
  return left > 0 ? load16(from) : Words{};
}

template <bool kSpread, class T>
RMSNORM_DEVICE void store_held(T* to, const Words& v, int left, bool streaming) {
  if constexpr (kSpread) return store_spread(to, v, left);
  store16(to, v, streaming);
}

// 512 threads leave each 128 registers.
template <class T, class S, Form F, int kCount, bool kSpread>
RMSNORM_KERNEL(512)
hold_rows(RMSNORM_ARGUMENT Task<S> task) {
  allow_kernels_after();
  const Share share = share_of(task);
  const int first = int(share.first), stride = share.stride, vectors = int(task.row_vectors);
  const int lane = kSpread ? share.lane % kWarp : 0;
  const auto element = [&](int j) {
    return int64_t(first + j * stride - lane) * kVector<T> + lane;
  };
  // Vectors from there on; of spread ones, elements of the lane.
  const auto left = [&](int j) {
    if constexpr (!kSpread) return vectors - (first + j * stride);
    return share.exists ? spread_over_lanes(int(task.inner) - int(element(j))) : 0;
  };
  const auto at = [&](const void* tensor, int j) {
    return static_cast<const T*>(tensor) + share.place.x + element(j);
  };
  const auto scale_at = [&](int j) { return share.place.scale + element(j); };
  wait_for_kernels_before();
  Words x[kCount], second[kCount];
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    x[j] = load_held<kSpread>(at(task.x, j), left(j));
    if constexpr (F != Form::kPlain) second[j] = load_held<kSpread>(at(task.second, j), left(j));
  }
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    if (task.prefetches_scale && left(j) > 0) {
      prefetch(static_cast<const char*>(task.scale) + scale_at(j) * task.scale_bytes);
    }
  }
  Held<T, S, F> held[kCount];
  SquareSum<T, S> sum;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    S v[kVector<T>];
    held[j].take(x[j], second[j], v);
    sum.add(j, v);
  }
  const Precise<T, S> reciprocal = reciprocal_for(task, share, sum.value());
  // Of blocks that all hold the row, each writes some.
  const int part = task.is_cluster ? kCount : kCount >> task.blocks_log2;
  const int begin = task.is_cluster ? 0 : share.number * part;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    if (left(j) <= 0 || j < begin || j >= begin + part) continue;
    S scale[kVector<T>];
    load_held_scale<kSpread, T>(task.scale, task.scale_bytes == sizeof(S), scale_at(j), left(j),
                                scale);
    const auto store = [&](void* tensor, const Words& v) {
      store_held<kSpread>(const_cast<T*>(at(tensor, j)), v, left(j), task.streaming);
    };
    if constexpr (F == Form::kSkip) {
      if (task.sum) store(task.sum, held[j].value());
    }
    store(task.y, held[j].result(task.rounding, scale, &reciprocal, 0));
  }
  if (task.is_cluster) cluster_sync();
}

}  // namespace rmsnorm::cuda
