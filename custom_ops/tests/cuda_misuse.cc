// Kernels that are wrong, to see that the emulator says so.
#include "../src/cuda/enqueue.cuh"
#include "cuda_abi.h"

namespace rmsnorm::cuda {
namespace {

using cuda_host::meet;
using cuda_host::Meeting;

RMSNORM_KERNEL(64) right(float*) { sync(); }
RMSNORM_KERNEL(64) barrier(float*) {
  if (thread() != 40) sync();
}
RMSNORM_KERNEL(64) lanes(float*) {
  if (thread() % kWarp != 30) shuffle_xor(1.0f, 1);
}
RMSNORM_KERNEL(64) source(float*) {
  if (thread() % kWarp < 16) meet(Meeting::kShuffle, 0xFFFF, 0, 16);
}
RMSNORM_KERNEL(64) elsewhere(float*) { thread() % 2 ? sync() : void(shuffle_xor(1.0f, 1)); }
RMSNORM_KERNEL(64) alignment(float*) { load16(shared() + 8); }
RMSNORM_KERNEL(64) outside(float* y) { store16(y + 8, Words{}, false); }
RMSNORM_KERNEL(64) before(float*) { shared()[-1] = 0; }
RMSNORM_KERNEL(64) gone(float*) {
  sync();
  if (cluster_rank() == 0) return;
  sync();
  remote(shared(), 0);
}
RMSNORM_KERNEL(64) leaving(float*) {
  remote(shared(), 1 - cluster_rank());
  sync();
}
RMSNORM_KERNEL(64) early(float* y) {
  store16(y, Words{}, false);
  wait_for_kernels_before();
}
RMSNORM_KERNEL(64) unwaited(float*) { allow_kernels_after(); }
// A barrier is missing between what threads write and what they read.
RMSNORM_KERNEL(64) race(float* y) {
  float* const value = reinterpret_cast<float*>(shared());
  value[thread()] = 1;
  if (thread() < 8) y[8 * block() + thread()] = value[63 - thread()];
}

std::string run(const char* name, float* y) {
  const std::string asked = name;
  const auto launch = [&](auto kernel, int cluster, bool overlaps = false) {
    return enqueue(kernel, Shape{2, 64, 256, cluster, overlaps}, nullptr, y);
  };
  if (asked == "barrier") return launch(barrier, 1);
  if (asked == "lanes") return launch(lanes, 1);
  if (asked == "source") return launch(source, 1);
  if (asked == "elsewhere") return launch(elsewhere, 1);
  if (asked == "alignment") return launch(alignment, 1);
  if (asked == "outside") return launch(outside, 1);
  if (asked == "before") return launch(before, 1);
  if (asked == "gone") return launch(gone, 2);
  if (asked == "leaving") return launch(leaving, 2);
  if (asked == "early") return launch(early, 1, true);
  if (asked == "unwaited") return launch(unwaited, 1, true);
  if (asked == "race") return launch(race, 1);
  return launch(right, 2);
}

}  // namespace
}  // namespace rmsnorm::cuda

const char* rmsnorm_cuda_test_misuse(const char* name) {
  static std::string text;
  alignas(16) float y[16] = {};
  cuda_host::device = {90, 2, 1024, 1 << 20};
  cuda_host::allow_nothing();
  cuda_host::allow(y, 8 * sizeof(float));
  text = rmsnorm::cuda::run(name, y);
  for (const float value : y) {
    if (value != value) text += "a value that nobody wrote";
  }
  return text.c_str();
}
