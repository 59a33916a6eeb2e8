// How norms side by side are launched.
#include "plan.h"

namespace rmsnorm::cuda {
namespace {

constexpr int kRowsOfWarp = 32;   // in registers: 128 bytes of each; 16 where there are two tensors
constexpr int kMostWarps = 16;    // of a tile: more would leave too few registers to each
constexpr int kFewThreads = 128;  // of a block: smaller ones leave a processor half empty

bool is_aligned(const Problem& p) {
  uintptr_t all = 0;
  for (const void* tensor :
       {p.x, p.second, const_cast<const void*>(p.y), const_cast<const void*>(p.sum)}) {
    all |= reinterpret_cast<uintptr_t>(tensor);
  }
  return all % 16 == 0;
}

}  // namespace

Plan plan_columns(const Problem& p, const Device& device) {
  const Layout& layout = p.layout;
  const int whole = int(16 / size_of(p.type));
  Plan plan;
  plan.path = Path::kColumns;
  const bool is_whole = is_aligned(p) && layout.inner % whole == 0 && layout.reduced.rank <= 1;
  plan.vector = has_held_stash(p) && is_whole ? whole : 1;
  int warps = 1;
  while (warps < kMostWarps && warps * kRowsOfWarp < layout.reduced.count) warps *= 2;
  plan.threads = warps * 32;
  const int across = plan.vector > 1 ? 128 / int(size_of(p.type)) : 32;
  const int64_t norms = layout.kept.count * layout.inner;
  const int64_t tiles = (norms + across - 1) / across;
  while (plan.rows * plan.threads < kFewThreads && tiles / plan.rows >= 2 * device.processors) {
    plan.rows *= 2;
  }
  const int64_t blocks = (tiles + plan.rows - 1) / plan.rows;
  plan.blocks = blocks < INT32_MAX ? blocks : INT32_MAX;
  plan.vectors = 8;
  plan.streaming = layout.elements() * size_of(p.type) > device.l2_bytes;
  plan.shared_bytes = plan.rows * warps * across * 2 * int(size_of(p.settings.stash));
  return plan;
}

}  // namespace rmsnorm::cuda
