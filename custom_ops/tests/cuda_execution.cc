#include "cuda_execution.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace cuda_host {
namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr int kWarp = 32;

enum class State { kReady, kMeets, kBlockBarrier, kClusterBarrier, kDone };

struct Fiber : View {
  State state = State::kDone;
  Meeting kind{};
  unsigned mask = 0;
  uint64_t brought = 0, result = 0;
  int source = 0;
  int phase = 0;         // of the cluster's barrier, when this thread arrived
  bool arrived = false;  // there, and has not waited yet
  bool started = false;
  jmp_buf place;
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
};

// Fibers outlive launches: their loop takes the next kernel where the last one returned.
std::vector<std::unique_ptr<Fiber>> fibers;
jmp_buf scheduler;
const std::function<void()>* body;
std::string failure;

Launch launch;
int64_t first_block;  // of the cluster that runs
std::vector<char*> shared;
std::vector<unsigned> meeting;  // lanes of every warp that wait for others of it
std::vector<int> at_barrier;    // threads of every block
std::vector<int> at_end;        // likewise
std::vector<int> mapped;        // phase of the cluster in which another block last did
int at_cluster_barrier, cluster_phase;

struct Range {
  uintptr_t begin, end;
};
std::vector<Range> allowed;

Fiber& self() { return *static_cast<Fiber*>(current); }

std::string name_of(const Fiber& fiber) {
  return "block " + std::to_string(fiber.block) + " thread " + std::to_string(fiber.thread);
}

const char* name_of(State state) {
  switch (state) {
    case State::kReady:
      return "runs";
    case State::kMeets:
      return "waits for lanes of its warp";
    case State::kBlockBarrier:
      return "waits at a barrier of its block";
    case State::kClusterBarrier:
      return "waits at a barrier of its cluster";
    case State::kDone:
      return "has returned";
  }
  return "";
}

[[gnu::noinline]] void leave() {
  if (!_setjmp(self().place)) _longjmp(scheduler, 1);
}

void wait(State state) {
  self().state = state;
  leave();
}

void live() {
  for (;;) {
    (*body)();
    if (launch.overlaps && !self().waited) fail("returns without a wait for the kernels before");
    wait(State::kDone);
  }
}

// Lets the fiber run until it waits.
[[gnu::noinline]] void resume(Fiber* fiber) {
  current = fiber;
  if (!_setjmp(scheduler)) {
    if (fiber->started) _longjmp(fiber->place, 1);
    fiber->started = true;
    getcontext(&fiber->context);
    fiber->context.uc_stack = {fiber->stack.get(), 0, kStackBytes};
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, live, 0);
    setcontext(&fiber->context);
  }
}

// Index of the first thread of its warp.
size_t warp_of(const Fiber& fiber) {
  return size_t(fiber.cluster_rank * launch.threads + fiber.thread / kWarp * kWarp);
}

int lanes_of(const Fiber& fiber) {
  const int left = launch.threads - fiber.thread / kWarp * kWarp;
  return left < kWarp ? left : kWarp;
}

template <class Body>
void each_lane(unsigned mask, Body body) {
  for (; mask; mask &= mask - 1) body(__builtin_ctz(mask));
}

// Threads [begin, end) that wait there go on.
void release(int begin, int end, State from) {
  for (int i = begin; i < end; ++i) {
    if (fibers[size_t(i)]->state == from) fibers[size_t(i)]->state = State::kReady;
  }
}

int all_threads() { return launch.threads * launch.cluster; }

// The first thread that waits for ever, and who lets it wait.
std::string deadlock() {
  const auto find = [](auto matches) {
    for (int i = 0; i < all_threads(); ++i) {
      if (matches(*fibers[size_t(i)])) return fibers[size_t(i)].get();
    }
    return static_cast<Fiber*>(nullptr);
  };
  const Fiber* stuck = find([](const Fiber& f) { return f.state != State::kDone; });
  const Fiber* other = find([&](const Fiber& f) { return f.state != stuck->state; });
  std::string text = name_of(*stuck) + " " + name_of(stuck->state);
  if (stuck->state == State::kMeets) text += ", mask " + std::to_string(stuck->mask);
  return text + " for ever" +
         (other ? ": " + name_of(*other) + " " + name_of(other->state) : std::string());
}

