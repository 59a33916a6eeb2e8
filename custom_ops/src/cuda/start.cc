#include <climits>

#include "kernels.h"

namespace rmsnorm::cuda {

std::string start(const Start& given) {
  if (given.plan.blocks > INT_MAX) return "more blocks than one launch has";
  switch (given.plan.path) {
    case Path::kRows:
      return rows(given);
    case Path::kReread:
      return reread(given);
    case Path::kColumns:
      return columns(given);
  }
  return "no such path";
}

}  // namespace rmsnorm::cuda
