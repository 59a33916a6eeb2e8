// What launch() chooses between. Each enqueues one norm that plan() gave to it.
#pragma once

#include <string>

#include "plan.h"

namespace rmsnorm::cuda {

std::string rows(const Problem& problem, Element scale_type, const Plan& plan, const Device& device,
                 void* stream);
std::string reread(const Problem& problem, Element scale_type, const Plan& plan,
                   const Device& device, void* stream);
std::string columns(const Problem& problem, Element scale_type, const Plan& plan,
                    const Device& device, void* stream);

}  // namespace rmsnorm::cuda
