// What happens to one vector of elements in the two passes over a norm, whatever the layout.
#pragma once

#include "reciprocal.h"
#include "silu.h"

namespace rmsnorm::RMSNORM_ISA {

template <class T, class S>
struct Stage {
  static constexpr bool kExact = __is_same(T, S);  // T holds unrounded values
  Form form;
  Element normalized;
  Element scaled;
  const T* x;
  const T* second;
  T* y;
  // What pass 1 leaves for pass 2: the residual sum, or where T holds it unrounded X * silu(gate),
  // or silu(gate).
  T* kept;
  const T* again;  // where pass 2 finds v, null if it must be computed anew
  // What pass 1 leaves where T does not hold X * silu(gate): a ring over the offsets of elements.
  S* held = nullptr;
  static constexpr int64_t kHeld = 128 * 1024 / int64_t(sizeof(S));  // on the stack, read from L2
  static constexpr int64_t kRing = kHeld + 2 * kWidth<S>;            // two registers may stand out

  explicit Stage(const Problem& p)
      : form(p.form),
        normalized(p.settings.normalized),
        scaled(p.settings.scaled),
        x(static_cast<const T*>(p.x)),
        second(static_cast<const T*>(p.second)),
        y(static_cast<T*>(p.y)),
        kept(nullptr),
        again(x) {
    if (form == Form::kSkip) again = kept = static_cast<T*>(p.sum ? p.sum : p.y);
    if (form == Form::kPreGated) again = kept = kExact ? y : nullptr;
  }

  // Whether passes are compiled for the simplest case by itself. No model has 16 bits in double or
  // double in float: they take up to 1.25 times as long, and the compiler a fifth less.
  static constexpr bool kIsCommon = sizeof(T) <= sizeof(S) && sizeof(S) <= 2 * sizeof(T);

  // Moves on by so many elements.
  void advance(int64_t elements) {
    x = in_register(x + elements);
    y = in_register(y + elements);
    again = in_register(again + elements);
    if (second) second = in_register(second + elements);
    if (kept) kept = in_register(kept + elements);
  }

  // True when pass 2 is x * reciprocal * scale and nothing else.
  bool is_simple() const {
    return kIsCommon && form != Form::kGated && again && size_of(normalized) >= int64_t(sizeof(S));
  }

  // True when pass 2 gates, or finds gated values, and rounds nothing but Y.
  bool is_gated() const {
    return (form == Form::kGated || held) && size_of(normalized) >= int64_t(sizeof(S)) &&
           size_of(scaled) >= int64_t(sizeof(S));
  }

  // Pass 1: the value whose square is summed.
  template <Form F, class Count = Full>
  V<S> first(int64_t at, Count count = {}) const {
    if constexpr (F == Form::kSkip) {
      return residual_sum(at, count);
    } else if constexpr (F == Form::kPreGated) {
      const V<S> v = gated_input(at, count);
      if (kept) store<S>(kept + at, v, count);
      return v;
    } else {
      if constexpr (F == Form::kGated) store<S>(kept + at, silu_of_gate(at, count), count);
      return load<S>(x + at, count);
    }
  }

  // The values of two registers, in the order of load_two.
  template <Form F>
  void first_two(int64_t at, V<S>* v) const {
    if constexpr (F == Form::kPlain) {
      load_two<S>(x + at, v);
    } else if constexpr (F == Form::kSkip && !kByParity<S, T>) {
      v[0] = first<F>(at);
      v[1] = first<F>(at + kWidth<S>);
    } else {
      V<S> other[2];
      load_two<S>(x + at, v);
      load_two<S>(second + at, other);
      [[maybe_unused]] const auto gate = [&]() __attribute__((always_inline)) {
        constexpr int n = kTogether / 2;
#pragma GCC unroll 2
        for (int k = 0; k < 2; k += n) silu<S, T, n>(other + k);
      };
      if constexpr (F == Form::kSkip) {
        const Words sum = bfloat16_words(v[0] + other[0], v[1] + other[1]);
        if (kept) store_raw(kept + at, sum);
        v[0] = even_floats(sum);
        v[1] = odd_floats(sum);
      } else if constexpr (F == Form::kGated) {
        gate();
        store_two<S>(kept + at, other, Full{});
      } else {
        gate();
        v[0] *= other[0];
        v[1] *= other[1];
        if (kept) store_two<S>(kept + at, v, Full{});
        if (held) hold(at, v);
      }
    }
  }

  // Pass 2: the same value once more; kAnew where pass 1 kept nothing of the residual sum.
  template <bool kSimple, bool kAnew = false, class Count = Full>
  V<S> value(int64_t at, Count count = {}) const {
    if constexpr (kAnew) return residual_sum(at, count);
    if constexpr (kSimple) return load<S>(again + at, count);
    return again ? load<S>(again + at, count) : gated_input(at, count);
  }

