// Steps through a Walk in order and knows the offsets of each step.
#pragma once

#include "../kernel.h"
#include "vector.h"

namespace rmsnorm::RMSNORM_ISA {

class Cursor {
 public:
  [[gnu::always_inline]] explicit Cursor(const Walk& walk) : walk_(walk) {
    for (int d = 0; d < walk.rank; ++d) digit_[d] = 0;
  }

  Cursor(const Walk& walk, int64_t index) : walk_(walk) {
    for (int d = walk.rank - 1; d >= 0; --d) {
      digit_[d] = index % walk.size[d];
      index /= walk.size[d];
      x += digit_[d] * walk.x[d];
      scale += digit_[d] * walk.scale[d];
    }
  }

  [[gnu::always_inline]] void next() {
    for (int d = walk_.rank - 1; d >= 0; --d) {
      x += walk_.x[d];
      scale += walk_.scale[d];
      if (++digit_[d] < walk_.size[d]) return;
      x -= walk_.size[d] * walk_.x[d];
      scale -= walk_.size[d] * walk_.scale[d];
      digit_[d] = 0;
    }
  }

  int64_t x = 0;
  int64_t scale = 0;

 private:
  const Walk& walk_;
  int64_t digit_[kMaxWalk];
};

}  // namespace rmsnorm::RMSNORM_ISA
