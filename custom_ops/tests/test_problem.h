// The problem that a test describes.
#pragma once

#include "../src/layout.h"
#include "kernels_abi.h"

namespace rmsnorm {

// Text for a caller in C, which stands until the next is said on this thread.
inline const char* say(std::string text) {
  static thread_local std::string answer;
  answer = std::move(text);
  return answer.c_str();
}

// All but the scale and how Y is stored. Empty, or what is wrong with the layout.
inline std::string to_problem(const TestProblem& t, Problem* p) {
  const Shape x(t.shape, t.shape + t.rank);
  const Shape axes(t.axes, t.axes + t.axis_count);
  const Shape scale(t.scale_shape, t.scale_shape + t.scale_rank);
  p->form = Form(t.form);
  p->type = Element(t.type);
  p->settings = {t.epsilon,        t.epsilon_outside,     t.floor,
                 Element(t.stash), Element(t.normalized), Element(t.scaled)};
  p->x = t.x;
  p->second = t.second;
  p->y = t.y;
  p->sum = t.sum;
  return plan_layout(x, axes, scale, &p->layout);
}

}  // namespace rmsnorm
