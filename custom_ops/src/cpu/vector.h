// Vectors of the instruction set this unit is compiled for. Only compiler extensions and
// intrinsics: an inline function of the standard library, compiled here with AVX, could be the copy
// that the linker keeps for the baseline.
#pragma once

#include <cstdint>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "touch.h"

namespace rmsnorm::RMSNORM_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// Sums run in 256 bytes of independent lanes on every instruction set, so that all of them add in
// the same order; that is four AVX-512 or eight AVX2 registers, enough to hide the latency of FMA.
constexpr int kLaneBytes = 256;
constexpr int kVectors = kLaneBytes / kVectorBytes;

template <class E, int N>
struct VectorOf {
  typedef E Type __attribute__((vector_size(sizeof(E) * N)));
};
template <class E, int N>
using Vec = typename VectorOf<E, N>::Type;

template <class S>
constexpr int kWidth = kVectorBytes / int(sizeof(S));
template <class S>
using V = Vec<S, kWidth<S>>;
// As many floats as a register holds doubles.
using HalfWidth = Vec<float, kWidth<double>>;
template <class S>
constexpr int kLanes = kLaneBytes / int(sizeof(S));

// Signed and unsigned integers as wide as a stash type.
template <class S>
struct BitsOf;
template <>
struct BitsOf<float> {
  using Unsigned = uint32_t;
  using Signed = int32_t;
};
template <>
struct BitsOf<double> {
  using Unsigned = uint64_t;
  using Signed = int64_t;
};

template <class R>
inline R load_raw(const void* from) {
  R value;
  __builtin_memcpy(&value, from, sizeof(R));
  return value;
}

// A value that is used twice: the compiler would read it from memory twice.
template <class R>
inline R in_register(R value) {
#if defined(__AVX512F__)
  asm("" : "+v"(value));
#elif defined(__SSE2__)
  asm("" : "+x"(value));
#endif
  return value;
}

// An index or pointer that all addresses are made of: else the compiler keeps a pointer for each of
// them, more than there are registers.
inline int64_t in_register(int64_t value) {
  asm("" : "+r"(value));
  return value;
}

template <class E>
inline E* in_register(E* pointer) {
  asm("" : "+r"(pointer));
  return pointer;
}

template <class R>
inline void store_raw(void* to, R value) {
  __builtin_memcpy(to, &value, sizeof(R));
}

template <class R, class E>
[[gnu::noinline]] R load_one_by_one(const E* from, int count) {
  E padded[sizeof(R) / sizeof(E)] = {};
  for (int i = 0; i < count; ++i) padded[i] = from[i];
  return load_raw<R>(padded);
}

template <class R, class E>
[[gnu::noinline]] void store_one_by_one(E* to, R value, int count) {
  E padded[sizeof(R) / sizeof(E)];
  store_raw(padded, value);
  for (int i = 0; i < count; ++i) to[i] = padded[i];
}

// The first `count` elements; the others read as zero and are not written.
template <class R, class E>
inline R load_first(const E* from, int count) {
  will_read(from, uintptr_t(count) * sizeof(E));
#if defined(__AVX512F__)
  const uint32_t some = (1u << count) - 1;
  if constexpr (sizeof(R) == 64 && sizeof(E) == 4) return (R)_mm512_maskz_loadu_epi32(some, from);
  if constexpr (sizeof(R) == 64 && sizeof(E) == 8) return (R)_mm512_maskz_loadu_epi64(some, from);
  if constexpr (sizeof(R) == 32 && sizeof(E) == 2) return (R)_mm256_maskz_loadu_epi16(some, from);
#elif defined(__AVX2__)
  const auto some = (__m256i)(Vec<int32_t, 8>{0, 1, 2, 3, 4, 5, 6, 7} < count);
  const auto half = (__m256i)(Vec<int64_t, 4>{0, 1, 2, 3} < count);
  if constexpr (sizeof(R) == 32 && sizeof(E) == 4) {
    return (R)_mm256_maskload_epi32((const int*)from, some);
  }
  if constexpr (sizeof(R) == 32 && sizeof(E) == 8) {
    return (R)_mm256_maskload_epi64((const long long*)from, half);
  }
#endif
  return load_one_by_one<R>(from, count);
}

