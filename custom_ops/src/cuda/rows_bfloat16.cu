#include "rows_start.cuh"

namespace rmsnorm::cuda {

template std::string start_rows<BFloat16>(const Start&);
template std::string start_cluster<BFloat16>(const Start&);

}  // namespace rmsnorm::cuda