// The blocks of one cluster, side by side.
void run_cluster() {
  const int all = all_threads();
  const bool upwards = first_block / launch.cluster % 2 == 0;
  for (int done = 0; done < all;) {
    bool moved = false;
    for (int i = 0; i < all; ++i) {
      Fiber* fiber = fibers[size_t(upwards ? i : all - 1 - i)].get();
      if (fiber->state != State::kReady) continue;
      moved = true;
      resume(fiber);
      if (!failure.empty()) return;
      if (fiber->state != State::kDone) continue;
      ++done;
      const size_t rank = size_t(fiber->cluster_rank);
      if (++at_end[rank] == launch.threads && mapped[rank] == cluster_phase) {
        failure = name_of(*fiber) + " returns while others may still read its shared memory";
        return;
      }
    }
    if (!moved) {
      failure = deadlock();
      return;
    }
  }
}

class SharedMemory {
 public:
  explicit SharedMemory(int bytes) : page_(size_t(sysconf(_SC_PAGESIZE))) {
    bytes_ = (size_t(bytes) + 15) / 16 * 16;
    room_ = (bytes_ + page_ - 1) / page_ * page_;
    void* at =
        mmap(nullptr, room_ + page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    base_ = static_cast<char*>(at);
    mprotect(base_ + room_, page_, PROT_NONE);
  }
  ~SharedMemory() { munmap(base_, room_ + page_); }
  SharedMemory(const SharedMemory&) = delete;

  char* begin() const { return base_ + room_ - bytes_; }
  void forget() { std::memset(base_, 0xff, room_); }
  bool is_whole() const {
    for (const char* at = base_; at < begin(); ++at) {
      if (*at != char(0xff)) return false;
    }
    return true;
  }

 private:
  size_t page_, bytes_, room_;
  char* base_;
};

void prepare(int index) {
  if (size_t(index) == fibers.size()) fibers.emplace_back(new Fiber);
  Fiber& fiber = *fibers[size_t(index)];
  const int rank = index / launch.threads;
  fiber.thread = index % launch.threads;
  fiber.threads = launch.threads;
  fiber.block = first_block + rank;
  fiber.lane = fiber.thread % kWarp;
  fiber.cluster_rank = rank;
  fiber.cluster_size = launch.cluster;
  fiber.shared = shared[size_t(rank)];
  fiber.state = State::kReady;
  fiber.arrived = false;
  fiber.waited = false;
}

std::string check(const Launch& l) {
  if (l.threads < 1 || l.threads > 1024) return "a block of " + std::to_string(l.threads);
  if (l.blocks < 1 || l.blocks > INT32_MAX) return "a grid of " + std::to_string(l.blocks);
  if (l.cluster < 1 || l.cluster > 16 || l.blocks % l.cluster) {
    return std::to_string(l.blocks) + " blocks in clusters of " + std::to_string(l.cluster);
  }
  if (l.cluster > 1 && device.arch < 90) return "a cluster below sm_90";
  if (l.overlaps && device.arch < 90) return "a kernel before the one before it ends below sm_90";
  if (l.shared_bytes > device.shared_bytes) {
    return std::to_string(l.shared_bytes) + " bytes of shared memory";
  }
  return "";
}

}  // namespace

std::string run(const Launch& asked, const std::function<void()>& kernel) {
  const std::string refused = check(asked);
  if (!refused.empty()) return "no device launches " + refused;
  launch = asked;
  body = &kernel;
  failure.clear();
  std::vector<std::unique_ptr<SharedMemory>> memory;
  shared.clear();
  for (int i = 0; i < launch.cluster; ++i) {
    memory.emplace_back(new SharedMemory(launch.shared_bytes));
    shared.push_back(memory.back()->begin());
  }
  for (first_block = 0; first_block < launch.blocks; first_block += launch.cluster) {
    for (const auto& block : memory) block->forget();
    for (int i = 0; i < all_threads(); ++i) prepare(i);
    meeting.assign(size_t(all_threads()), 0);
    at_barrier.assign(size_t(launch.cluster), 0);
    at_end.assign(size_t(launch.cluster), 0);
    mapped.assign(size_t(launch.cluster), -1);
    at_cluster_barrier = cluster_phase = 0;
    run_cluster();
    for (const auto& block : memory) {
      if (failure.empty() && !block->is_whole()) {
        failure = "block " + std::to_string(first_block) + " writes before its shared memory";
      }
    }
    if (!failure.empty()) break;
  }
  current = nullptr;
  if (!failure.empty()) {
    for (const auto& fiber : fibers) fiber->started = false;  // they stand anywhere
  }
  return failure;
}

