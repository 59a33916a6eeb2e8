#include "plan.h"

#include <algorithm>

namespace rmsnorm::cuda {
namespace {

constexpr int kWarp = 32;

// A block of narrow rows: 8 blocks of 256 threads fill a processor, 6 of them those with 1536
// (quack and Transformer Engine use 128). Not measured here yet.
constexpr int kBlock = 256;

// Threads and vectors of 16 bytes of each, for rows of so many vectors. A warp executes about 200
// instructions for a row, however wide, and 105 for a vector of each lane (sm_90, 16 bits, plain;
// counted in the machine code); at 4.3 TB/s an H200 has time for 240 a vector. So a thread has
// several, and eight lanes read a line. 512 threads have up to 128 registers each: four vectors
// of two tensors fit, eight spill on sm_120. Not measured here yet.
struct Step {
  int row_vectors;
  int threads;
  int vectors;
};
constexpr Step kSteps[] = {
    {1, 1, 1},      {2, 2, 1},      {4, 4, 1},      {8, 4, 2}, {16, 8, 2},
    {32, 8, 4},     {64, 16, 4},    {128, 32, 4},  // no barrier up to 2 KiB: quack has none to 6
    {256, 64, 4},   {512, 128, 4},  // Transformer Engine: 4 warps for 8 KiB, quack too
    {1024, 256, 4}, {2048, 512, 4}, {4096, 512, 8},
};
constexpr int kMostThreads = 512;

// Eight that are shifted into place spill on sm_100.
constexpr int kMostShifted = 4;

int most_vectors(const Problem& p) { return p.form == Form::kPlain ? 8 : 4; }

// Rows wider than a block of 512 threads holds go to clusters, where there are. quack's clusters
// begin at 32 KiB of 16 bits; those of 16 blocks lose it 7 %, and 8 are what every device takes.
constexpr int kCluster = 90;
constexpr int kMostBlocks = 8;

// Rows of so many elements or more are read by several blocks if there are few: TileOPs does from
// 4096 on. Fewer than half of the processors have work then. Not measured here yet.
constexpr int64_t kSlicedElements = 4096;

bool has_whole_steps(const Walk& walk, const int64_t* steps, int64_t size) {
  bool whole = true;
  for (int d = 0; d < walk.rank; ++d) whole &= walk.size[d] == 1 || steps[d] * size % 16 == 0;
  return whole;
}

// Whether kernels that hold rows read the scale.
bool is_usual_scale(const Problem& p, Element scale_type) {
  return !p.scale ||
         (p.layout.inner_scale == 1 && (scale_type == p.type || scale_type == p.settings.stash));
}

// Whether every vector, of the scale too, is 16 aligned bytes.
bool is_whole(const Problem& p, Element scale_type) {
  const Layout& layout = p.layout;
  const int64_t size = size_of(p.type), scale_size = size_of(scale_type);
  uintptr_t all = uintptr_t(layout.inner * size);
  for (const void* tensor :
       {p.x, p.second, p.scale, static_cast<const void*>(p.y), static_cast<const void*>(p.sum)}) {
    all |= reinterpret_cast<uintptr_t>(tensor);
  }
  return layout.reduced.count == 1 && all % 16 == 0 &&
         has_whole_steps(layout.kept, layout.kept.x, size) &&
         (!p.scale || has_whole_steps(layout.kept, layout.kept.scale, scale_size));
}

bool is_in_place(const Problem& p) {
  const bool sum = p.sum && (p.sum == p.x || p.sum == p.second);
  return sum || p.y == p.x || p.y == p.second;
}

// Where vectors of most rows would straddle two of memory, elements side by side take fewer
// instructions. The width decides, not the address: this makes the order of the sum.
bool is_spread(const Layout& layout, int64_t size, int threads) {
  return layout.reduced.count == 1 && layout.inner * size % 16 != 0 && threads >= kWarp;
}

int power_of_two_from(int64_t least) {
  int power = 1;
  while (power < least) power *= 2;
  return power;
}

// Threads, vectors and cluster by the width, type and form: they make the order of the sum. False
// where registers do not hold the row.
bool divide_row(const Problem& p, const Device& device, int64_t row_vectors, Plan* plan) {
  const int most = most_vectors(p);
  for (const Step& step : kSteps) {
    if (row_vectors > step.row_vectors || step.vectors > most) continue;
    plan->threads = step.threads;
    plan->vectors = step.vectors;
    return true;
  }
  plan->threads = kMostThreads;
  plan->vectors = most;
  if (device.arch < kCluster) return false;
  const int64_t in_block = kMostThreads * most;
  plan->cluster = std::min(power_of_two_from((row_vectors + in_block - 1) / in_block), kMostBlocks);
  return row_vectors <= in_block * kMostBlocks;
}

Plan plan_rows(const Problem& p, Element scale_type, const Device& device) {
  const Layout& layout = p.layout;
  const int64_t rows = layout.kept.count;
  Plan plan;
  plan.vector = int(16 / size_of(p.type));
  const int64_t row_vectors = (layout.inner + plan.vector - 1) / plan.vector * layout.reduced.count;
  const bool fits = divide_row(p, device, row_vectors, &plan);
  plan.access = is_spread(layout, size_of(p.type), plan.threads) ? Access::kSpread
                : is_whole(p, scale_type)                        ? Access::kAligned
                                                                 : Access::kShifted;
  const bool held = has_held_stash(p) && is_usual_scale(p, scale_type) &&
                    layout.reduced.count == 1 &&
                    (plan.access != Access::kShifted || plan.vectors <= kMostShifted);
  if (!fits || !held) plan.path = Path::kReread;
  if (plan.threads <= kWarp) {
    // Smaller blocks where there are too few of them for all processors.
    const auto blocks_of = [&](int threads) {
      return (rows + threads / plan.threads - 1) / (threads / plan.threads);
    };
    int threads = kBlock;
    while (threads > kWarp && blocks_of(threads) < device.processors) threads /= 2;
    plan.rows = threads / plan.threads;
    plan.blocks = blocks_of(threads);
  } else {
    if (plan.path == Path::kRows && plan.cluster == 1 && layout.averaged >= kSlicedElements &&
        !is_in_place(p)) {
      while (plan.slices < plan.vectors && rows * plan.slices * 2 <= device.processors) {
        plan.slices *= 2;
      }
    }
    plan.blocks = rows * plan.slices * plan.cluster;
    plan.shared_bytes = kSumBytes;
  }
  plan.streaming = layout.elements() * size_of(p.type) > device.l2_bytes;
  plan.prefetches_scale = p.scale && plan.path == Path::kRows && plan.access == Access::kAligned &&
                          plan.blocks <= device.processors;
  return plan;
}

const char* name_of(Path path) {
  switch (path) {
    case Path::kRows:
      return "rows";
    case Path::kReread:
      return "reread";
    case Path::kColumns:
      return "columns";
  }
  return "nothing";
}

}  // namespace

Plan plan(const Problem& problem, Element scale_type, const Device& device) {
  return problem.layout.columns ? plan_columns(problem, device)
                                : plan_rows(problem, scale_type, device);
}

std::string to_text(const Plan& plan) {
  const auto part = [](const char* name, int64_t value) {
    return std::string(" ") + name + " " + std::to_string(value);
  };
  std::string text = name_of(plan.path);
  text += part("vector", plan.vector) + part("threads", plan.threads);
  text += part("vectors", plan.vectors) + part("rows", plan.rows) + part("slices", plan.slices);
  text += part("cluster", plan.cluster) + part("blocks", plan.blocks);
  text += part("shared", plan.shared_bytes);
  if (plan.access == Access::kShifted) text += " shifted";
  if (plan.access == Access::kSpread) text += " spread";
  if (plan.streaming) text += " streaming";
  if (plan.prefetches_scale) text += " prefetches-scale";
  return text;
}

}  // namespace rmsnorm::cuda
