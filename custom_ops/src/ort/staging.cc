#include "staging.h"

#include <algorithm>

namespace rmsnorm::ort {
namespace {

// Elements that are added at once: four buffers of doubles fill half of L1.
constexpr int64_t kPiece = 512;

const void* at(const void* base, Element type, int64_t index) {
  return static_cast<const char*>(base) + index * size_of(type);
}

void* at(void* base, Element type, int64_t index) {
  return static_cast<char*>(base) + index * size_of(type);
}

// a[i] += b[i]
void accumulate(Element type, void* a, const void* b, int64_t count) {
  if (type == Element::kFloat64) {
    for (int64_t i = 0; i < count; ++i)
      static_cast<double*>(a)[i] += static_cast<const double*>(b)[i];
  } else {
    for (int64_t i = 0; i < count; ++i)
      static_cast<float*>(a)[i] += static_cast<const float*>(b)[i];
  }
}

}  // namespace

void Staging::retype(Problem* problem, Element result) {
  widens_ = true;
  type_ = problem->type;
  stash_ = problem->settings.stash;
  result_ = result;
  x_ = problem->x;
  y_ = target_ = problem->y;
  if (result_ != stash_) {
    const Layout& layout = problem->layout;
    const int64_t norms = layout.kept.count * (layout.columns ? layout.inner : 1);
    scratch_ = make_bytes(norms * layout.averaged * size_of(stash_));
    target_ = scratch_.get();
  }
  problem->type = stash_;
  problem->x = problem->y = target_;
}

void Staging::add(Problem* problem, int64_t second_elements, const void* bias,
                  int64_t bias_elements) {
  adds_ = true;
  type_ = problem->type;
  stash_ = problem->settings.stash;
  x_ = problem->x;
  second_ = problem->second;
  second_elements_ = second_elements;
  bias_ = bias;
  bias_elements_ = bias_elements;
  target_ = problem->sum ? problem->sum : problem->y;
  problem->form = Form::kPlain;
  problem->x = target_;
  problem->second = problem->sum = nullptr;
}

void Staging::add_range(int64_t begin, int64_t end) const {
  alignas(64) double sum[kPiece], addend[kPiece];
  const auto plus = [&](const void* values, int64_t index, int64_t count) {
    kernels_.convert(type_, at(values, type_, index), stash_, addend, count);
    accumulate(stash_, sum, addend, count);
  };
  while (begin < end) {
    const int64_t second = begin % second_elements_, bias = begin % bias_elements_;
    int64_t count = std::min({kPiece, end - begin, second_elements_ - second});
    if (bias_) count = std::min(count, bias_elements_ - bias);
    kernels_.convert(type_, at(x_, type_, begin), stash_, sum, count);
    plus(second_, second, count);
    if (bias_) plus(bias_, bias, count);
    kernels_.convert(stash_, sum, type_, at(target_, type_, begin), count);
    begin += count;
  }
}

void Staging::run(const Problem& problem, int64_t begin, int64_t end) const {
  const Layout& layout = problem.layout;
  const int64_t norm = layout.averaged;
  const int64_t norms = layout.columns ? layout.kept.count * layout.inner : end - begin;
  const int64_t first = layout.columns ? 0 : begin * norm;
  const int64_t count = norms * norm;
  if (adds_) add_range(first, first + count);
  if (widens_) {
    kernels_.convert(type_, at(x_, type_, first), stash_, at(target_, stash_, first), count);
  }
  kernels_.run(problem, begin, end);
  if (scratch_) {
    kernels_.convert(stash_, at(target_, stash_, first), result_, at(y_, result_, first), count);
  }
}

}  // namespace rmsnorm::ort
