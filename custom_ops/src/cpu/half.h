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

#if defined(__AVX512BF16__)
// The instructions that convert to bfloat16 flush subnormals: true where they must not be used.
// Only where a result is zero is there a question at all.
inline bool flushes(__m512i results, Vec<float, 16> a, Vec<float, 16> b) {
  constexpr int kSubnormal = 0x20;
  if (_mm512_testn_epi16_mask(results, _mm512_set1_epi16(0x7fff)) == 0) return false;
  return (_mm512_fpclass_ps_mask(a, kSubnormal) | _mm512_fpclass_ps_mask(b, kSubnormal)) != 0;
}
#endif

template <int N>
inline Vec<uint16_t, N> bfloat16_from_float(Vec<float, N> value) {
  using Words = Vec<uint32_t, N>;
#if defined(__AVX512BF16__)
  if constexpr (N == 16) {
    const __m512i twice = (__m512i)_mm512_cvtne2ps_pbh(value, value);
    if (__builtin_expect(!flushes(twice, value, value), true)) {
      return (Vec<uint16_t, N>)_mm512_castsi512_si256(twice);
    }
  }
#endif
  const Words all = (Words)value;
  const Words rounded = all + 0x7fffu + ((all >> 16) & 1u);
  const Words quiet = all | 0x400000u;
  const Words result = value == value ? rounded : quiet;
#if defined(__AVX512F__)
  if constexpr (N == 16) {
    const __m512i upper =
        (__m512i)Vec<uint16_t, 32>{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    return (Vec<uint16_t, N>)_mm512_castsi512_si256(
        _mm512_permutexvar_epi16(upper, (__m512i)result));
  }
#endif
#if defined(__AVX2__)
  if constexpr (N == 8) {
    const __m256i words = (__m256i)(result >> 16);
    const __m256i packed = _mm256_packus_epi32(words, words);
    return (Vec<uint16_t, N>)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
  }
#endif
  return __builtin_convertvector(result >> 16, Vec<uint16_t, N>);
}

// Twice as many bfloat16 as a register holds floats: in every word of 32 bits an even element below
// an odd one, which parts and joins them without moving anything between lanes.
constexpr int kWords = kVectorBytes / 4;
using Words = Vec<uint32_t, kWords>;

inline Vec<float, kWords> even_floats(Words words) { return (Vec<float, kWords>)(words << 16); }
inline Vec<float, kWords> odd_floats(Words words) {
  return (Vec<float, kWords>)(words & 0xffff0000u);
}

// Floats in order become those that stand at even places and those at odd ones.
template <int N>
inline void by_parity(Vec<float, N>* two) {
  const Vec<float, N> a = in_register(two[0]), b = in_register(two[1]);
  if constexpr (N == 16) {
    two[0] =
        __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    two[1] =
        __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  } else if constexpr (N == 8) {
    two[0] = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
    two[1] = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  } else {
    two[0] = __builtin_shufflevector(a, b, 0, 2, 4, 6);
    two[1] = __builtin_shufflevector(a, b, 1, 3, 5, 7);
  }
}

inline Words bfloat16_words(Vec<float, kWords> even, Vec<float, kWords> odd) {
#if defined(__AVX512BF16__)
  const __m512i apart = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
  if (__builtin_expect(!flushes(apart, even, odd), true)) {
    const __m512i in_turn =
        (__m512i)Vec<uint16_t, 32>{0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return (Words)_mm512_permutexvar_epi16(in_turn, apart);
  }
#endif
  const auto rounded = [](Words all) -> Words { return all + 0x7fffu + ((all >> 16) & 1u); };
  Words low = rounded((Words)even), high = rounded((Words)odd);
#if defined(__AVX512F__)
  const bool has_nan = _mm512_cmp_ps_mask(even, odd, _CMP_UNORD_Q) != 0;
#elif defined(__AVX2__)
  const bool has_nan = _mm256_movemask_ps(_mm256_cmp_ps(even, odd, _CMP_UNORD_Q)) != 0;
#else
  const bool has_nan = true;
#endif
  if (__builtin_expect(has_nan, false)) {
    low = even == even ? low : (Words)even | 0x400000u;
    high = odd == odd ? high : (Words)odd | 0x400000u;
  }
  return (high & 0xffff0000u) | (low >> 16);
}

}  // namespace rmsnorm::RMSNORM_ISA
