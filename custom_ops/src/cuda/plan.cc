#include "plan.h"

#include <algorithm>

namespace rmsnorm::cuda {
namespace {

constexpr int kWarp = 32;

// A block of narrow rows: 8 blocks of 256 threads fill a processor, 6 of them those with 1536
// (quack and Transformer Engine use 128). Not measured here yet.
constexpr int kBlock = 256;

// Threads and vectors of 16 bytes of each, for rows of so many vectors. Half as many vectors of
// each thread where it holds two tensors, or wider numbers, because 64 registers are all that a
// thread of 1024 has. Not measured here yet.
struct Step {
  int row_vectors;
  int threads;
  int vectors;
};
constexpr Step kSteps[] = {
    {64, 32, 2},  // no barrier up to 2 KiB of row: quack up to 6 KiB, Transformer Engine up to 4
    {128, 32, 4},    {256, 128, 2},  // Transformer Engine: 4 warps to a row of 8 KiB
    {512, 256, 2},  // HydraQYH holds 8 and 16 KiB with one vector to a thread, at 0.95 of copy
    {1024, 256, 4},  {2048, 512, 4},
    {4096, 512, 8},  // two blocks of 512 are at work at once, one reads while one writes
    {8192, 1024, 8},
};
constexpr int kMostThreads = 1024;

// Rows wider than a block of 512 threads holds go to clusters, where there are. quack's clusters
// begin at 32 KiB of 16 bits; those of 16 blocks lose it 7 %, and 8 are what every device takes.
constexpr int kCluster = 90;
constexpr int kClusterVectors = 4096;
constexpr int kMostBlocks = 8;

// Rows of so many elements or more are read by several blocks if there are few: TileOPs does from
// 4096 on. Fewer than half of the processors have work then. Not measured here yet.
constexpr int64_t kSlicedElements = 4096;

bool is_sixteen_aligned(const Problem& p) {
  const int64_t size = size_of(p.type);
  uintptr_t all = 0;
  for (const void* tensor :
       {p.x, p.second, static_cast<const void*>(p.y), static_cast<const void*>(p.sum)}) {
    all |= reinterpret_cast<uintptr_t>(tensor);
  }
  for (const Walk* walk : {&p.layout.kept, &p.layout.reduced}) {
    for (int d = 0; d < walk->rank; ++d) {
      if (walk->size[d] > 1) all |= uintptr_t(walk->x[d] * size);
    }
  }
  return all % 16 == 0;
}

// Which vectors are held twice: two tensors, or numbers of twice the size.
bool holds_two(const Problem& p) {
  const bool in_stash = size_of(p.type) != size_of(p.settings.stash);
  return p.form == Form::kGated || (p.form == Form::kPreGated && in_stash);
}

// As in cpu/stage.h: what models have.
bool is_common(const Problem& p) {
  const int64_t size = size_of(p.type), stash = size_of(p.settings.stash);
  return size <= stash && stash <= 2 * size;
}

bool is_in_place(const Problem& p) {
  const bool sum = p.sum && (p.sum == p.x || p.sum == p.second);
  return sum || p.y == p.x || p.y == p.second;
}

int power_of_two_from(int64_t least) {
  int power = 1;
  while (power < least) power *= 2;
  return power;
}

// Threads, vectors and cluster by the width alone: they make the order of the sum.
void divide_row(const Problem& p, const Device& device, int64_t row_vectors, Plan* plan) {
  const bool common = is_common(p), two = holds_two(p), clusters = device.arch >= kCluster;
  plan->vectors = 1;
  if (row_vectors <= kWarp || !common) {
    plan->threads = power_of_two_from(std::min<int64_t>(row_vectors, kMostThreads));
    if (row_vectors > kMostThreads) plan->path = Path::kReread;
    return;
  }
  const int most = two ? 4 : 8;
  for (const Step& step : kSteps) {
    const int factor = step.vectors > most ? 2 : 1;
    if (row_vectors > step.row_vectors || step.threads * factor > kMostThreads) continue;
    if (clusters && step.row_vectors > kClusterVectors) break;
    plan->threads = step.threads * factor;
    plan->vectors = step.vectors / factor;
    return;
  }
  const int64_t blocks = (row_vectors + kClusterVectors - 1) / kClusterVectors;
  const int64_t most_blocks = kMostBlocks * (two ? 1 : 2);
  plan->threads = kMostThreads;
  plan->cluster = clusters ? kMostBlocks : 1;
  if (!clusters || blocks > most_blocks) {
    plan->path = Path::kReread;
    return;
  }
  plan->path = Path::kCluster;
  plan->vectors = most;
  if (blocks <= kMostBlocks) {
    plan->cluster = power_of_two_from(blocks);
    plan->threads = kClusterVectors / most;
  }
}

Plan plan_rows(const Problem& p, const Device& device) {
  const Layout& layout = p.layout;
  const int64_t rows = layout.kept.count;
  Plan plan;
  plan.vector = int(16 / size_of(p.type));
  const int64_t row_vectors = (layout.inner + plan.vector - 1) / plan.vector * layout.reduced.count;
  divide_row(p, device, row_vectors, &plan);
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
    if (plan.path == Path::kRows && layout.averaged >= kSlicedElements && !is_in_place(p)) {
      while (plan.slices < plan.vectors && rows * plan.slices * 2 <= device.processors) {
        plan.slices *= 2;
      }
    }
    plan.blocks = rows * plan.slices * plan.cluster;
    plan.shared_bytes = kSumBytes;
  }
  plan.aligned = is_sixteen_aligned(p);
  plan.streaming = layout.elements() * size_of(p.type) > device.l2_bytes;
  plan.prefetches_scale = p.scale && layout.inner_scale && plan.blocks <= device.processors;
  return plan;
}

const char* name_of(Path path) {
  switch (path) {
    case Path::kRows:
      return "rows";
    case Path::kCluster:
      return "cluster";
    case Path::kReread:
      return "reread";
    case Path::kColumns:
      return "columns";
  }
  return "nothing";
}

}  // namespace

Plan plan(const Problem& problem, const Device& device) {
  return problem.layout.columns ? plan_columns(problem, device) : plan_rows(problem, device);
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
  if (plan.aligned) text += " aligned";
  if (plan.streaming) text += " streaming";
  if (plan.prefetches_scale) text += " prefetches-scale";
  return text;
}

}  // namespace rmsnorm::cuda
