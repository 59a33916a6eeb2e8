#include "launch.h"

#include <algorithm>
#include <thread>
#include <vector>

#if defined(__SANITIZE_THREAD__)
extern "C" {
void __tsan_acquire(void* meeting);
void __tsan_release(void* meeting);
}
#endif

namespace rmsnorm::ort {
namespace {

// What onnxruntime promises and ThreadSanitizer, to which it is a black box, cannot see: a task
// begins after it was handed over, and all of them end before the call does. Each of the two has a
// meeting point, any address, of its own: else a task would seem to begin after those that ended.
void hand_over([[maybe_unused]] const void* meeting) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(const_cast<void*>(meeting));
#endif
}

void take_over([[maybe_unused]] const void* meeting) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(const_cast<void*>(meeting));
#endif
}

// A task of less costs more to hand to a thread than it saves.
constexpr int64_t kTaskBytes = 32 * 1024;
// Less than this, read and written, is done before a second thread has woken up.
constexpr int64_t kSerialBytes = 64 * 1024;
// More do not balance better, and each costs 50 ns or so.
constexpr int64_t kTasksPerThread = 4;
// Nor do more than one for each thread of less than this, or of less than two rows; and eight rows
// of 16 KiB, or two wider ones, take less time together (16 x 4096 floats, one thread: 1.1 x).
constexpr int64_t kWholeBytes = 128 * 1024;

// The threads of the session, for one call of a node.
struct Pool {
  const Api& api;
  KernelContext* context;
  Company* company;
};

// body(begin, end) for all of [0, count), on the threads of the session.
template <class Body>
void spread(const Pool& pool, int64_t count, int64_t item_bytes, Body body) {
  struct Work {
    Body& body;
    int64_t count;
    int64_t per_task;
    std::thread::id caller;
    std::atomic<bool> others;
  };
  const int64_t least = std::max<int64_t>(1, kTaskBytes / item_bytes);
  const int64_t whole = std::max(kWholeBytes, 2 * item_bytes) * processors();
  const int64_t most =
      processors() * std::clamp<int64_t>(count * item_bytes / whole, 1, kTasksPerThread);
  Work work{body, count, std::max(least, (count + most - 1) / most), std::this_thread::get_id(),
            false};
  const int64_t tasks = (count + work.per_task - 1) / work.per_task;
  const int64_t bytes = count * item_bytes;
  if (tasks <= 1 || pool.company->stays_away(bytes)) return body(0, count);
  const auto task = [](void* data, size_t index) {
    take_over(data);
    Work& w = *static_cast<Work*>(data);
    if (std::this_thread::get_id() != w.caller) w.others.store(true, std::memory_order_relaxed);
    const int64_t begin = int64_t(index) * w.per_task;
    w.body(begin, std::min(begin + w.per_task, w.count));
    hand_over(&w.count);
  };
  hand_over(&work);
  pool.api.call<Slot::KernelContext_ParallelFor>(pool.context, +task, size_t(tasks), size_t(0),
                                                 &work);
  take_over(&work.count);
  pool.company->saw(bytes, work.others.load(std::memory_order_relaxed));
}

}  // namespace

void launch(const Api& api, KernelContext* context, const KernelSet& kernels,
            const Problem& problem, const Staging& staging, Company* company) {
  const Pool pool{api, context, company};
  const Layout& layout = problem.layout;
  const int64_t items = layout.items();
  const int64_t item_bytes = layout.item_elements() * size_of(problem.type);
  if (2 * items * item_bytes < kSerialBytes || !staging.splits(layout)) {
    return staging.run(problem, 0, items);
  }
  // Threads share rows where there are too few rows to keep all of them busy.
  if (layout.is_wide() && items < 2 * processors() && !staging.is_needed()) {
    const int64_t chunks = layout.chunks(), all = items * chunks;
    const int64_t chunk_bytes = layout.chunk_elements() * size_of(problem.type);
    std::vector<double> sums(static_cast<size_t>(all));
    spread(pool, all, chunk_bytes, [&](int64_t begin, int64_t end) {
      kernels.sum_chunks(problem, begin, end, sums.data() + begin / chunks * chunks);
    });
    spread(pool, all, chunk_bytes, [&](int64_t begin, int64_t end) {
      kernels.finish_chunks(problem, begin, end, sums.data() + begin / chunks * chunks);
    });
    return;
  }
  spread(pool, items, item_bytes,
         [&](int64_t begin, int64_t end) { staging.run(problem, begin, end); });
}

}  // namespace rmsnorm::ort
