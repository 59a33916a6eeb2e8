// Norms whose innermost run is kept: many of them side by side.
//
// An access is 16 bytes, or one element where runs or addresses do not allow 16. A tile is some
// norms side by side, 128 bytes or 32 elements of each row, and belongs to `warps` warps. Rows are
// dealt to parts, four of each warp: eight lanes read 128 bytes of a row in each of four parts, or
// 32 lanes read elements of four parts one after the other. A part is added in the order of its
// rows, the four of a warp in pairs, and warps one after the other: the bits depend on the number
// of rows alone.
#pragma once

#include "enqueue.cuh"
#include "scale.cuh"
#include "sum.cuh"
#include "task.cuh"

namespace rmsnorm::cuda {

constexpr int kParts = 4;  // of one warp
// Rows of a part that are in registers at once: 32 registers.
constexpr int kDeep = 8;
// Warps of a tile: more would leave too few registers to each.
constexpr int kMostWarps = 16;

// Most walks have one dimension; the others are called for, because so much code stands between
// loads that should go out together.
RMSNORM_CALLED inline Place place_in(const Walk& walk, int64_t step) {
  return place_of(walk, step);
}

template <class S>
struct Sides {
  Task<S> task;
  int warps;         // of a tile
  int rounds;        // of kDeep rows of every part
  int64_t accesses;  // side by side, of all norms
  int64_t tiles;
  int64_t step;  // tiles of all blocks together
};

template <class T, class S, Form F, bool kIsWide>
class Tile {
 public:
  static constexpr int kElements = kIsWide ? kVector<T> : 1;        // of an access
  static constexpr int kAcross = kIsWide ? kWarp / kParts : kWarp;  // lanes side by side
  static constexpr int kColumns = kAcross * kElements;

  RMSNORM_DEVICE Tile(const Sides<S>& sides, int64_t tile)
      : sides_(sides), norm_((tile * kAcross + thread() % kAcross) * kElements) {
    const Task<S>& task = sides.task;
    exists_ = norm_ < sides.accesses * kElements;
    const int64_t kept = exists_ ? quotient(norm_, task.inner) : 0;
    const int64_t column = exists_ ? norm_ - kept * task.inner : 0;
    at_ = place_of(task.kept, kept);
    at_.x += column;
    at_.scale += column * task.scale_step;
    part_ = thread() / kWarp % sides.warps * kParts + thread() % kWarp / kAcross;
  }

  // Pass 1: the sums of the warp's parts, in the lanes that are first of them at least. The rows
  // that were read last stay in registers.
  RMSNORM_DEVICE void sum(Pair<S>* sums) {
    Pair<S> last[kElements] = {}, two[kElements] = {};
#pragma unroll 1
    for (int own = 0; own < kOwnParts; ++own) {
      Pair<S> part[kElements] = {};
#pragma unroll 1
      for (int round = 0; round < sides_.rounds; ++round) take(own, round, part);
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
        sums[e] = own % 2 == 0 ? part[e] : total(last[e], part[e]);
        last[e] = sums[e];
        if (own == 1) two[e] = sums[e];
        if (own == 3) sums[e] = total(two[e], sums[e]);
      }
    }
    if constexpr (kIsWide) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) {
#pragma unroll
        for (int mask = kAcross; mask < kWarp; mask *= 2) {
          const Pair<S> other = {shuffle_xor(sums[e].high, mask), shuffle_xor(sums[e].low, mask)};
          sums[e] = total(sums[e], other);
        }
      }
    }
  }

  // Pass 2, backwards: the last rows are in registers, and those before them are the likelier in
  // caches the later they were read.
  RMSNORM_DEVICE void finish(const Pair<S>* reciprocal) {
    const Task<S>& task = sides_.task;
    if (task.inverse && part_ == 0 && exists_) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) task.inverse[norm_ + e] = float(reciprocal[e].high);
    }
