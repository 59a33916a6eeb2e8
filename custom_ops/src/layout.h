// From shapes and axes to a Layout: a pure function, the same for every kernel.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "kernel.h"

namespace rmsnorm {

using Shape = std::vector<int64_t>;

std::string to_text(const Shape& shape);

// The layout, or one sentence about what was expected and what came.
std::variant<Layout, std::string> plan_layout(const Shape& x, const Shape& axes,
                                              const Shape& scale);

}  // namespace rmsnorm
