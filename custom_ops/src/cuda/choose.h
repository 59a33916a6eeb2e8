// From the types and the form of a problem to what kernels are compiled for.
#pragma once

#include <type_traits>

#include "../kernel.h"

namespace rmsnorm::cuda {

// The one stash type that rows of T are held in registers for, as plan() has it: what models use.
template <class T>
using HeldStash = std::conditional_t<sizeof(T) == 8, double, float>;

template <class Type, class Stash, Form kTheForm>
struct Choice {
  using T = Type;
  using S = Stash;
  static constexpr Form kForm = kTheForm;
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
