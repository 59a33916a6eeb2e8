// The entry points of one instruction set: from run-time element types to compiled kernels.
#include "kernels.h"

namespace rmsnorm::RMSNORM_ISA {
namespace {

template <bool kDouble>
struct Stash {
  using Type = float;
};
template <>
struct Stash<true> {
  using Type = double;
};
template <bool kDouble>
using StashOf = typename Stash<kDouble>::Type;

// The C++ types of a problem, as a value.
template <class T, class S>
struct Types {
  using X = T;
  using Stash = S;
};

template <class S, class Body>
inline void with_stash(Element type, Body body) {
  switch (type) {
    case Element::kFloat32:
      return body(Types<float, S>{});
    case Element::kFloat16:
      return body(Types<Half, S>{});
    case Element::kBFloat16:
      return body(Types<BFloat16, S>{});
    case Element::kFloat64:
      return body(Types<double, S>{});
  }
}

template <class Body>
inline void with_types(const Problem& p, Body body) {
  p.settings.stash == Element::kFloat64 ? with_stash<double>(p.type, body)
                                        : with_stash<float>(p.type, body);
}

void run(const Problem& p, int64_t begin, int64_t end) {
  with_types(p, [&](auto types) {
    run_layout<typename decltype(types)::X, typename decltype(types)::Stash>(p, begin, end);
  });
}

void run_sum_chunks(const Problem& p, int64_t begin, int64_t end, double* sums) {
  with_types(p, [&](auto types) {
    sum_chunks<typename decltype(types)::X, typename decltype(types)::Stash>(p, begin, end, sums);
  });
}

void run_finish_chunks(const Problem& p, int64_t begin, int64_t end, const double* sums) {
  with_types(p, [&](auto types) {
    finish_chunks<typename decltype(types)::X, typename decltype(types)::Stash>(p, begin, end,
                                                                                sums);
  });
}

template <class From, class To>
void convert_typed(const void* source, void* target, int64_t count) {
  // Float holds every narrower type; to or from double, the conversion is one of double.
  using S = StashOf<sizeof(From) == 8 || sizeof(To) == 8>;
  const From* from = static_cast<const From*>(source);
  To* to = static_cast<To*>(target);
  int64_t i = 0;
  for (; i + kWidth<S> <= count; i += kWidth<S>) store<S>(to + i, load<S>(from + i));
  const int rest = int(count - i);
  if (rest > 0) store<S>(to + i, load<S>(from + i, rest), rest);
}

template <class To>
void convert_to(Element from, const void* source, void* target, int64_t count) {
  switch (from) {
    case Element::kFloat32:
      return convert_typed<float, To>(source, target, count);
    case Element::kFloat16:
      return convert_typed<Half, To>(source, target, count);
    case Element::kBFloat16:
      return convert_typed<BFloat16, To>(source, target, count);
    case Element::kFloat64:
      return convert_typed<double, To>(source, target, count);
  }
}

void convert(Element from, const void* source, Element to, void* target, int64_t count) {
  switch (to) {
    case Element::kFloat32:
      return convert_to<float>(from, source, target, count);
    case Element::kFloat16:
      return convert_to<Half>(from, source, target, count);
    case Element::kBFloat16:
      return convert_to<BFloat16>(from, source, target, count);
    case Element::kFloat64:
      return convert_to<double>(from, source, target, count);
  }
}

}  // namespace

#define RMSNORM_NAME_OF(isa) #isa
#define RMSNORM_NAME(isa) RMSNORM_NAME_OF(isa)

extern const KernelSet kKernels;
const KernelSet kKernels = {RMSNORM_NAME(RMSNORM_ISA), run, run_sum_chunks, run_finish_chunks,
                            convert};

}  // namespace rmsnorm::RMSNORM_ISA
