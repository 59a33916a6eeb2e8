// float16 and bfloat16 to and from float, N at a time: round to nearest even, NaN stays NaN,
// subnormals kept.
#pragma once

#include "vector.h"

namespace rmsnorm::RMSNORM_ISA {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <>
struct BitsOf<Half> {
  using Unsigned = uint16_t;
};
template <>
struct BitsOf<BFloat16> {
  using Unsigned = uint16_t;
};

template <int N>
inline Vec<float, N> float_from_half(Vec<uint16_t, N> half) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return _mm512_cvtph_ps((__m256i)half);
#endif
#if defined(__F16C__)
  if constexpr (N == 8) return _mm256_cvtph_ps((__m128i)half);
  if constexpr (N == 4) {
    return _mm_cvtph_ps(_mm_cvtsi64_si128(load_raw<int64_t>(&half)));
  }
#endif
  using Words = Vec<uint32_t, N>;
  const Words wide = __builtin_convertvector(half, Words);
  const Words magnitude = (wide & 0x7fffu) << 13;
  // The exponent is re-biased by a multiplication, which also normalizes subnormals.
  const Words finite = (Words)((Vec<float, N>)magnitude * 0x1p112f);
  const Words special = (Words)(magnitude >= (0x7c00u << 13)) & 0x7f800000u;
  return (Vec<float, N>)(finite | special | ((wide & 0x8000u) << 16));
}

template <int N>
inline Vec<uint16_t, N> half_from_float(Vec<float, N> value) {
#if defined(__AVX512F__)
  if constexpr (N == 16) {
    return (Vec<uint16_t, N>)_mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT);
  }
#endif
#if defined(__F16C__)
  if constexpr (N == 8) {
    return (Vec<uint16_t, N>)_mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT);
  }
  if constexpr (N == 4) {
    const int64_t low = _mm_cvtsi128_si64(_mm_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
    return load_raw<Vec<uint16_t, N>>(&low);
  }
#endif
  using Words = Vec<uint32_t, N>;
  const Words all = (Words)value;
  const Words magnitude = all & 0x7fffffffu;
  // Adding 0.5 makes the float adder round at the place of half's last subnormal bit, 2^-24.
  const Words subnormal = (Words)((Vec<float, N>)magnitude + 0.5f) - 0x3f000000u;
  const Words normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
  const Words special = magnitude > 0x7f800000u ? Words{} + 0x7e00u : Words{} + 0x7c00u;
  const Words finite = magnitude < 0x38800000u ? subnormal : normal;
  const Words result = magnitude >= 0x47800000u ? special : finite;
  return __builtin_convertvector(result | ((all >> 16) & 0x8000u), Vec<uint16_t, N>);
}

template <int N>
inline Vec<float, N> float_from_bfloat16(Vec<uint16_t, N> bits) {
#if defined(__AVX512F__)
  if constexpr (N == 16)
    return (Vec<float, N>)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)bits), 16);
#endif
#if defined(__AVX2__)
  if constexpr (N == 8)
    return (Vec<float, N>)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)bits), 16);
#endif
  return (Vec<float, N>)(__builtin_convertvector(bits, Vec<uint32_t, N>) << 16);
}

#if defined(__AVX512F__)
// What stands below, by masks and one permutation of words: rows 1.15-1.2 x as fast. (The
// instruction that converts to bfloat16 flushes subnormals.)
inline Vec<uint16_t, 16> bfloat16_from_float(Vec<float, 16> value) {
  const __m512i all = (__m512i)value;
  const __mmask16 odd = _mm512_test_epi32_mask(all, _mm512_set1_epi32(0x10000));
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const __m512i half = _mm512_add_epi32(all, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_mask_add_epi32(half, odd, half, _mm512_set1_epi32(1));
  const __m512i result = _mm512_mask_or_epi32(rounded, nan, all, _mm512_set1_epi32(0x400000));
  const __m512i upper =
      (__m512i)Vec<uint16_t, 32>{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  return (Vec<uint16_t, 16>)_mm512_castsi512_si256(_mm512_permutexvar_epi16(upper, result));
}
#endif

template <int N>
inline Vec<uint16_t, N> bfloat16_from_float(Vec<float, N> value) {
#if defined(__AVX512F__)
  if constexpr (N == 16) return bfloat16_from_float(value);
#endif
  using Words = Vec<uint32_t, N>;
  const Words all = (Words)value;
  const Words rounded = all + 0x7fffu + ((all >> 16) & 1u);
  const Words quiet = all | 0x400000u;
  const Words result = (Words)(value == value ? rounded : quiet) >> 16;
#if defined(__AVX2__)
  if constexpr (N == 8) {
    const __m256i packed = _mm256_packus_epi32((__m256i)result, (__m256i)result);
    return (Vec<uint16_t, N>)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
  }
#endif
  return __builtin_convertvector(result, Vec<uint16_t, N>);
}

#if defined(__AVX2__)
// Two registers at once: one permutation packs both, and one question answers whether there is a
// NaN. Twice as fast as one after the other. (The instruction that converts to bfloat16 flushes
// subnormals.)
inline auto bfloat16_from_floats(Vec<float, kVectorBytes / 4> low,
                                 Vec<float, kVectorBytes / 4> high) {
  constexpr int n = kVectorBytes / 4;
  using Words = Vec<uint32_t, n>;
  const auto rounded = [](Words all) -> Words {
#if defined(__AVX512F__)
    const __mmask16 odd = _mm512_test_epi32_mask((__m512i)all, _mm512_set1_epi32(0x10000));
    const __m512i half = (__m512i)(all + 0x7fffu);
    return (Words)_mm512_mask_add_epi32(half, odd, half, _mm512_set1_epi32(1));
#else
    return all + 0x7fffu + ((all >> 16) & 1u);
#endif
  };
  Words a = rounded((Words)low), b = rounded((Words)high);
#if defined(__AVX512F__)
  const bool nan = _mm512_cmp_ps_mask(low, high, _CMP_UNORD_Q) != 0;
#else
  const bool nan = _mm256_movemask_ps(_mm256_cmp_ps(low, high, _CMP_UNORD_Q)) != 0;
#endif
  if (__builtin_expect(nan, false)) {
    a = low == low ? a : (Words)low | 0x400000u;
    b = high == high ? b : (Words)high | 0x400000u;
  }
#if defined(__AVX512F__)
  const __m512i upper =
      (__m512i)Vec<uint16_t, 32>{1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                 33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_permutex2var_epi16((__m512i)a, upper, (__m512i)b);
#else
  const __m256i packed = _mm256_packus_epi32((__m256i)(a >> 16), (__m256i)(b >> 16));
  return _mm256_permute4x64_epi64(packed, 0xd8);
#endif
}
#endif

}  // namespace rmsnorm::RMSNORM_ISA
