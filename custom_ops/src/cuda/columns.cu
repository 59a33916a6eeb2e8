// Which kernel of columns.cuh runs, and how it is launched.
#include "choose.h"
#include "columns.cuh"
#include "kernels.h"

namespace rmsnorm::cuda {
namespace {

struct Order {
  const Problem& problem;
  Element scale_type;
  const Plan& plan;
  const Device& device;
  void* stream;
};

template <class T, class S, Form F, bool kIsWide>
std::string start(const Order& order) {
  using Own = Tile<T, S, F, kIsWide>;
  constexpr int kDependentLaunch = 90;
  const Plan& plan = order.plan;
  const Layout& layout = order.problem.layout;
  const int64_t depth = int64_t(plan.threads) / kWarp * kParts * kDeep;
  const int64_t accesses = layout.kept.count * layout.inner / Own::kElements;
  const Sides<S> sides{Task<S>(order.problem, order.scale_type, plan),  plan.threads / kWarp,
                       int((layout.reduced.count + depth - 1) / depth), accesses,
                       (accesses + Own::kAcross - 1) / Own::kAcross,    plan.blocks * plan.rows};
  const Shape shape{plan.blocks, plan.threads * plan.rows, plan.shared_bytes, 1,
                    order.device.arch >= kDependentLaunch};
  return enqueue(side_by_side<T, S, F, kIsWide>, shape, order.stream, sides);
}

template <class T>
std::string start_of(const Order& order) {
  return choose<T>(order.problem, [&](auto choice) {
    using C = decltype(choice);
    if constexpr (std::is_same_v<typename C::S, HeldStash<T>>) {
      if (order.plan.vector > 1) return start<T, typename C::S, C::kForm, true>(order);
    }
    return start<T, typename C::S, C::kForm, false>(order);
  });
}

}  // namespace

std::string columns(const Problem& p, Element scale_type, const Plan& plan, const Device& device,
                    void* stream) {
  const Order order{p, scale_type, plan, device, stream};
  switch (p.type) {
    case Element::kFloat32:
      return start_of<float>(order);
    case Element::kFloat16:
      return start_of<Half>(order);
    case Element::kBFloat16:
      return start_of<BFloat16>(order);
    default:
      return start_of<double>(order);
  }
}

}  // namespace rmsnorm::cuda
