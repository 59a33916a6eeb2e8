// What happens to one vector before the square sum and after it, in every form.
#pragma once

#include <type_traits>

#include "scale.cuh"
#include "silu.cuh"

namespace rmsnorm::cuda {

// What a thread keeps of a vector between the two.
template <class T, class S, Form F>
class Held {
 public:
  static constexpr int kCount = kVector<T>;

  // v: what is squared; nothing from element `left` on.
  RMSNORM_DEVICE void take(const Words& x, const Words& second, int left, S* v) {
    if constexpr (F == Form::kSkip) {
      value_ = added(x, second);
      unpack<T>(value_, v);
    } else {
      unpack<T>(x, v);
      value_ = x;
    }
    if constexpr (F == Form::kGated) gate_ = second;
    if constexpr (F == Form::kPreGated) {
      S gate[kCount];
      unpack<T>(second, gate);
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] = multiply(v[i], silu_for<T>(gate[i]));
#pragma unroll
      for (int i = 0; i < kCount; ++i) stash_[i] = v[i];
    }
    if (left >= kCount) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = i < left ? v[i] : S(0);
  }

  // The residual sum.
  RMSNORM_DEVICE const Words& value() const { return value_; }

  // Of element i, reciprocal[i * step].
  RMSNORM_DEVICE Words result(const Task<S>& task, const Spot& spot, const Pair<S>* reciprocal,
                              int step) const {
    S v[kCount], scale[kCount];
    load_scale<kCount>(task, spot, scale);
    if constexpr (F == Form::kPreGated) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] = stash_[i];
    } else {
      unpack<T>(value_, v);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = times(v[i], reciprocal[i * step]);
    round(task.normalized, v);
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = multiply(v[i], scale[i]);
    if constexpr (F == Form::kGated) {
      round(task.scaled, v);
      S gate[kCount];
      unpack<T>(gate_, gate);
#pragma unroll
      for (int i = 0; i < kCount; ++i) v[i] = multiply(v[i], silu_for<T>(gate[i]));
    }
    return packed<T>(v);
  }

 private:
  // X + skip in T: a sum in float rounded once more has the same bits, because float has more than
  // twice the bits of 16-bit types.
  static RMSNORM_DEVICE Words added(const Words& x, const Words& second) {
    using A = std::conditional_t<sizeof(T) == 8, double, float>;
    A a[kCount], b[kCount];
    unpack<T>(x, a);
    unpack<T>(second, b);
#pragma unroll
    for (int i = 0; i < kCount; ++i) a[i] = add(a[i], b[i]);
    return packed<T>(a);
  }

  // The second half takes most of the rounding of the reciprocal out of results as wide as S;
  // narrower ones do not see it.
  static RMSNORM_DEVICE S times(S v, Pair<S> reciprocal) {
    if constexpr (sizeof(T) < sizeof(S)) return multiply(v, reciprocal.high);
    return fused(v, reciprocal.high, multiply(v, reciprocal.low));
  }

  static RMSNORM_DEVICE void round(Element type, S* v) {
    if (size_of(type) >= int64_t(sizeof(S))) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = rounded(type, v[i]);
  }

  Words value_;
  Words gate_;
  S stash_[kCount];
};

}  // namespace rmsnorm::cuda
