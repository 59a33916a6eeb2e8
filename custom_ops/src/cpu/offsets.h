// The offsets of all steps of a Walk that many norms share, written down once.
#pragma once

#include "cursor.h"

namespace rmsnorm::RMSNORM_ISA {

// Counting them anew for every tile takes a seventh of the time of a norm of 32 x 64.
class Offsets {
 public:
  explicit Offsets(const Walk& walk) : count(walk.count), walk_(walk) {}

  // Of step `first`, a multiple of kTogether, and of the kTogether - 1 after it.
  static constexpr int kTogether = 8;
  [[gnu::always_inline]] const int64_t* x(int64_t first) { return x_ + find(first); }
  [[gnu::always_inline]] const int64_t* scale(int64_t first) { return scale_ + find(first); }

  // How far in X it is from step `first` to the one `some` later, 0 where that is not at hand.
  [[gnu::always_inline]] int64_t apart(int64_t first, int some) const {
    const int64_t at = first % kMost;
    return first + some < count && at + some < kMost ? x_[at + some] - x_[at] : 0;
  }

  const int64_t count;

 private:
  static constexpr int kMost = 64 * kTogether;

  [[gnu::always_inline]] int64_t find(int64_t step) {
    if (step / kMost != part_) fill(step / kMost);
    return step % kMost;
  }

  [[gnu::noinline]] void fill(int64_t part) {
    const int64_t left = count - part * kMost;
    Cursor(walk_, part * kMost).take(int(left < kMost ? left : kMost), x_, scale_);
    part_ = part;
  }

  const Walk& walk_;
  int64_t part_ = -1;
  int64_t x_[kMost];
  int64_t scale_[kMost];
};

}  // namespace rmsnorm::RMSNORM_ISA