  template <bool kAnew>
  void simple_two(int64_t at, V<S>* v) const {
    if constexpr (kAnew) {
      v[0] = residual_sum(at, Full{});
      v[1] = residual_sum(at + kWidth<S>, Full{});
    } else {
      load_two<S>(again + at, v);
    }
  }

  // The value normalized and scaled.
  template <bool kSimple, class Count = Full>
  V<S> result(int64_t at, V<S> v, const Reciprocal<T, S>& reciprocal, V<S> scale,
              Count count = {}) const {
    const V<S> normal = reciprocal.times(v);
    if constexpr (kSimple) return normal * scale;
    const V<S> full = round_to<S>(normalized, normal) * scale;
    if (form != Form::kGated) return full;
    const V<S> gate = kExact && kept ? load<S>(kept + at, count) : silu_of_gate(at, count);
    return round_to<S>(scaled, full) * gate;
  }

  // Pass 2 of n registers where is_gated().
  template <int n, class Store>
  void finish_gated(int64_t at, const Reciprocal<T, S>& reciprocal, const V<S>* scale) const {
    const bool holds = !kExact && held, keeps = kExact && kept;
    V<S> v[n];
#pragma GCC unroll 2
    for (int k = 0; k < n; k += 2) {
      const int64_t here = at + k * kWidth<S>;
      if (holds) {
        const S* const ring = held + (here & (kHeld - 1));
        v[k] = load<S>(ring);
        v[k + 1] = load<S>(ring + kWidth<S>);
      } else {
        load_two<S>(x + here, v + k);
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < n; ++k) v[k] = reciprocal.times(v[k]) * scale[k];
    if (!holds) {
      V<S> gate[n];
#pragma GCC unroll 2
      for (int k = 0; k < n; k += 2) {
        load_two<S>((keeps ? kept : second) + at + k * kWidth<S>, gate + k);
      }
      if (!keeps) silu<S, T, n>(gate);
#pragma GCC unroll 4
      for (int k = 0; k < n; ++k) v[k] *= gate[k];
    }
#pragma GCC unroll 2
    for (int k = 0; k < n; k += 2) store_two<S>(y + at + k * kWidth<S>, v + k, Store{});
  }

  template <bool kSimple, class Count = Full>
  void finish(int64_t at, const Reciprocal<T, S>& reciprocal, V<S> scale, Count count = {}) const {
    const V<S> v = value<kSimple>(at, count);
    store<S>(y + at, result<kSimple>(at, v, reciprocal, scale, count), count);
  }

 private:
  void hold(int64_t at, const V<S>* v) const {
    S* const ring = held + (at & (kHeld - 1));
    store<S>(ring, v[0]);
    store<S>(ring + kWidth<S>, v[1]);
  }

  template <class Count>
  V<S> silu_of_gate(int64_t at, Count count) const {
    return silu<S, T>(load<S>(second + at, count));
  }

  template <class Count>
  V<S> gated_input(int64_t at, Count count) const {
    return load<S>(x + at, count) * silu_of_gate(at, count);
  }

  // X + skip is rounded to T, as the graph's Add does. A sum of two T in S and one more rounding
  // give the same bits, because S has more than twice the bits of a narrower T; only double has to
  // be added in double.
  template <class Count>
  V<S> residual_sum(int64_t at, Count count) const {
    if constexpr (__is_same(T, double) && __is_same(S, float)) {
      for (int i = 0; i < lanes(count); ++i) kept[at + i] = x[at + i] + second[at + i];
      return load<S>(kept + at, count);
    } else {
      const V<S> sum = load<S>(x + at, count) + load<S>(second + at, count);
      if (kept) store<S>(kept + at, sum, count);
      if constexpr (__is_same(T, S)) return sum;
      return through<T, S>(sum);
    }
  }

  static int lanes(Full) { return kWidth<S>; }
  static int lanes(int count) { return count; }
};

// What a pass over a norm is compiled for.
template <Form F, bool kIsSimple>
struct Choice {
  static constexpr Form kForm = F;
  static constexpr bool kSimple = kIsSimple;
};

// body(Choice<...>{}) for what this stage does.
template <class T, class S, class Body>
inline void choose(const Stage<T, S>& stage, Body body) {
  const auto with = [&](auto choice) {
    using C = decltype(choice);
    if constexpr (Stage<T, S>::kIsCommon) {
      if (stage.is_simple()) return body(Choice<C::kForm, true>{});
    }
    body(choice);
  };
  switch (stage.form) {
    case Form::kPlain:
      return with(Choice<Form::kPlain, false>{});
    case Form::kSkip:
      return with(Choice<Form::kSkip, false>{});
    case Form::kGated:
      if constexpr (__is_same(T, S)) {
        if (stage.kept) return body(Choice<Form::kGated, false>{});
      }
      return body(Choice<Form::kPlain, false>{});  // pass 1 does not see the gate
    case Form::kPreGated:
      return with(Choice<Form::kPreGated, false>{});
  }
}

}  // namespace rmsnorm::RMSNORM_ISA
