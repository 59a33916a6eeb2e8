# The CUDA kernels without onnxruntime, for tests/cuda_device.py and bench/cuda.py: the library
# rmsnorm_cuda_test. CUDA_KERNELS are the objects of src/cuda.
function(add_cuda_test_library)
  add_library(rmsnorm_cuda_test SHARED
    tests/cuda_abi.cc bench/gpu/copy.cu src/layout.cc ${ARGN})
  target_include_directories(rmsnorm_cuda_test PRIVATE src tests)
  target_link_libraries(rmsnorm_cuda_test PRIVATE CUDA::cudart_static)
  target_link_options(rmsnorm_cuda_test PRIVATE
    -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL
    -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/tests/exports.map -Wl,-z,defs)
endfunction()
