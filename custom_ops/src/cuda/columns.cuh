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
// Warps of a tile: more would leave too few registers to each.
constexpr int kMostWarps = 16;

template <class S>
struct Sides {
  Task<S> task;
  int warps;         // of a tile
  int rounds;        // of some rows of every part
  int64_t accesses;  // side by side, of all norms
  int64_t tiles;
  int64_t step;  // tiles of all blocks together
};

template <class T, class S, Form F, bool kIsWide>
class Tile {
 public:
  using Number = Precise<T, S>;
  static constexpr int kElements = kIsWide ? kVector<T> : 1;        // of an access
  static constexpr int kAcross = kIsWide ? kWarp / kParts : kWarp;  // lanes side by side
  static constexpr int kColumns = kAcross * kElements;
  // Rows of a part that are in registers at once: 32 registers of X, or of two tensors. Twice
  // as many of two do not fit into 128; rows before the last ones are read again, from L1.
  static constexpr int kDeep = kIsWide && F != Form::kPlain ? 4 : 8;

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
  RMSNORM_DEVICE void sum(Number* sums) {
    Number last[kElements] = {}, two[kElements] = {};
#pragma unroll 1
    for (int own = 0; own < kOwnParts; ++own) {
      Number part[kElements] = {};
#pragma unroll 1
      for (int number = 0; number < sides_.rounds; ++number) take(round_of(own, number), part);
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
          sums[e] = total(sums[e], shuffle_xor(sums[e], mask));
        }
      }
    }
  }

  // Pass 2, backwards: the last rows are in registers, and those before them are the likelier in
  // caches the later they were read.
  RMSNORM_DEVICE void finish(const Number* reciprocal) {
    const Task<S>& task = sides_.task;
    if (task.inverse && part_ == 0 && exists_) {
#pragma unroll
      for (int e = 0; e < kElements; ++e) task.inverse[norm_ + e] = float(nearest(reciprocal[e]));
    }
#pragma unroll 1
    for (int step = kOwnParts * sides_.rounds - 1; step >= 0; --step) {
      const int own = step / sides_.rounds;
      const Round round = round_of(own, step - own * sides_.rounds);
      if (step + 1 < kOwnParts * sides_.rounds) {
        Number unused[kElements] = {};
        take(round, unused);
      }
#pragma unroll
      for (int i = 0; i < kDeep; ++i) {
        if (i >= round.rows) continue;
        const Place at = place_in(round, i);
        if (F == Form::kSkip && task.sum) store(task.sum, held_[i].value(), at.x);
        S scale[kElements];
        load_scale<kElements>(task.scale, task.scale_type, at.scale, task.scale_step, 1, kElements,
                              scale);
        store(task.y, held_[i].result(task.rounding, scale, reciprocal, 1), at.x);
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

  // kDeep rows of a part, or those that are left.
  struct Round {
    int64_t first;
    int rows;
    Place at;  // of the first, where all rows are at one distance
  };

  // From a row of a part to the next.
  RMSNORM_DEVICE int stride() const { return kParts * sides_.warps; }

  RMSNORM_DEVICE Round round_of(int own, int number) const {
    const Walk& walk = sides_.task.reduced;
    const int all = kDeep * stride();
    const int64_t first = int64_t(number) * all + part_ + own, left = walk.count - first;
    const int rows = left < all ? (int(left) + stride() - 1) / stride() : kDeep;
    return {first,
            exists_ && left > 0 ? rows : 0,
            {at_.x + first * walk.x[0], at_.scale + first * walk.scale[0]}};
  }

  RMSNORM_DEVICE Place place_in(const Round& round, int i) const {
    const Walk& walk = sides_.task.reduced;
    if constexpr (kIsWide) {  // as plan_columns() has it
      return {round.at.x + i * (stride() * walk.x[0]),
              round.at.scale + i * (stride() * walk.scale[0])};
    } else {
      const Place down = place_of(walk, round.first + i * stride());
      return {at_.x + down.x, at_.scale + down.scale};
    }
  }

  static RMSNORM_DEVICE Words load(const void* tensor, int64_t at) {
    const T* const from = static_cast<const T*>(tensor) + at;
    if constexpr (kIsWide) {
      return load16(from);
    } else {
      Bits<T> element[kVector<T>] = {load_bits(from)};
      return vector_of<T>(element);
    }
  }
  RMSNORM_DEVICE void store(void* tensor, const Words& v, int64_t at) const {
    T* const to = static_cast<T*>(tensor) + at;
    if constexpr (kIsWide) {
      store16(to, v, sides_.task.streaming);
    } else {
      store_element(to, v, 0);
    }
  }

  // All loads before the first use. Missing rows are zeros, which change no sum.
  RMSNORM_DEVICE void take(const Round& round, Number* part) {
    Words x[kDeep] = {}, second[kDeep] = {};
#pragma unroll
    for (int i = 0; i < kDeep; ++i) {
      if (i >= round.rows) continue;
      const int64_t at = place_in(round, i).x;
      x[i] = load(sides_.task.x, at);
      if (F != Form::kPlain) second[i] = load(sides_.task.second, at);
    }
#pragma unroll
    for (int first = 0; first < kDeep; first += kChain) {
      S chain[kElements] = {};
#pragma unroll
      for (int i = first; i < first + kChain; ++i) {
        S v[kElements];
        held_[i].take(x[i], second[i], v);
#pragma unroll
        for (int e = 0; e < kElements; ++e) chain[e] = fused(v[e], v[e], chain[e]);
      }
#pragma unroll
      for (int e = 0; e < kElements; ++e) part[e] = total(part[e], precise<Number>(chain[e]));
    }
  }

  const Sides<S>& sides_;
  const int64_t norm_;
  Place at_;
  int part_;
  bool exists_;
  Held<T, S, F, kElements> held_[kDeep];
};

template <class T, class S, Form F, bool kIsWide>
RMSNORM_KERNEL(kMostWarps* kWarp)
side_by_side(RMSNORM_ARGUMENT Sides<S> sides) {
  using Own = Tile<T, S, F, kIsWide>;
  using Number = typename Own::Number;
  allow_kernels_after();
  const int each = sides.warps * kWarp, together = threads() / each;
  const int number = thread() / each, index = thread() - number * each;
  Number* const sums = reinterpret_cast<Number*>(shared()) + number * sides.warps * Own::kColumns;
  wait_for_kernels_before();
  for (int64_t first = block() * together; first < sides.tiles; first += sides.step) {
    Own tile(sides, first + number);
    Number some[Own::kElements];
    tile.sum(some);
    if (tile.is_first()) {
#pragma unroll
      for (int e = 0; e < Own::kElements; ++e) {
        sums[index / kWarp * Own::kColumns + tile.column() + e] = some[e];
      }
    }
    sync();
    for (int c = index; c < Own::kColumns; c += each) {
      Number all = sums[c];
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
