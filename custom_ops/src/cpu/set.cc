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

template <class T, class S>
void run_typed(const Problem& p, int64_t begin, int64_t end) {
  p.layout.columns ? columns<T, S>(p, begin, end) : rows<T, S>(p, begin, end);
}

template <class S>
void run_stashed(const Problem& p, int64_t begin, int64_t end) {
  switch (p.type) {
    case Element::kFloat32:
      return run_typed<float, S>(p, begin, end);
    case Element::kFloat16:
      return run_typed<Half, S>(p, begin, end);
    case Element::kBFloat16:
      return run_typed<BFloat16, S>(p, begin, end);
    case Element::kFloat64:
      return run_typed<double, S>(p, begin, end);
  }
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

void run(const Problem& p, int64_t begin, int64_t end) {
  p.settings.stash == Element::kFloat64 ? run_stashed<double>(p, begin, end)
                                        : run_stashed<float>(p, begin, end);
}

}  // namespace

#define RMSNORM_NAME_OF(isa) #isa
#define RMSNORM_NAME(isa) RMSNORM_NAME_OF(isa)

extern const KernelSet kKernels;
const KernelSet kKernels = {RMSNORM_NAME(RMSNORM_ISA), run, convert};

}  // namespace rmsnorm::RMSNORM_ISA
