# The CUDA kernels without onnxruntime: tests/cuda_device.py and bench/cuda.py load it. Built alone it
# needs none of the CPU's kernels, which take longer to compile on a machine that is there for its GPU.
add_library(rmsnorm_cuda_test SHARED tests/cuda_device_abi.cc bench/gpu/copy.cu src/layout.cc $<TARGET_OBJECTS:cuda>)
target_include_directories(rmsnorm_cuda_test PRIVATE src tests)
target_link_options(rmsnorm_cuda_test PRIVATE
  -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL
  -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/tests/exports.map -Wl,-z,defs)
set_target_properties(rmsnorm_cuda_test PROPERTIES LINKER_LANGUAGE CXX)

# Both, as nvcc compiled their launches, on a runtime that writes calls down: tests/test_cuda_launch.py.
add_plugin(rmsnorm_cuda_recorded tests/exports.map ${binding} src/ort/cuda_kernel.cc
  tests/cuda_device_abi.cc tests/cuda_recorder.cc $<TARGET_OBJECTS:cuda>)
target_include_directories(rmsnorm_cuda_recorded PRIVATE tests)
target_include_directories(rmsnorm_cuda_recorded SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_compile_definitions(rmsnorm_cuda_recorded PRIVATE RMSNORM_CUDA="")
set_target_properties(rmsnorm_cuda_recorded PROPERTIES LINKER_LANGUAGE CXX CUDA_RUNTIME_LIBRARY None)
