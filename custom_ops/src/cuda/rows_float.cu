#include "rows_start.cuh"

namespace rmsnorm::cuda {

template std::string start_rows<float>(const Start&);
template std::string start_cluster<float>(const Start&);

}  // namespace rmsnorm::cuda
