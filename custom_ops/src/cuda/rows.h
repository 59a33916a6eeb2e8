// Kernels over rows, by the type of the elements: each is instantiated in a file of its own, so
// that they compile side by side.
#pragma once

#include "kernels.h"

namespace rmsnorm::cuda {

template <class T>
std::string start_rows(const Start& start);
template <class T>
std::string start_reread(const Start& start);

}  // namespace rmsnorm::cuda
