// Steps through a Walk in order and knows the offsets of each step.
#pragma once

#include "../kernel.h"
#include "vector.h"

namespace rmsnorm::RMSNORM_ISA {

class Cursor {
 public:
  [[gnu::always_inline]] explicit Cursor(const Walk& walk) : walk_(walk) {
    if (walk.rank > 0) clear();
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
    const int last = walk_.rank - 1;
    if (last < 0) return;
    x += walk_.x[last];
    scale += walk_.scale[last];
    if (++digit_[last] == walk_.size[last]) carry(last);
  }

  // The offsets of this step and of those after it.
  void take(int count, int64_t* xs, int64_t* scales) {
    const int last = walk_.rank - 1;
    for (int i = 0; i < count;) {
      const int64_t x_step = last < 0 ? 0 : walk_.x[last];
      const int64_t scale_step = last < 0 ? 0 : walk_.scale[last];
      const int64_t left = last < 0 ? 1 : walk_.size[last] - digit_[last];
      const int some = count - i < left ? count - i : int(left);
      for (int k = 0; k < some; ++k) {
        xs[i + k] = x + k * x_step;
        scales[i + k] = scale + k * scale_step;
      }
      i += some;
      if (last < 0) return;
      x += some * x_step;
      scale += some * scale_step;
      if ((digit_[last] += some) == walk_.size[last]) carry(last);
    }
  }

  int64_t x = 0;
  int64_t scale = 0;

 private:
  // Not inlined: most walks have one step, and compilers unroll these loops sixteen times.
  [[gnu::noinline]] void clear() {
    for (int d = 0; d < walk_.rank; ++d) digit_[d] = 0;
  }

  [[gnu::noinline]] void carry(int d) {
    for (;;) {
      x -= walk_.size[d] * walk_.x[d];
      scale -= walk_.size[d] * walk_.scale[d];
      digit_[d] = 0;
      if (--d < 0) return;
      x += walk_.x[d];
      scale += walk_.scale[d];
      if (++digit_[d] < walk_.size[d]) return;
    }
  }

  const Walk& walk_;
  int64_t digit_[kMaxWalk];
};

}  // namespace rmsnorm::RMSNORM_ISA
