#include "rows_start.cuh"

namespace rmsnorm::cuda {

template std::string start_reread<BFloat16>(const Start&);

}  // namespace rmsnorm::cuda
