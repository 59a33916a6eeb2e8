#include "rows_start.cuh"

namespace rmsnorm::cuda {

template std::string start_rows<Half>(const Start&);
template std::string start_cluster<Half>(const Start&);

}  // namespace rmsnorm::cuda