#pragma unroll 1
    for (int step = kOwnParts * sides_.rounds - 1; step >= 0; --step) {
      const int own = step / sides_.rounds, round = step - own * sides_.rounds;
      if (step + 1 < kOwnParts * sides_.rounds) {
        Pair<S> unused[kElements] = {};
        take(own, round, unused);
      }
#pragma unroll
      for (int i = 0; i < kDeep; ++i) {
        if (!has(own, round, i)) continue;
        const Spot spot = spot_of(own, round, i);
        if (F == Form::kSkip && task.sum) store(task.sum, held_[i].value(), spot);
        S scale[kVector<T>];
        load_scale<kVector<T>>(task.scale, task.scale_type, spot.scale, task.scale_step, kElements,
                               scale);
        const int step = kIsWide ? 1 : 0;
        store(task.y, held_[i].result(task.rounding, scale, reciprocal, step), spot);
      }
    }
  }

  // Of the first norm of this lane in the tile.
  RMSNORM_DEVICE int column() const { return thread() % kAcross * kElements; }
  RMSNORM_DEVICE bool is_first() const { return thread() % kWarp < kAcross; }

 private:
  static constexpr int kOwnParts = kIsWide ? 1 : kParts;  // of a lane
  // Rows that are added in S before the sum moves into a pair: two of float32 keep its error under
  // one rounding where all rows have one value.
  static constexpr int kChain = 8 / int(sizeof(T));

  RMSNORM_DEVICE int64_t row(int own, int round, int i) const {
    return (int64_t(round) * kDeep + i) * (kParts * sides_.warps) + part_ + own;
  }
  RMSNORM_DEVICE bool has(int own, int round, int i) const {
    return exists_ && row(own, round, i) < sides_.task.reduced.count;
  }
  RMSNORM_DEVICE Spot spot_of(int own, int round, int i) const {
    const Walk& walk = sides_.task.reduced;
    const int64_t step = row(own, round, i);
    const Place down =
        walk.rank == 1 ? Place{step * walk.x[0], step * walk.scale[0]} : place_in(walk, step);
    return {at_.x + down.x, at_.scale + down.scale, kElements, false};
  }

  static RMSNORM_DEVICE Words load(const void* tensor, const Spot& spot) {
    const T* const from = static_cast<const T*>(tensor) + spot.x;
    if constexpr (kIsWide) {
      return load16(from);
    } else {
      return load_element(from);
    }
  }
  RMSNORM_DEVICE void store(void* tensor, const Words& v, const Spot& spot) const {
    T* const to = static_cast<T*>(tensor) + spot.x;
    if constexpr (kIsWide) {
      store16(to, v, sides_.task.streaming);
    } else {
      store_element(to, v, 0);
    }
  }

  // All loads before the first use. Missing rows are zeros, which change no sum.
  RMSNORM_DEVICE void take(int own, int round, Pair<S>* part) {
    Words x[kDeep] = {}, second[kDeep] = {};
#pragma unroll
    for (int i = 0; i < kDeep; ++i) {
      if (!has(own, round, i)) continue;
      const Spot spot = spot_of(own, round, i);
      x[i] = load(sides_.task.x, spot);
      if (F != Form::kPlain) second[i] = load(sides_.task.second, spot);
    }
#pragma unroll
    for (int first = 0; first < kDeep; first += kChain) {
      S chain[kElements] = {};
#pragma unroll
      for (int i = first; i < first + kChain; ++i) {
        S v[kVector<T>];
        held_[i].take(x[i], second[i], v);
#pragma unroll
        for (int e = 0; e < kElements; ++e) chain[e] = fused(v[e], v[e], chain[e]);
      }
#pragma unroll
      for (int e = 0; e < kElements; ++e) part[e] = total(part[e], Pair<S>{chain[e], 0});
    }
  }

  const Sides<S>& sides_;
  const int64_t norm_;
  Place at_;
  int part_;
  bool exists_;
  Held<T, S, F> held_[kDeep];
};

template <class T, class S, Form F, bool kIsWide>
RMSNORM_KERNEL(kMostWarps* kWarp)
side_by_side(RMSNORM_ARGUMENT Sides<S> sides) {
  using Own = Tile<T, S, F, kIsWide>;
  allow_kernels_after();
  const int each = sides.warps * kWarp, together = threads() / each;
  const int number = thread() / each, index = thread() - number * each;
  Pair<S>* const sums = reinterpret_cast<Pair<S>*>(shared()) + number * sides.warps * Own::kColumns;
  wait_for_kernels_before();
  for (int64_t first = block() * together; first < sides.tiles; first += sides.step) {
    Own tile(sides, first + number);
    Pair<S> some[Own::kElements];
    tile.sum(some);
    if (tile.is_first()) {
#pragma unroll
      for (int e = 0; e < Own::kElements; ++e) {
        sums[index / kWarp * Own::kColumns + tile.column() + e] = some[e];
      }
    }
    sync();
    for (int c = index; c < Own::kColumns; c += each) {
      Pair<S> all = sums[c];
      for (int w = 1; w < sides.warps; ++w) all = total(all, sums[w * Own::kColumns + c]);
      sums[c] = sides.task.root.reciprocal(all);
    }
    sync();
#pragma unroll
    for (int e = 0; e < Own::kElements; ++e) some[e] = sums[tile.column() + e];
    tile.finish(some);
    if (first + sides.step < sides.tiles) sync();
  }
}

}  // namespace rmsnorm::cuda