template <class R, class E>
inline void store_first(E* to, R value, int count) {
  will_write(to, uintptr_t(count) * sizeof(E));
#if defined(__AVX512F__)
  const uint32_t some = (1u << count) - 1;
  const auto whole = (Vec<int64_t, sizeof(R) / 8>)value;
  if constexpr (sizeof(R) == 64 && sizeof(E) == 4) {
    return _mm512_mask_storeu_epi32(to, some, (__m512i)whole);
  } else if constexpr (sizeof(R) == 64 && sizeof(E) == 8) {
    return _mm512_mask_storeu_epi64(to, some, (__m512i)whole);
  } else if constexpr (sizeof(R) == 32 && sizeof(E) == 2) {
    return _mm256_mask_storeu_epi16(to, some, (__m256i)whole);
  }
#endif
  store_one_by_one(to, value, count);
}

// Past the caches where the address allows it, which is the case for all of a row or none of it.
template <class R>
inline void stream_raw(void* to, R value) {
  will_write(to, sizeof(R));
#if defined(__AVX512F__)
  if constexpr (sizeof(R) == 64) return _mm512_stream_si512((__m512i*)to, (__m512i)value);
#endif
#if defined(__AVX__)
  if constexpr (sizeof(R) == 32) return _mm256_stream_si256((__m256i*)to, (__m256i)value);
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(R) == 16) return _mm_stream_si128((__m128i*)to, (__m128i)value);
#endif
  store_raw(to, value);
}

// Streamed stores of one thread become visible to others with its next store only after this.
inline void end_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

template <class S>
inline V<S> broadcast(S value) {
  return value - V<S>{};  // minus zero: keeps the sign of zero, and the compiler drops it
}

#if defined(__FMA__) || defined(__aarch64__)
constexpr bool kFuses = true;
#else
constexpr bool kFuses = false;
#endif

// a * b + c, rounded once where the instruction set can; libm's emulation would be slower than all
// the rest, so the baseline rounds twice.
inline V<float> fma(V<float> a, V<float> b, V<float> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return (V<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

inline V<double> fma(V<double> a, V<double> b, V<double> c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
  return (V<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

inline V<double> square_root(V<double> v) {
#if defined(__AVX512F__)
  return _mm512_sqrt_pd(v);
#elif defined(__AVX2__)
  return _mm256_sqrt_pd(v);
#else
  return V<double>{__builtin_sqrt(v[0]), __builtin_sqrt(v[1])};
#endif
}

// A line that will be read or written soon; any address will do.
inline void prefetch(const void* from) { __builtin_prefetch(from); }

// float and double lanes in the same order. Compilers take the generic conversion apart into
// quarters of a register and go through memory to put them together.
inline V<double> to_double(HalfWidth v) {
#if defined(__AVX512F__)
  return _mm512_cvtps_pd(v);
#elif defined(__AVX2__)
  return _mm256_cvtps_pd(v);
#else
  return __builtin_convertvector(v, V<double>);
#endif
}

inline HalfWidth to_float(V<double> v) {
#if defined(__AVX512F__)
  return _mm512_cvtpd_ps(v);
#elif defined(__AVX2__)
  return _mm256_cvtpd_ps(v);
#else
  return __builtin_convertvector(v, HalfWidth);
#endif
}

inline HalfWidth low_half(V<float> v) {
#if defined(__AVX512F__)
  return _mm512_castps512_ps256(v);
#elif defined(__AVX2__)
  return _mm256_castps256_ps128(v);
#else
  return HalfWidth{v[0], v[1]};
#endif
}

inline HalfWidth high_half(V<float> v) {
#if defined(__AVX512F__)
  return _mm512_extractf32x8_ps(v, 1);
#elif defined(__AVX2__)
  return _mm256_extractf128_ps(v, 1);
#else
  return HalfWidth{v[2], v[3]};
#endif
}

inline V<float> join(HalfWidth low, HalfWidth high) {
#if defined(__AVX512F__)
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
#elif defined(__AVX2__)
  return _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
#else
  return V<float>{low[0], low[1], high[0], high[1]};
#endif
}

}  // namespace rmsnorm::RMSNORM_ISA
