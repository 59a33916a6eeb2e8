# The CUDA kernels without onnxruntime: tests/cuda_device.py and bench/cuda.py load it. Built alone it
# needs none of the CPU's kernels, which take longer to compile on a machine that is there for its GPU.
add_library(rmsnorm_cuda_test SHARED tests/cuda_device_abi.cc bench/gpu/copy.cu src/layout.cc $<TARGET_OBJECTS:cuda>)
target_include_directories(rmsnorm_cuda_test PRIVATE src tests)
target_link_options(rmsnorm_cuda_test PRIVATE
  -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL
  -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/tests/exports.map -Wl,-z,defs)
set_target_properties(rmsnorm_cuda_test PROPERTIES LINKER_LANGUAGE CXX)
