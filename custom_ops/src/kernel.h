// The contract between whoever launches a kernel and the kernels: plain values, nothing of
// onnxruntime.
//
//   Y = round_T( round_scaled( round_normalized( v / (sqrt(max(mean(v^2), floor) + epsilon)
//                                                     + epsilon_outside) ) * scale ) * silu(gate) )
//
// with v = X, X + skip (rounded to T) or X * silu(gate), everything computed in the stash type.
#pragma once

#include <cstdint>

namespace rmsnorm {

// Numbered as in onnx.TensorProto.
enum class Element : int32_t { kFloat32 = 1, kFloat16 = 10, kFloat64 = 11, kBFloat16 = 16 };

constexpr int64_t size_of(Element element) {
  return element == Element::kFloat64 ? 8 : element == Element::kFloat32 ? 4 : 2;
}

enum class Form : int32_t { kPlain, kSkip, kGated, kPreGated };

// Most groups of adjacent dimensions that are not alike (reduced or kept, scaled or not).
constexpr int kMaxWalk = 16;

// Columns that share one walk over the reduced offsets: 1 KiB of float32, the shortest run that
// came near copy speed, and 2 KiB of double sums, which stay in L1.
constexpr int64_t kTile = 256;

// A row of so many elements is summed in chunks, whoever sums it, so that threads may share one row
// and the bits stay the same. The chunks depend on the width alone: whole steps of every sum, 32
// KiB of float32 or more (what is worth handing to a thread), few enough for everybody who finishes
// one to add up all of them.
constexpr int64_t kWideRow = 131072;
constexpr int64_t kChunkElements = 8192;
constexpr int64_t kMostChunks = 64;

// Nested loops over strided dimensions, outermost first; strides are in elements.
struct Walk {
  int32_t rank = 0;
  int64_t count = 1;
  int64_t size[kMaxWalk];
  int64_t x[kMaxWalk];
  int64_t scale[kMaxWalk];
};

// Where the elements of one norm lie. The innermost run is contiguous in X. If it is reduced, a
// norm is one run per step of `reduced` ("rows"); if it is kept, `inner` norms lie side by side and
// each takes one element per step of `reduced` ("columns").
struct Layout {
  bool columns = false;
  Walk kept;
  Walk reduced;
  int64_t inner = 1;
  int64_t inner_scale =
      0;                 // step of the scale along the innermost run: 1, or 0 where it broadcasts
  int64_t averaged = 1;  // elements that one mean is taken over
  int64_t scale_elements = 1;

  int64_t elements() const { return kept.count * averaged * (columns ? inner : 1); }
  int64_t tiles() const { return columns ? (inner + kTile - 1) / kTile : 1; }
  // A problem splits at any item; the result does not depend on where.
  int64_t items() const { return kept.count * tiles(); }
  int64_t item_elements() const {
    return columns ? reduced.count * (inner < kTile ? inner : kTile) : averaged;
  }

  bool is_wide() const { return !columns && averaged >= kWideRow; }
  int64_t chunk_elements() const {
    const int64_t step = kChunkElements * kMostChunks;
    return (averaged + step - 1) / step * kChunkElements;
  }
  int64_t chunks() const {
    const int64_t elements = chunk_elements();
    return (averaged + elements - 1) / elements;
  }
};

struct Settings {
  double epsilon = 0;
  double epsilon_outside = 0;
  double floor = 0;
  Element stash = Element::kFloat32;
  Element normalized = Element::kFloat32;  // a type wider than the stash type rounds nothing
  Element scaled = Element::kFloat32;
};

// Y may be X or `second`, and sum may be X or `second`; nothing else may overlap.
struct Problem {
  Form form = Form::kPlain;
  Element type = Element::kFloat32;
  Settings settings;
  Layout layout;
  const void* x = nullptr;
  const void* second = nullptr;     // skip or gate
  const void* scale = nullptr;      // in the stash type; null means ones
  const void* own_scale = nullptr;  // the same in the type of X, or null where it is not at hand
  void* y = nullptr;
  void* sum = nullptr;  // null when nobody wants it
  // Y passes the caches by: faster where it would not stay in them anyway. Never in place.
  bool streaming = false;
  float* inverse = nullptr;  // 1 / (root + epsilon_outside) of every norm, or null
};

// One compiled instruction set.
struct KernelSet {
  const char* name;
  void (*run)(const Problem& problem, int64_t begin, int64_t end);
  // What run() does to wide rows, in two halves, over chunks [begin, end) of all rows: the first
  // leaves the sum of every chunk, the second needs those of every row it touches. sums[0] is that
  // of the first chunk of the row that `begin` is in.
  void (*sum_chunks)(const Problem& problem, int64_t begin, int64_t end, double* sums);
  void (*finish_chunks)(const Problem& problem, int64_t begin, int64_t end, const double* sums);
  // Any element type to any other, rounded once.
  void (*convert)(Element from, const void* source, Element to, void* target, int64_t count);
};

}  // namespace rmsnorm
