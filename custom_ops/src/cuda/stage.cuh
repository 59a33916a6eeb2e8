// What happens to one vector before the square sum and after it, in every form.
#pragma once

#include <type_traits>

#include "element.cuh"
#include "pair.cuh"
#include "silu.cuh"

namespace rmsnorm::cuda {

// The types that Y is rounded to on its way, where they are narrower than the stash type.
struct Rounding {
  Element normalized;
  Element scaled;
  bool after_normalizing;
  bool after_scaling;
};

inline Rounding rounding_of(const Settings& settings) {
  const int64_t stash = size_of(settings.stash);
  return {settings.normalized, settings.scaled, size_of(settings.normalized) < stash,
          size_of(settings.scaled) < stash};
}

// What a thread keeps of a vector between the two, or of the first kCount elements of one.
template <class T, class S, Form F, int kCount = kVector<T>>
class Held {
 public:
  // v: what is squared.
  RMSNORM_DEVICE void take(const Words& x, const Words& second, S* v) {
    value_ = F == Form::kSkip ? added(x, second) : x;
    unpack<T, kCount>(value_, v);
    if constexpr (F == Form::kGated) gate_ = second;
    if constexpr (F == Form::kPreGated) {
      S gate[kCount];
      unpack<T, kCount>(second, gate);
#pragma unroll
      for (int i = 0; i < kCount; ++i) stash_[i] = v[i] = multiply(v[i], silu_for<T>(gate[i]));
    }
  }

  // The residual sum.
  RMSNORM_DEVICE const Words& value() const { return value_; }

  // Element i is multiplied by reciprocal[i * step].
  RMSNORM_DEVICE Words result(const Rounding& rounding, const S* scale,
                              const Precise<T, S>* reciprocal, int step) const {
    S v[kCount];
    if constexpr (F == Form::kPreGated) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] = stash_[i];
    } else {
      unpack<T, kCount>(value_, v);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = times(v[i], reciprocal[i * step]);
    if (rounding.after_normalizing) round(rounding.normalized, v);
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = multiply(v[i], scale[i]);
    if constexpr (F == Form::kGated) {
      if (rounding.after_scaling) round(rounding.scaled, v);
      S gate[kCount];
      unpack<T, kCount>(gate_, gate);
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] = multiply(v[i], silu_for<T>(gate[i]));
    }
    return packed<T, kCount>(v);
  }

 private:
  // X + skip in T: a sum in float rounded once more has the same bits, because float has more than
  // twice the bits of 16-bit types.
  static RMSNORM_DEVICE Words added(const Words& x, const Words& second) {
    using A = std::conditional_t<sizeof(T) == 8, double, float>;
    A a[kCount], b[kCount];
    unpack<T, kCount>(x, a);
    unpack<T, kCount>(second, b);
#pragma unroll
    for (int i = 0; i < kCount; ++i) a[i] = add(a[i], b[i]);
    return packed<T, kCount>(a);
  }

  // The second half takes most of the rounding of the reciprocal out.
  static RMSNORM_DEVICE S times(S v, Pair<S> reciprocal) {
    return fused(v, reciprocal.high, multiply(v, reciprocal.low));
  }
  static RMSNORM_DEVICE S times(S v, S reciprocal) { return multiply(v, reciprocal); }

  static RMSNORM_DEVICE void round(Element type, S* v) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = rounded(type, v[i]);
  }

  Words value_;
  Words gate_;
  S stash_[kCount];
};

}  // namespace rmsnorm::cuda
