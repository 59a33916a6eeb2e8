// Spreads one problem over the threads of the session.
#pragma once

#include "../dispatch.h"
#include "api.h"
#include "company.h"
#include "staging.h"

namespace rmsnorm::ort {

void launch(const Api& api, KernelContext* context, const KernelSet& kernels,
            const Problem& problem, const Staging& staging, Company* company);

}  // namespace rmsnorm::ort
