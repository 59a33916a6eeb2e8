#include "layout.h"

#include <algorithm>

namespace rmsnorm {
namespace {

// Adjacent dimensions that are reduced alike and that the scale walks alike.
struct Group {
  int64_t size;
  int64_t x;
  int64_t scale;
  bool reduced;
};

// One flag per dimension; the text of an error otherwise.
std::variant<std::vector<bool>, std::string> reduced_dimensions(const Shape& x, const Shape& axes) {
  const int64_t rank = int64_t(x.size());
  const std::string where = "X of shape " + to_text(x);
  if (rank == 0) return "expected X of rank 1 or more, got a scalar (rank 0)";
  if (axes.empty()) return "expected at least one axis, got an empty list of axes";
  std::vector<bool> reduced(x.size(), false);
  for (const int64_t axis : axes) {
    if (axis < -rank || axis >= rank) {
      return "expected axes from " + std::to_string(-rank) + " to " + std::to_string(rank - 1) +
             " for " + where + ", got axis " + std::to_string(axis);
    }
    const size_t index = size_t(axis < 0 ? axis + rank : axis);
    if (reduced[index]) {
      return "expected each axis once, got axes " + to_text(axes) + ", which name axis " +
             std::to_string(index) + " of " + where + " twice";
    }
    reduced[index] = true;
  }
  return reduced;
}

std::string check_scale(const Shape& x, const Shape& scale) {
  bool fits = scale.size() <= x.size();
  for (size_t i = 1; fits && i <= scale.size(); ++i) {
    const int64_t have = scale[scale.size() - i];
    fits = have == 1 || have == x[x.size() - i];
  }
  if (fits) return "";
  return "expected a scale that broadcasts to X of shape " + to_text(x) +
         " without widening it, got scale of shape " + to_text(scale);
}

std::vector<Group> collapse(const Shape& x, const std::vector<bool>& reduced, const Shape& scale) {
  std::vector<Group> groups;  // innermost first
  int64_t x_stride = 1, scale_stride = 1;
  for (size_t i = 1; i <= x.size(); ++i) {
    const int64_t size = x[x.size() - i];
    const int64_t scale_size = i <= scale.size() ? scale[scale.size() - i] : 1;
    const int64_t step = scale_size == 1 ? 0 : scale_stride;
    scale_stride *= scale_size;
    if (size == 1) continue;
    const bool is_reduced = reduced[x.size() - i];
    Group* inner = groups.empty() ? nullptr : &groups.back();
    if (inner && inner->reduced == is_reduced && inner->scale * inner->size == step) {
      inner->size *= size;
    } else {
      groups.push_back({size, x_stride, step, is_reduced});
    }
    x_stride *= size;
  }
  if (groups.empty()) groups.push_back({1, 1, 0, true});
  std::reverse(groups.begin(), groups.end());
  return groups;
}

void append(Walk* walk, const Group& group) {
  walk->size[walk->rank] = group.size;
  walk->x[walk->rank] = group.x;
  walk->scale[walk->rank] = group.scale;
  walk->count *= group.size;
  ++walk->rank;
}

}  // namespace

std::string to_text(const Shape& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

std::variant<Layout, std::string> plan_layout(const Shape& x, const Shape& axes,
                                              const Shape& scale) {
  const auto checked = reduced_dimensions(x, axes);
  if (const auto* error = std::get_if<std::string>(&checked)) return *error;
  const std::string widens = check_scale(x, scale);
  if (!widens.empty()) return widens;
  Layout layout;
  for (const int64_t size : scale) layout.scale_elements *= size;
  if (std::count(x.begin(), x.end(), 0) > 0) {
    layout.kept.count = 0;
    return layout;
  }
  std::vector<Group> groups = collapse(x, std::get<std::vector<bool>>(checked), scale);
  const Group inner = groups.back();
  groups.pop_back();
  if (groups.size() > size_t(kMaxWalk)) {
    return "expected at most " + std::to_string(kMaxWalk + 1) +
           " alternations of reduced and kept dimensions, got X of shape " + to_text(x) +
           " with axes " + to_text(axes);
  }
  layout.columns = !inner.reduced;
  layout.inner = inner.size;
  layout.inner_scale = inner.scale;
  for (const Group& group : groups) append(group.reduced ? &layout.reduced : &layout.kept, group);
  layout.averaged = layout.reduced.count * (inner.reduced ? inner.size : 1);
  return layout;
}

}  // namespace rmsnorm
