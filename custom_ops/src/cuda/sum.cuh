// The square sum of a row: in an order that its width and type fix.
#pragma once

#include "element.cuh"
#include "pair.cuh"
#include "plan.h"

namespace rmsnorm::cuda {

// Vectors that are added in S before the lanes move into the total: in a row of one value, all
// roundings of a lane go the same way (cpu/sum.h).
constexpr int kVectorsPerBlock = 4;

template <class T, class S>
class SquareSum {
 public:
  using Number = Precise<T, S>;

  // `index` counts vectors since the last settle().
  RMSNORM_DEVICE void add(int index, const S* v) {
    if (index > 0 && index % kVectorsPerBlock == 0) settle();
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) {
      S& lane = lane_[i % kLanes];
      lane = fused(v[i], v[i], lane);
    }
  }

  RMSNORM_DEVICE void settle() {
#pragma unroll
    for (int i = 0; i < kLanes; ++i) {
      total_ = total(total_, precise<Number>(lane_[i]));
      lane_[i] = 0;
    }
  }

  RMSNORM_DEVICE Number value() {
    settle();
    return total_;
  }

 private:
  // Results of 16 bits do not see what eight roundings to a lane cost, and registers are scarce.
  static constexpr int kLanes = kVector<T> < 4 ? kVector<T> : 4;

  Number total_ = {};
  S lane_[kLanes] = {};
};

// Over groups of so many lanes, a power of two.
template <class Number>
RMSNORM_DEVICE Number across_lanes(Number sum, int lanes) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) {
    if (mask < lanes) sum = total(sum, shuffle_xor(sum, mask));
  }
  return sum;
}

static_assert(kSumBytes == (kWarp + 1) * sizeof(Pair<double>), "what across_threads() uses");

// The sum over `threads` threads (a power of two, those of a block if more than a warp) of each of
// `blocks` blocks of a cluster, a power of two; every one of them has it. After it, a block of a
// cluster waits for the others before it ends.
template <class Number>
RMSNORM_DEVICE Number across_threads(Number sum, int threads, int blocks) {
  sum = across_lanes(sum, threads);
  if (threads <= kWarp) return sum;
  Number* const partial = reinterpret_cast<Number*>(shared());
  const int lane = thread() % kWarp, warps = threads / kWarp;
  if (lane == 0) partial[thread() / kWarp] = sum;
  sync();
  sum = across_lanes(partial[lane & (warps - 1)], warps);
  if (blocks == 1) return sum;
  Number* const own = partial + kWarp;
  if (thread() == 0) *own = sum;
  cluster_sync();
  return across_lanes(*remote(own, lane & (blocks - 1)), blocks);
}

}  // namespace rmsnorm::cuda
