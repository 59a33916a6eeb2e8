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

std::string rows(const Start& given) {
  return of_type(given.problem.type, start_rows<float>, start_rows<Half>, start_rows<BFloat16>,
                 start_rows<double>)(given);
}

std::string reread(const Start& given) {
  return of_type(given.problem.type, start_reread<float>, start_reread<Half>,
                 start_reread<BFloat16>, start_reread<double>)(given);
}

}  // namespace rmsnorm::cuda
