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

// One that does not fit into two walks and the innermost run, to see that it does not.
constexpr int kMostGroups = kMaxWalk + 2;

size_t index_of(int64_t axis, size_t rank) {
  return size_t(axis < 0 ? axis + int64_t(rank) : axis);
}

std::string check_axes(Dims x, Dims axes) {
  const int64_t rank = int64_t(x.size());
  if (rank == 0) return "expected X of rank 1 or more, got a scalar (rank 0)";
  if (axes.empty()) return "expected at least one axis, got an empty list of axes";
  for (const int64_t* axis = axes.begin(); axis != axes.end(); ++axis) {
    if (*axis < -rank || *axis >= rank) {
      return "expected axes from " + std::to_string(-rank) + " to " + std::to_string(rank - 1) +
             " for X of shape " + to_text(x) + ", got axis " + std::to_string(*axis);
    }
    const size_t index = index_of(*axis, x.size());
    const auto same = [&](int64_t other) { return index_of(other, x.size()) == index; };
    if (std::any_of(axes.begin(), axis, same)) {
      return "expected each axis once, got axes " + to_text(axes) + ", which name axis " +
             std::to_string(index) + " of X of shape " + to_text(x) + " twice";
    }
  }
  return "";
}

std::string check_scale(Dims x, Dims scale) {
  bool fits = scale.size() <= x.size();
  for (size_t i = 1; fits && i <= scale.size(); ++i) {
    const int64_t have = scale[scale.size() - i];
    fits = have == 1 || have == x[x.size() - i];
  }
  if (fits) return "";
  return "expected a scale that broadcasts to X of shape " + to_text(x) +
         " without widening it, got scale of shape " + to_text(scale);
}

// Innermost first; how many, at most kMostGroups.
int collapse(Dims x, Dims axes, Dims scale, Group* groups) {
  int count = 0;
  int64_t x_stride = 1, scale_stride = 1;
  for (size_t i = 1; i <= x.size(); ++i) {
    const size_t index = x.size() - i;
    const int64_t size = x[index];
    const int64_t scale_size = i <= scale.size() ? scale[scale.size() - i] : 1;
    const int64_t step = scale_size == 1 ? 0 : scale_stride;
    scale_stride *= scale_size;
    if (size == 1) continue;
    const bool reduced = std::any_of(
        axes.begin(), axes.end(), [&](int64_t axis) { return index_of(axis, x.size()) == index; });
    Group* inner = count > 0 ? groups + count - 1 : nullptr;
    if (inner && inner->reduced == reduced && inner->scale * inner->size == step) {
      inner->size *= size;
    } else {
      if (count == kMostGroups) break;
      groups[count++] = {size, x_stride, step, reduced};
    }
    x_stride *= size;
  }
  if (count == 0) groups[count++] = {1, 1, 0, true};
  return count;
}

void append(Walk* walk, const Group& group) {
  walk->size[walk->rank] = group.size;
  walk->x[walk->rank] = group.x;
  walk->scale[walk->rank] = group.scale;
  walk->count *= group.size;
  ++walk->rank;
}

// Rows along the last axis, each with the whole scale, as nearly every node has: what collapse()
// finds too, for whom it takes 20 ns of the 280 of a node of one short row.
bool plan_rows(Dims x, Dims axes, Dims scale, Layout* layout) {
  if (x.empty() || axes.size() != 1 || scale.size() != 1) return false;
  const size_t last = x.size() - 1;
  const int64_t width = x[last], rows = Dims(x.data, last).elements();
  const bool fits = index_of(axes[0], x.size()) == last && scale[0] == width;
  if (!fits || width <= 1 || rows == 0) return false;
  layout->inner = layout->averaged = layout->scale_elements = width;
  layout->inner_scale = 1;
  if (rows > 1) append(&layout->kept, {rows, width, 0, false});
  return true;
}

}  // namespace

bool Dims::operator==(Dims other) const {
  bool same = count == other.count;
  for (size_t i = 0; same && i < count; ++i) same = data[i] == other.data[i];
  return same;
}

std::string to_text(Dims shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

std::string plan_layout(Dims x, Dims axes, Dims scale, Layout* layout) {
  if (plan_rows(x, axes, scale, layout)) return "";
  std::string error = check_axes(x, axes);
  if (error.empty()) error = check_scale(x, scale);
  if (!error.empty()) return error;
  layout->scale_elements = scale.elements();
  if (std::count(x.begin(), x.end(), 0) > 0) {
    layout->kept.count = 0;
    return "";
  }
  Group groups[kMostGroups];
  const int count = collapse(x, axes, scale, groups);
  if (count > kMaxWalk + 1) {
    return "expected at most " + std::to_string(kMaxWalk + 1) +
           " alternations of reduced and kept dimensions, got X of shape " + to_text(x) +
           " with axes " + to_text(axes);
  }
  const Group& inner = groups[0];
  layout->columns = !inner.reduced;
  layout->inner = inner.size;
  layout->inner_scale = inner.scale;
  for (int i = count - 1; i > 0; --i) {
    append(groups[i].reduced ? &layout->reduced : &layout->kept, groups[i]);
  }
  layout->averaged = layout->reduced.count * (inner.reduced ? inner.size : 1);
  return "";
}

}  // namespace rmsnorm