void fail(const std::string& text) {
  failure = name_of(self()) + ": " + text;
  for (;;) leave();
}

uint64_t meet(Meeting kind, unsigned mask, uint64_t bits, int source) {
  Fiber& own = self();
  const int lanes = lanes_of(own);
  if (lanes < kWarp && mask == ~0u) mask = (1u << lanes) - 1;
  const auto text = [&] { return " with mask " + std::to_string(mask); };
  if (!(mask >> own.lane & 1)) fail("meets others" + text() + " without itself");
  if (lanes < kWarp && mask >> lanes) fail("meets lanes that do not exist" + text());
  if (!(mask >> source & 1) && kind == Meeting::kShuffle) {
    fail("reads lane " + std::to_string(source) + text());
  }
  own.kind = kind;
  own.mask = mask;
  own.brought = bits;
  own.source = source;
  own.state = State::kMeets;
  const size_t warp = warp_of(own);
  unsigned& waiting = meeting[warp];
  waiting |= 1u << own.lane;
  if ((waiting & mask) != mask) {
    leave();
    return own.result;
  }
  waiting &= ~mask;
  uint64_t votes = 0;
  each_lane(mask, [&](int lane) {
    const Fiber& other = *fibers[warp + size_t(lane)];
    if (other.kind != kind || other.mask != mask) {
      fail("meets lane " + std::to_string(lane) + text() + ", which is elsewhere");
    }
    if (other.brought) votes |= uint64_t(1) << lane;
  });
  each_lane(mask, [&](int lane) {
    Fiber& other = *fibers[warp + size_t(lane)];
    other.result = kind == Meeting::kVote ? votes : fibers[warp + size_t(other.source)]->brought;
    other.state = State::kReady;
  });
  return own.result;
}

void block_barrier() {
  const int rank = self().cluster_rank, begin = rank * launch.threads;
  int& waiting = at_barrier[size_t(rank)];
  if (++waiting < launch.threads) return wait(State::kBlockBarrier);
  waiting = 0;
  release(begin, begin + launch.threads, State::kBlockBarrier);
}

void cluster_arrive() {
  Fiber& own = self();
  if (own.arrived) fail("arrives twice at a barrier of its cluster");
  own.arrived = true;
  own.phase = cluster_phase;
  if (++at_cluster_barrier < all_threads()) return;
  at_cluster_barrier = 0;
  ++cluster_phase;
  release(0, all_threads(), State::kClusterBarrier);
}

void cluster_wait() {
  Fiber& own = self();
  if (!own.arrived) fail("waits at a barrier of its cluster where it has not arrived");
  own.arrived = false;
  if (own.phase == cluster_phase) wait(State::kClusterBarrier);
}

void* of_cluster(const void* at, int rank) {
  const auto offset = static_cast<const char*>(at) - self().shared;
  if (offset < 0 || offset >= launch.shared_bytes) fail("maps what is not its shared memory");
  if (rank < 0 || rank >= launch.cluster) fail("maps block " + std::to_string(rank));
  if (at_end[size_t(rank)] == launch.threads) fail("maps a block that has returned");
  if (rank != self().cluster_rank) mapped[size_t(rank)] = cluster_phase;
  return shared[size_t(rank)] + offset;
}

void allow(const void* begin, int64_t bytes) {
  const auto at = reinterpret_cast<uintptr_t>(begin);
  if (at) allowed.push_back({at & ~uintptr_t(15), (at + uintptr_t(bytes) + 15) & ~uintptr_t(15)});
}

void allow_nothing() { allowed.clear(); }

void check_access(const void* pointer, int bytes) {
  const auto at = reinterpret_cast<uintptr_t>(pointer);
  if (at % uintptr_t(bytes)) {
    fail("accesses " + std::to_string(bytes) + " bytes " + std::to_string(at % uintptr_t(bytes)) +
         " bytes past their alignment");
  }
  const uintptr_t end = at + uintptr_t(bytes);
  for (const char* block : shared) {
    const auto begin = reinterpret_cast<uintptr_t>(block);
    if (begin <= at && end <= begin + uintptr_t(launch.shared_bytes)) return;
  }
  if (launch.overlaps && !self().waited)
    fail("accesses memory before the wait for the kernels before");
  if (allowed.empty()) return;
  for (const Range& range : allowed) {
    if (range.begin <= at && end <= range.end) return;
  }
  fail("accesses " + std::to_string(bytes) + " bytes outside all tensors");
}

}  // namespace cuda_host
