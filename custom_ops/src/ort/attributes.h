// The attributes of a node, checked.
#pragma once

#include "../kernel.h"
#include "norm_op.h"

namespace rmsnorm::ort {

struct Attributes {
  Shape axes;
  bool to_the_end = false;  // axes holds the first of the reduced ones, all after it follow
  Settings settings;
};

// Throws InvalidArgument naming the attribute, what was expected and what came.
Attributes read_attributes(const KernelInfo* info, const NormOp& op);

std::string node_name(const Api& api, const KernelInfo* info);

}  // namespace rmsnorm::ort
