// The two passes of a block over its part of a row, some vectors of each thread at a time.
#pragma once

#include "stage.cuh"
#include "sum.cuh"

namespace rmsnorm::cuda {

template <class T, class S, Form F>
class Pass {
 public:
  // `blocks` share the row, of which this is block `part`.
  RMSNORM_DEVICE Pass(const Task<S>& task, int64_t first_row, int part, int blocks)
      : task_(task), in_row_(thread() & (task.threads - 1)), stride_(task.threads * blocks) {
    row_ = first_row + thread() / task.threads;
    place_ = place_of(task.kept, row_ < task.rows ? row_ : 0);
    first_ = row_ < task.rows ? part * task.threads + in_row_ : task.row_vectors;
  }

  // Vectors of this thread are numbered from 0; all of them are less than this.
  RMSNORM_DEVICE int64_t most() const { return (task_.row_vectors + stride_ - 1) / stride_; }

  // All loads before the first use.
  template <int kCount>
  RMSNORM_DEVICE void take(int64_t from, Held<T, S, F>* held, SquareSum<T, S>& sum) const {
    Words x[kCount], second[kCount];
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const Spot spot = spot_at(from + j);
      x[j] = load(task_.x, spot);
      if constexpr (F != Form::kPlain) second[j] = load(task_.second, spot);
    }
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      S v[kVector<T>];
      held[j].take(x[j], second[j], spot_at(from + j).left, v);
      sum.add(j, v);
    }
  }

  template <int kCount>
  RMSNORM_DEVICE void prefetch_scales() const {
#pragma unroll
    for (int j = 0; j < kCount; ++j) prefetch_scale(task_, spot_at(j));
  }

  // Vectors [begin, end) of those held.
  template <int kCount>
  RMSNORM_DEVICE void give(int64_t from, const Held<T, S, F>* held, Pair<S> reciprocal, int begin,
                           int end) const {
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      if (j < begin || j >= end) continue;
      const Spot spot = spot_at(from + j);
      if constexpr (F == Form::kSkip) {
        if (task_.sum) store(task_.sum, held[j].value(), spot);
      }
      store(task_.y, held[j].result(task_, spot, &reciprocal, 0), spot);
    }
  }

  RMSNORM_DEVICE void give_inverse(Pair<S> reciprocal) const {
    if (task_.inverse && first_ == 0) task_.inverse[row_] = float(reciprocal.high);
  }

 private:
  RMSNORM_DEVICE Spot spot_at(int64_t number) const {
    return spot_of<kVector<T>>(task_, place_, first_ + number * stride_);
  }

  RMSNORM_DEVICE Words load(const void* tensor, const Spot& spot) const {
    if (spot.left <= 0) return Words{};
    const T* const from = static_cast<const T*>(tensor) + spot.x;
    return task_.aligned ? load16(from) : load_anywhere<false>(from, spot.left);
  }

  RMSNORM_DEVICE void store(void* tensor, const Words& v, const Spot& spot) const {
    T* const to = static_cast<T*>(tensor) + spot.x;
    if (task_.aligned) return store_aligned(to, v, spot.left, task_.streaming);
    const int width = task_.threads < kWarp ? task_.threads : kWarp;
    const int lane = in_row_ & (width - 1);
    store_anywhere(to, v, {spot.left, lane > 0 && !spot.first, lane + 1 < width}, width,
                   task_.streaming);
  }

  const Task<S>& task_;
  const int in_row_;
  const int64_t stride_;
  int64_t row_;
  int64_t first_;
  Place place_;
};

}  // namespace rmsnorm::cuda
