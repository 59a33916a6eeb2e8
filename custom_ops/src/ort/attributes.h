// The attributes of a node, checked.
#pragma once

#include "../kernel.h"
#include "api.h"

namespace rmsnorm::ort {

struct Attributes {
  Shape axes;
  Settings settings;
};

// Throws InvalidArgument naming the attribute, what was expected and what came.
Attributes read_attributes(const Api& api, const KernelInfo* info, Form form);

std::string node_name(const Api& api, const KernelInfo* info);

}  // namespace rmsnorm::ort
