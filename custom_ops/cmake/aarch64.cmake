# Cross compiler for 64-bit Arm (Debian: g++-aarch64-linux-gnu); make aarch64 runs what it makes under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
