// What src/cuda/device.cuh and enqueue.cuh give to kernels, for the host: the same names and the
// same results, run by the emulator.
#pragma once

#include <cmath>
#include <type_traits>

#include "cuda_execution.h"

#define RMSNORM_KERNEL(most) void
#define RMSNORM_DEVICE inline
#define RMSNORM_ARGUMENT const

namespace rmsnorm::cuda {

inline int thread() { return cuda_host::current->thread; }
inline int threads() { return cuda_host::current->threads; }
inline int64_t block() { return cuda_host::current->block; }

inline void sync() { cuda_host::block_barrier(); }
inline char* shared() { return cuda_host::current->shared; }

template <class V>
V shuffle_xor(V value, int mask) {
  return cuda_host::shuffle(~0U, value, cuda_host::current->lane ^ mask);
}
template <class V>
V shuffle_up(V value, int by, int width) {
  const int lane = cuda_host::current->lane;
  return cuda_host::shuffle(~0U, value, lane % width < by ? lane : lane - by);
}

inline int cluster_rank() { return cuda_host::current->cluster_rank; }
inline void cluster_sync() {
  cuda_host::cluster_arrive();
  cuda_host::cluster_wait();
}
template <class V>
V* remote(V* local, int rank) {
  return static_cast<V*>(cuda_host::of_cluster(local, rank));
}

inline void wait_for_kernels_before() { cuda_host::current->waited = true; }
inline void allow_kernels_after() {}

inline Words load16(const void* from) { return cuda_host::load<Words>(from); }
inline void prefetch(const void*) {}
inline void store16(void* to, Words v, bool) { cuda_host::store(to, v); }

// The build forbids contraction.
inline float add(float a, float b) { return a + b; }
inline float multiply(float a, float b) { return a * b; }
inline float divide(float a, float b) { return a / b; }
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
inline float inverted(float a) { return 1 / a; }
inline float square_root(float a) { return std::sqrt(a); }
inline double add(double a, double b) { return a + b; }
inline double multiply(double a, double b) { return a * b; }
inline double divide(double a, double b) { return a / b; }
inline double fused(double a, double b, double c) { return std::fma(a, b, c); }
inline double inverted(double a) { return 1 / a; }
inline double square_root(double a) { return std::sqrt(a); }

// Exact here; on a device, within two units of 2^-23.
inline float power_of_two_near(float a) { return std::exp2(a); }
inline float reciprocal_near(float a) {
  const float reciprocal = 1 / a;
  return std::fabs(reciprocal) < 0x1p-126f ? std::copysign(0.0f, reciprocal) : reciprocal;
}

template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "of one size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline uint32_t bits_of(float v) { return bits_as<uint32_t>(v); }
inline float float_of(uint32_t bits) { return bits_as<float>(bits); }
inline uint64_t bits_of(double v) { return bits_as<uint64_t>(v); }
inline double double_of(uint64_t bits) { return bits_as<double>(bits); }
inline uint32_t shifted(uint32_t low, uint32_t high, int shift) {
  return uint32_t((uint64_t(high) << 32 | low) >> (shift & 31));
}
inline float to_float_truncated(double v) {
  const float nearest = float(v);
  return std::fabs(double(nearest)) > std::fabs(v) ? std::nextafter(nearest, 0.0f) : nearest;
}

// A value in the 16 bits of a sign, an exponent and `fraction` bits, rounded once.
inline uint32_t narrow(double value, int fraction, int least_exponent, int infinity) {
  if (value != value) return 0x7FFF;
  const uint32_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (magnitude == 0) return sign;
  if (std::isinf(magnitude)) return sign | uint32_t(infinity);
  const int own = std::ilogb(magnitude), exponent = own < least_exponent ? least_exponent : own;
  const double steps = std::nearbyint(std::ldexp(magnitude, fraction - exponent));
  const int64_t bits = (int64_t(exponent - least_exponent) << fraction) + int64_t(steps);
  return sign | uint32_t(bits < infinity ? bits : infinity);
}
inline uint32_t half_bits(float v) { return narrow(v, 10, -14, 0x7C00); }
inline uint32_t bfloat16_bits(float v) { return narrow(v, 7, -126, 0x7F80); }
inline uint32_t pack(Half, float low, float high) { return half_bits(high) << 16 | half_bits(low); }
inline uint32_t pack(BFloat16, float low, float high) {
  return bfloat16_bits(high) << 16 | bfloat16_bits(low);
}
inline float to_float(Half v) {
  const int exponent = v.bits >> 10 & 31, fraction = v.bits & 1023;
  double magnitude =
      std::ldexp(exponent ? 1024 + fraction : fraction, (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = fraction ? NAN : INFINITY;
  return float(v.bits & 0x8000 ? -magnitude : magnitude);
}
inline float to_float(BFloat16 v) { return float_of(uint32_t(v.bits) << 16); }

// Runs the kernel at once.
template <class Shape, class... Parameters, class... Arguments>
std::string enqueue(void (*kernel)(Parameters...), const Shape& shape, void*,
                    const Arguments&... arguments) {
  const cuda_host::Launch launch{shape.blocks, shape.threads, shape.shared_bytes, shape.cluster,
                                 shape.overlaps};
  return cuda_host::run(launch,
                        [&] { kernel(static_cast<std::decay_t<Parameters>>(arguments)...); });
}

}  // namespace rmsnorm::cuda
