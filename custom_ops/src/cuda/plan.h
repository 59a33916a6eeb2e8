// How a norm is launched on a GPU: a value from a pure function of the problem and the device, so
// that it is tested without one.
#pragma once

#include <string>

#include "../kernel.h"

namespace rmsnorm::cuda {

// What the plan depends on, read from the driver once per device.
struct Device {
  // 10 * major + minor of the compute capability, 75 to 121, or of what the code was compiled for
  // if that is less: a newer device runs PTX of an older one, which has no clusters.
  int arch = 0;
  int processors = 0;    // streaming multiprocessors
  int shared_bytes = 0;  // of one block, opted in
  int64_t l2_bytes = 0;
};

// Which kernel runs.
enum class Path : int32_t {
  kRows,     // rows of one run, held in registers
  kReread,   // any others: read a second time, from L1 or L2 where they fit
  kColumns,  // norms side by side
};

// How the lanes of a row share it.
enum class Access : int32_t {
  kAligned,  // vectors of 16 aligned bytes
  kShifted,  // vectors that begin anywhere
  kSpread,   // elements: those of a warp's lanes lie side by side
};

struct Plan {
  Path path = Path::kRows;
  int vector = 1;    // elements of one access: 16 bytes of X, or 1 where no run is so long
  int threads = 32;  // that share one row (or one tile of columns); a power of two
  int vectors = 1;   // accesses of one thread, all in registers: 1, 2, 4 or 8
  int rows = 1;      // rows (or tiles) of one block
  int slices = 1;    // blocks that each sum a whole row and write one part of it
  int cluster = 1;   // blocks of one cluster
  int64_t blocks = 1;
  int shared_bytes = 0;  // dynamic
  bool aligned = false;  // every vector that is not the last of its run is 16 aligned bytes
  Access access = Access::kAligned;
  bool streaming = false;         // Y leaves the caches first: they do not hold it anyway
  bool prefetches_scale = false;  // before the sum, where too few rows are in flight to hide it
};

// Shared memory for the partial sums of a block's warps, and that of the block.
constexpr int kSumBytes = 33 * 16;

// Whether X is computed in the one stash type that registers hold rows of it in (HeldStash): what
// models use.
inline bool has_held_stash(const Problem& p) {
  return (p.type == Element::kFloat64) == (p.settings.stash == Element::kFloat64);
}

Plan plan(const Problem& problem, Element scale_type, const Device& device);

// What plan() says about columns.
Plan plan_columns(const Problem& problem, const Device& device);

// As one line, for tests and messages.
std::string to_text(const Plan& plan);

}  // namespace rmsnorm::cuda
