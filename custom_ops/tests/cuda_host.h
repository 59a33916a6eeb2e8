// What kernels take from CUDA, by CUDA's names and with CUDA's results, for the host.
#pragma once

#include <algorithm>
#include <cmath>

#include "cuda_execution.h"

// CUDA's names.
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static  // one copy: kernels of clusters take dynamic shared memory
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define threadIdx (::cuda_host::current->thread)
#define blockIdx (::cuda_host::current->block)
#define blockDim (::cuda_host::current->block_size)
#define gridDim (::cuda_host::current->grid_size)
constexpr int warpSize = 32;

inline void __syncthreads() { cuda_host::block_barrier(); }
inline void __syncwarp(unsigned mask = ~0u) {
  cuda_host::meet(cuda_host::Meeting::kWarp, mask, 0, cuda_host::current->lane);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = cuda_host::current->lane;
  return cuda_host::shuffle(mask, value, lane / width * width + (source & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = cuda_host::current->lane, other = lane ^ bits;
  return cuda_host::shuffle(mask, value, other / width > lane / width ? lane : other);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int other = cuda_host::current->lane + int(by);
  return cuda_host::shuffle(mask, value, cuda_host::in_group(other, width));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const int other = cuda_host::current->lane - int(by);
  return cuda_host::shuffle(mask, value, cuda_host::in_group(other, width));
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return unsigned(cuda_host::meet(cuda_host::Meeting::kVote, mask, predicate != 0, 0));
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

template <class To, class From>
inline To __bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "of one size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline unsigned __float_as_uint(float v) { return __bits_as<unsigned>(v); }
inline int __float_as_int(float v) { return __bits_as<int>(v); }
inline float __uint_as_float(unsigned v) { return __bits_as<float>(v); }
inline float __int_as_float(int v) { return __bits_as<float>(v); }
inline long long __double_as_longlong(double v) { return __bits_as<long long>(v); }
inline double __longlong_as_double(long long v) { return __bits_as<double>(v); }

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned pick = selector >> 4 * i & 15, byte = bytes >> 8 * (pick & 7) & 255;
    result |= (pick & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
  }
  return result;
}

// Each rounded once: the build forbids contraction.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __frsqrt_rn(float a) { return float(1 / std::sqrt(double(a))); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline double __dsqrt_rn(double a) { return std::sqrt(a); }
inline double __drcp_rn(double a) { return 1 / a; }
inline float rsqrtf(float a) { return float(1 / std::sqrt(double(a))); }
inline double rsqrt(double a) { return 1 / std::sqrt(a); }

struct __half {
  uint16_t bits;
};
struct __nv_bfloat16 {
  uint16_t bits;
};

// A value in the 16 bits of a sign, an exponent and `fraction` bits, rounded once.
inline uint16_t __narrow(double value, int fraction, int least_exponent, int infinity) {
  if (value != value) return 0x7fff;
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (magnitude == 0) return sign;
  if (std::isinf(magnitude)) return uint16_t(sign | infinity);
  const int exponent = std::max(std::ilogb(magnitude), least_exponent);
  const double steps = std::nearbyint(std::ldexp(magnitude, fraction - exponent));
  const int64_t bits = (int64_t(exponent - least_exponent) << fraction) + int64_t(steps);
  return uint16_t(sign | (bits < infinity ? bits : infinity));
}

inline float __half2float(__half value) {
  const int bits = value.bits & 0x7fff, exponent = bits >> 10, fraction = bits & 1023;
  double magnitude =
      std::ldexp(exponent ? 1024 + fraction : fraction, (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = fraction ? NAN : INFINITY;
  return float(value.bits & 0x8000 ? -magnitude : magnitude);
}
inline float __bfloat162float(__nv_bfloat16 value) {
  return __uint_as_float(unsigned(value.bits) << 16);
}
inline __half __double2half(double value) { return {__narrow(value, 10, -14, 0x7c00)}; }
inline __half __float2half_rn(float value) { return __double2half(value); }
inline __nv_bfloat16 __double2bfloat16(double value) { return {__narrow(value, 7, -126, 0x7f80)}; }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __double2bfloat16(value); }
