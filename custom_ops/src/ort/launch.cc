#include "launch.h"

#include <algorithm>

namespace rmsnorm::ort {
namespace {

// A task this small still costs more to compute than to hand to a thread.
constexpr int64_t kTaskBytes = 32 * 1024;
// Less than this, read and written, is done before a second thread has woken up.
constexpr int64_t kSerialBytes = 64 * 1024;

}  // namespace

void launch(const Api& api, KernelContext* context, const KernelSet&, const Problem& problem,
            const Staging& staging) {
  struct Work {
    const Staging& staging;
    const Problem& problem;
    int64_t items;
    int64_t per_task;
  };
  const int64_t items = problem.layout.items();
  const int64_t item_bytes = problem.layout.item_elements() * size_of(problem.type);
  Work work{staging, problem, items, std::max<int64_t>(1, kTaskBytes / item_bytes)};
  const int64_t tasks = (items + work.per_task - 1) / work.per_task;
  if (tasks == 1 || 2 * items * item_bytes < kSerialBytes || !staging.splits(problem.layout)) {
    staging.run(problem, 0, items);
    return;
  }
  const auto task = [](void* data, size_t index) {
    const Work& w = *static_cast<const Work*>(data);
    const int64_t begin = int64_t(index) * w.per_task;
    w.staging.run(w.problem, begin, std::min(begin + w.per_task, w.items));
  };
  api.call<Slot::KernelContext_ParallelFor>(context, +task, size_t(tasks), size_t(0), &work);
}

}  // namespace rmsnorm::ort
