// From shapes and axes to a Layout: a pure function, the same for every kernel.
#pragma once

#include <string>
#include <vector>

#include "kernel.h"

namespace rmsnorm {

using Shape = std::vector<int64_t>;

// A shape or a list of axes that belongs to someone else: a plan is made at every call of a node,
// and a node of one short row takes less time than a few allocations.
struct Dims {
  Dims() = default;
  Dims(const int64_t* data, size_t count) : data(data), count(count) {}
  Dims(const Shape& shape) : Dims(shape.data(), shape.size()) {}

  size_t size() const { return count; }
  bool empty() const { return count == 0; }
  int64_t operator[](size_t index) const { return data[index]; }
  const int64_t* begin() const { return data; }
  const int64_t* end() const { return data + count; }
  int64_t elements() const {
    int64_t product = 1;
    for (size_t i = 0; i < count; ++i) product *= data[i];
    return product;
  }
  bool operator==(Dims other) const;
  bool operator!=(Dims other) const { return !(*this == other); }

  const int64_t* data = nullptr;
  size_t count = 0;
};

std::string to_text(Dims shape);

// Fills the layout. Empty, or one sentence about what was expected and what came.
std::string plan_layout(Dims x, Dims axes, Dims scale, Layout* layout);

}  // namespace rmsnorm
