// Which kernel of columns.cuh runs, and how it is launched.
#include "choose.h"
#include "columns.cuh"
#include "kernels.h"

namespace rmsnorm::cuda {
namespace {

template <class T, class S, Form F, bool kIsWide>
std::string start_tiles(const Start& given) {
  using Own = Tile<T, S, F, kIsWide>;
  const Plan& plan = given.plan;
  const Layout& layout = given.problem.layout;
  const int64_t depth = int64_t(plan.threads) / kWarp * kParts * Own::kDeep;
  const int64_t accesses = layout.kept.count * layout.inner / Own::kElements;
  const Sides<S> sides{Task<S>(given.problem, given.scale_type, plan),  plan.threads / kWarp,
                       int((layout.reduced.count + depth - 1) / depth), accesses,
                       (accesses + Own::kAcross - 1) / Own::kAcross,    plan.blocks * plan.rows};
  const Shape shape{plan.blocks, plan.threads * plan.rows, plan.shared_bytes, 1, given.overlaps()};
  return enqueue(side_by_side<T, S, F, kIsWide>, shape, given.stream, sides);
}

template <class T>
std::string start_columns(const Start& given) {
  return choose<T>(given.problem, [&](auto choice) {
    using C = decltype(choice);
    if constexpr (std::is_same_v<typename C::S, HeldStash<T>>) {
      if (given.plan.vector > 1) return start_tiles<T, typename C::S, C::kForm, true>(given);
    }
    return start_tiles<T, typename C::S, C::kForm, false>(given);
  });
}

}  // namespace

std::string columns(const Start& given) {
  switch (given.problem.type) {
    case Element::kFloat32:
      return start_columns<float>(given);
    case Element::kFloat16:
      return start_columns<Half>(given);
    case Element::kBFloat16:
      return start_columns<BFloat16>(given);
    default:
      return start_columns<double>(given);
  }
}

}  // namespace rmsnorm::cuda
