// Rows read once: all of a row is held in the registers of a group of lanes, of a block or of the
// blocks of a cluster: vectors that begin at 16 bytes or elsewhere, or elements spread over lanes.
#pragma once

#include "enqueue.cuh"
#include "scale.cuh"
#include "share.cuh"

namespace rmsnorm::cuda {

// What is loaded of a vector before anything waits for it, and the vector.
template <Access kAccess, class T>
RMSNORM_DEVICE Words fetch(const T* from, int left) {
  if constexpr (kAccess == Access::kSpread) return load_spread(from, left);
  if constexpr (kAccess == Access::kShifted) return load_piece(from, left);
  return left > 0 ? load16(from) : Words{};
}
template <Access kAccess, class T>
RMSNORM_DEVICE Words fetched(const Words& v, const T* from, int left) {
  if constexpr (kAccess == Access::kShifted) return vector_from(v, from, left);
  return v;
}

// 512 threads leave each 128 registers.
template <class T, class S, Form F, int kCount, Access kAccess>
RMSNORM_KERNEL(512)
hold_rows(RMSNORM_ARGUMENT Task<S> task) {
  allow_kernels_after();
  constexpr bool kSpread = kAccess == Access::kSpread, kShifted = kAccess == Access::kShifted;
  const Share share = share_of(task);
  const int first = int(share.first), stride = share.stride, vectors = int(task.row_vectors);
  const int lane = kSpread ? share.lane % kWarp : 0;
  const auto element = [&](int j) {
    return int64_t(first + j * stride - lane) * kVector<T> + lane;
  };
  // Vectors from there on; elements, where they do not end with a vector.
  const auto left = [&](int j) {
    if constexpr (kAccess == Access::kAligned) return vectors - (first + j * stride);
    const int elements = int(task.inner) - int(element(j));
    if constexpr (kShifted) return elements;
    return share.exists ? spread_over_lanes(elements) : 0;
  };
  const auto at = [&](const void* tensor, int j) {
    return static_cast<const T*>(tensor) + share.place.x + element(j);
  };
  const auto scale_at = [&](int j) { return share.place.scale + element(j); };
  wait_for_kernels_before();
  Words x[kCount], second[kCount];
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    x[j] = fetch<kAccess>(at(task.x, j), left(j));
    if constexpr (F != Form::kPlain) second[j] = fetch<kAccess>(at(task.second, j), left(j));
  }
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    if (kAccess == Access::kAligned && task.prefetches_scale && left(j) > 0) {
      prefetch(static_cast<const char*>(task.scale) + scale_at(j) * task.scale_bytes);
    }
  }
  Held<T, S, F> held[kCount];
  SquareSum<T, S> sum;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    S v[kVector<T>];
    Words other{};
    if constexpr (F != Form::kPlain)
      other = fetched<kAccess>(second[j], at(task.second, j), left(j));
    held[j].take(fetched<kAccess>(x[j], at(task.x, j), left(j)), other, v);
    sum.add(j, v);
  }
  const Precise<T, S> reciprocal = reciprocal_for(task, share, sum.value());
  // Of blocks that all hold the row, each writes some.
  const int part = task.is_cluster ? kCount : kCount >> task.blocks_log2;
  const int begin = task.is_cluster ? 0 : share.number * part;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    // Lanes that write into one piece of memory need each other.
    if ((left(j) <= 0 && !kShifted) || j < begin || j >= begin + part) continue;
    S scale[kVector<T>];
    load_held_scale<kAccess, T>(task.scale, task.scale_bytes == sizeof(S), scale_at(j), left(j),
                                scale);
    const auto store = [&](void* tensor, const Words& v) {
      T* const to = const_cast<T*>(at(tensor, j));
      if constexpr (kSpread) {
        store_spread(to, v, left(j));
      } else if constexpr (kShifted) {
        store_anywhere(to, v, neighbours_of(share.lane, task.threads, left(j), false),
                       task.streaming);
      } else {
        store16(to, v, task.streaming);
      }
    };
    if constexpr (F == Form::kSkip) {
      if (task.sum) store(task.sum, held[j].value());
    }
    store(task.y, held[j].result(task.rounding, scale, &reciprocal, 0));
  }
  if (task.is_cluster) cluster_sync();
}

}  // namespace rmsnorm::cuda
