#include "device.cuh"
#include "rows.h"

namespace rmsnorm::cuda {
namespace {

using Starter = std::string(const Start&);

Starter* of_type(Element type, Starter* of_float, Starter* of_half, Starter* of_bfloat16,
                 Starter* of_double) {
  switch (type) {
    case Element::kFloat32:
      return of_float;
    case Element::kFloat16:
      return of_half;
    case Element::kBFloat16:
      return of_bfloat16;
    default:
      return of_double;
  }
}

}  // namespace

std::string rows(const Problem& p, Element scale_type, const Plan& plan, const Device& device,
                 void* stream) {
  return of_type(p.type, start_rows<float>, start_rows<Half>, start_rows<BFloat16>,
                 start_rows<double>)(Start{p, scale_type, plan, device, stream});
}

std::string reread(const Problem& p, Element scale_type, const Plan& plan, const Device& device,
                   void* stream) {
  return of_type(p.type, start_reread<float>, start_reread<Half>, start_reread<BFloat16>,
                 start_reread<double>)(Start{p, scale_type, plan, device, stream});
}

}  // namespace rmsnorm::cuda
