// Where a step of nested strided dimensions lies.
#pragma once

#include "../kernel.h"
#include "device.cuh"

namespace rmsnorm::cuda {

struct Place {
  int64_t x = 0;
  int64_t scale = 0;
};

// 64-bit division takes four times as long, and few numbers need it.
RMSNORM_DEVICE int64_t quotient(int64_t a, int64_t b) {
  if (uint64_t(a | b) >> 32) return a / b;
  return int64_t(uint32_t(a) / uint32_t(b));
}

RMSNORM_DEVICE Place place_of(const Walk& walk, int64_t index) {
  Place place;
#pragma unroll 1
  for (int d = walk.rank - 1; d > 0; --d) {
    const int64_t outer = quotient(index, walk.size[d]), digit = index - outer * walk.size[d];
    place.x += digit * walk.x[d];
    place.scale += digit * walk.scale[d];
    index = outer;
  }
  if (walk.rank > 0) {
    place.x += index * walk.x[0];
    place.scale += index * walk.scale[0];
  }
  return place;
}

}  // namespace rmsnorm::cuda
