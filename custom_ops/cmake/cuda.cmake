# The CUDA compiler: found, checked, and told for which devices to compile.

# Of a CUDA toolkit, or of the packages of the group cuda-build (pyproject.toml).
if(NOT CMAKE_CUDA_COMPILER AND DEFINED ENV{CUDACXX})
  set(CMAKE_CUDA_COMPILER $ENV{CUDACXX})
elseif(NOT CMAKE_CUDA_COMPILER)
  file(GLOB python_nvcc ${Python3_SITELIB}/nvidia/cu*/bin)
  find_program(CMAKE_CUDA_COMPILER nvcc
    HINTS ENV CUDA_HOME ENV CUDA_PATH PATH_SUFFIXES bin PATHS ${python_nvcc} /usr/local/cuda/bin)
endif()
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR
    "RMSNORM_CUDA needs nvcc 12 or 13, and none is on PATH, in CUDA_HOME, in /usr/local/cuda or in "
    "${Python3_SITELIB}. Install a CUDA toolkit, or `pip install --group cuda-build`, or name one: "
    "-DCMAKE_CUDA_COMPILER=/path/to/nvcc")
endif()

# Python's packages hold the libraries in lib, and nvcc looks in lib64.
get_filename_component(cuda_root ${CMAKE_CUDA_COMPILER} REALPATH)
get_filename_component(cuda_root ${cuda_root}/../.. ABSOLUTE)
if(EXISTS ${cuda_root}/lib/libcudart_static.a AND NOT EXISTS ${cuda_root}/lib64)
  set(CMAKE_CUDA_FLAGS_INIT -L${cuda_root}/lib)
endif()

# Code for every one that this nvcc knows, PTX of the first for those between, as 87 and 110 are, and
# PTX of the last for what comes after it.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known)
  foreach(arch 75 80 86 89 90 100 103 120)
    if(known MATCHES "compute_${arch}[^0-9]")
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${arch}-real)
    endif()
  endforeach()
  list(TRANSFORM CMAKE_CUDA_ARCHITECTURES REPLACE "-real" "" AT 0 -1)
endif()

set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12)
  message(FATAL_ERROR
    "RMSNORM_CUDA needs nvcc 12 or 13, ${CMAKE_CUDA_COMPILER} is ${CMAKE_CUDA_COMPILER_VERSION}")
endif()
