// A problem of the tests as the kernels take it.
#pragma once

#include "kernels_abi.h"
#include "layout.h"

namespace rmsnorm {

// All but the scale, which is of another type. Empty, or the text of what is wrong.
inline std::string to_problem(const TestProblem& t, Problem* p) {
  p->form = Form(t.form);
  p->type = Element(t.type);
  p->settings = {t.epsilon,        t.epsilon_outside,     t.floor,
                 Element(t.stash), Element(t.normalized), Element(t.scaled)};
  p->x = t.x;
  p->second = t.second;
  p->y = t.y;
  p->sum = t.sum;
  return plan_layout(Dims(t.shape, size_t(t.rank)), Dims(t.axes, size_t(t.axis_count)),
                     Dims(t.scale_shape, size_t(t.scale_rank)), &p->layout);
}

}  // namespace rmsnorm
