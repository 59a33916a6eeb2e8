// The square sum of a row: in an order that its width and type fix.
#pragma once

#include "element.cuh"
#include "pair.cuh"
#include "plan.h"

namespace rmsnorm::cuda {

// Vectors that are added in S before the lanes move into a pair: in a row of one value, all
// roundings of a lane go the same way (cpu/sum.h).
constexpr int kVectorsPerBlock = 4;

template <class T, class S>
class SquareSum {
 public:
  // `index` counts vectors since the last settle().
  RMSNORM_DEVICE void add(int index, const S* v) {
    if (index > 0 && index % kVectorsPerBlock == 0) settle();
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) lane_[i] = fused(v[i], v[i], lane_[i]);
  }

  RMSNORM_DEVICE void settle() {
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) {
      total_ = total(total_, Pair<S>{lane_[i], 0});
      lane_[i] = 0;
    }
  }

  RMSNORM_DEVICE Pair<S> value() {
    settle();
    return total_;
  }

 private:
  Pair<S> total_ = {0, 0};
  S lane_[kVector<T>] = {};
};

template <class S>
RMSNORM_DEVICE Pair<S> across_lanes(Pair<S> sum, int lanes) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
    sum = total(sum, Pair<S>{shuffle_xor(sum.high, mask), shuffle_xor(sum.low, mask)});
  }
  return sum;
}

static_assert(kSumBytes == (kWarp + 1) * sizeof(Pair<double>), "what across_threads() uses");

// The sum over `threads` threads (a power of two, those of a block if more than a warp) of each of
// `blocks` blocks of a cluster; every one of them has it. After it, a block of a cluster waits for
// the others before it ends.
template <class S>
RMSNORM_DEVICE Pair<S> across_threads(Pair<S> sum, int threads, int blocks) {
  sum = across_lanes(sum, threads < kWarp ? threads : kWarp);
  if (threads <= kWarp) return sum;
  Pair<S>* const partial = reinterpret_cast<Pair<S>*>(shared());
  const int lane = thread() % kWarp, warps = threads / kWarp;
  if (lane == 0) partial[thread() / kWarp] = sum;
  sync();
  sum = across_lanes(partial[lane % warps], warps);
  if (blocks == 1) return sum;
  Pair<S>* const own = partial + kWarp;
  if (thread() == 0) *own = sum;
  cluster_sync();
  return across_lanes(*remote(own, lane % blocks), blocks);
}

}  // namespace rmsnorm::cuda
