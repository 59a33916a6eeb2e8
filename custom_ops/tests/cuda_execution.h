// CUDA's execution model on the host, so that tests run the kernels' own source without a GPU.
//
// Every thread is a fiber that runs until it must wait for others: at a barrier, a shuffle or a
// vote. Blocks run one after the other, those of a cluster together. What hardware leaves undefined
// ends the launch with a text instead: a barrier that some threads never reach, a shuffle with
// lanes missing or from a lane that takes no part, a vector access that is not aligned, shared
// memory of a block that is gone; in a launch that may overlap with the kernel before it, a vector
// access before the wait for that one, or no such wait. Shared memory starts as NaN and ends at a
// page nobody may touch.
//
// It cannot show what depends on time: two warps race here only where one order of running them
// (upwards in even blocks, downwards in odd ones) gives another result.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "../src/cuda/plan.h"

namespace cuda_host {

// What the device is said to be.
inline rmsnorm::cuda::Device device;

// The thread that runs, as kernels see it.
struct View {
  int thread = 0, threads = 1;
  int64_t block = 0;
  int lane = 0;
  int cluster_rank = 0, cluster_size = 1;
  char* shared = nullptr;
  bool waited = false;  // for the kernels before it
};
inline View* current = nullptr;

struct Launch {
  int64_t blocks = 1;
  int threads = 32;
  int shared_bytes = 0;
  int cluster = 1;
  bool overlaps = false;
};

// Runs the kernel in every thread. Empty, or what went wrong where.
std::string run(const Launch& launch, const std::function<void()>& kernel);

// Ends the launch with this text.
[[noreturn]] void fail(const std::string& text);

enum class Meeting { kSync, kShuffle, kVote };

// Waits for the lanes of `mask` at a meeting of the same kind; the bits that lane `source` brought.
// At a vote, the mask of the lanes that brought other bits than 0.
uint64_t meet(Meeting kind, unsigned mask, uint64_t bits, int source);

void block_barrier();
void cluster_arrive();
void cluster_wait();

// The same place in the shared memory of another block of the cluster.
void* of_cluster(const void* shared, int rank);

// Memory that vector accesses may touch (whole pieces of 16 bytes around it), besides shared
// memory. Nothing is checked where no range was added.
void allow(const void* begin, int64_t bytes);
void allow_nothing();
void check_access(const void* at, int bytes);

// One access of sizeof(V) bytes, which must be aligned to them.
template <class V>
V load(const void* from) {
  check_access(from, int(sizeof(V)));
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class V>
void store(void* to, const V& value) {
  check_access(to, int(sizeof(V)));
  std::memcpy(to, &value, sizeof value);
}

template <class T>
T shuffle(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 8 bytes at most");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = meet(Meeting::kShuffle, mask, bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace cuda_host
