#include "rows_start.cuh"

namespace rmsnorm::cuda {

template std::string start_reread<Half>(const Start&);

}  // namespace rmsnorm::cuda
