// What exp(-z) is computed with on processors and on GPUs.
#pragma once

namespace rmsnorm {

// exp(-r) = 1 - r + r^2 * (kTail[0] + kTail[1] * r + ...) for |r| <= log(2) / 2, the coefficients
// of the least relative error: a twentieth of a rounding for float, a thirtieth for double.
template <class S>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr int kScale = 75;  // half the exponents from 1 to less than the least subnormal
  // Adding it leaves the nearest integer, less kScale, in the last bits.
  static constexpr float kShift = 0x1.8p23f - kScale;
  static constexpr float kLog2E = 0x1.715476p0f;
  static constexpr float kLn2High = 0x1.62e4p-1f;  // 15 bits: its product with any n here is exact
  static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kSmall = 0x1p-75f;               // 2^-kScale
  static constexpr float kLowest = -151.0f * 0.6931472f;  // the sigmoid of less rounds to 0
  static constexpr float kHighest = 50.0f * 0.6931472f;   // the sigmoid of half of it rounds to 1
  static constexpr int kMantissa = 23;
  static constexpr int kTerms = 5;
  static constexpr float kTail[kTerms] = {0x1.fffffcp-2f, -0x1.55549p-3f, 0x1.5558f4p-5f,
                                          -0x1.123a2p-7f, 0x1.6a23c6p-10f};
};

// For results of 16 bits: two roundings of float more, and a tenth less time.
struct ShortExp : ExpConstants<float> {
  static constexpr float kLn2High = 0x1.62e43p-1f;
  static constexpr float kLn2Low = 0;
  static constexpr int kTerms = 4;
  static constexpr float kTail[kTerms] = {0x1.fffdfcp-2f, -0x1.5557bp-3f, 0x1.572a64p-5f,
                                          -0x1.10625p-7f};
};

template <>
struct ExpConstants<double> {
  static constexpr int kScale = 538;
  static constexpr double kShift = 0x1.8p52 - kScale;
  static constexpr double kLog2E = 0x1.71547652b82fep0;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1;  // 42 bits
  static constexpr double kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kSmall = 0x1p-538;
  static constexpr double kLowest = -1076.0 * 0.6931471805599453;
  static constexpr double kHighest = 400.0 * 0.6931471805599453;
  static constexpr int kMantissa = 52;
  static constexpr int kTerms = 10;
  static constexpr double kTail[kTerms] = {
      0x1.000000000000ap-1,  -0x1.55555555554f9p-3,  0x1.555555555083cp-5,  -0x1.1111111127d10p-7,
      0x1.6c16c184391a4p-10, -0x1.a01a012a1027dp-13, 0x1.a01999e1631b3p-16, -0x1.71df25aef329ep-19,
      0x1.28ad9c5ba8c9fp-22, -0x1.ad7f47a3c7beap-26};
};

}  // namespace rmsnorm
