// Rows of whole aligned vectors, read once: all of a row is held in the registers of a group of
// lanes, of a block or of the blocks of a cluster.
#pragma once

#include "enqueue.cuh"
#include "scale.cuh"
#include "share.cuh"

namespace rmsnorm::cuda {

// 512 threads leave each 128 registers.
template <class T, class S, Form F, int kCount>
RMSNORM_KERNEL(512)
hold_rows(RMSNORM_ARGUMENT Task<S> task) {
  allow_kernels_after();
  const Share share = share_of(task);
  const int first = int(share.first), stride = share.stride, vectors = int(task.row_vectors);
  const auto at = [&](const void* tensor, int j) {
    const T* const row = static_cast<const T*>(tensor) + share.place.x;
    return reinterpret_cast<const Words*>(row) + (first + j * stride);
  };
  const auto scale_at = [&](int j) {
    return share.place.scale + int64_t(first + j * stride) * kVector<T>;
  };
  wait_for_kernels_before();
  Words x[kCount], second[kCount];
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const bool exists = first + j * stride < vectors;
    x[j] = exists ? load16(at(task.x, j)) : Words{};
    if constexpr (F != Form::kPlain) second[j] = exists ? load16(at(task.second, j)) : Words{};
  }
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    if (task.prefetches_scale && first + j * stride < vectors) {
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
    if (first + j * stride >= vectors || j < begin || j >= begin + part) continue;
    S scale[kVector<T>];
    load_aligned_scale<T>(task.scale, task.scale_bytes == sizeof(S), scale_at(j), scale);
    if constexpr (F == Form::kSkip) {
      if (task.sum) store16(const_cast<Words*>(at(task.sum, j)), held[j].value(), task.streaming);
    }
    store16(const_cast<Words*>(at(task.y, j)), held[j].result(task.rounding, scale, &reciprocal, 0),
            task.streaming);
  }
  if (task.is_cluster) cluster_sync();
}

}  // namespace rmsnorm::cuda
