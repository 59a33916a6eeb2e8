#include "rows_start.cuh"

namespace rmsnorm::cuda {

template std::string start_rows<double>(const Start&);

}  // namespace rmsnorm::cuda
