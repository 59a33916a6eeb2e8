// From a plan to a launch.
#pragma once

#include <string>

#include "plan.h"

namespace rmsnorm::cuda {

// Programmatic dependent launch came with it.
constexpr int kDependentLaunch = 90;

struct Start {
  const Problem& problem;
  Element scale_type;
  const Plan& plan;
  const Device& device;
  void* stream;

  bool overlaps() const { return device.arch >= kDependentLaunch; }
};

// Enqueues one norm as planned. Empty, or what CUDA said.
std::string start(const Start& given);

// What it chooses between.
std::string rows(const Start& given);
std::string reread(const Start& given);
std::string columns(const Start& given);

}  // namespace rmsnorm::cuda
