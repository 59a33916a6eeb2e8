// From the types and the form of a problem to what kernels are compiled for.
#pragma once

#include "../kernel.h"

namespace rmsnorm::cuda {

template <class Type, class Stash, Form kTheForm>
struct Choice {
  using T = Type;
  using S = Stash;
  static constexpr Form kForm = kTheForm;
  // As plan() has them.
  static constexpr bool kIsCommon = sizeof(T) <= sizeof(S) && sizeof(S) <= 2 * sizeof(T);
  static constexpr bool kHoldsTwo =
      kForm == Form::kGated || (kForm == Form::kPreGated && sizeof(T) != sizeof(S));
};

template <class T, class S, class Body>
auto choose_form(Form form, Body body) {
  switch (form) {
    case Form::kPlain:
      return body(Choice<T, S, Form::kPlain>{});
    case Form::kSkip:
      return body(Choice<T, S, Form::kSkip>{});
    case Form::kGated:
      return body(Choice<T, S, Form::kGated>{});
    default:
      return body(Choice<T, S, Form::kPreGated>{});
  }
}

// body(Choice<T, ...>{})
template <class T, class Body>
auto choose(const Problem& p, Body body) {
  return p.settings.stash == Element::kFloat64 ? choose_form<T, double>(p.form, body)
                                               : choose_form<T, float>(p.form, body);
}

}  // namespace rmsnorm::cuda
