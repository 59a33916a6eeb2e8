#include "kernels_abi.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "bytes.h"
#include "dispatch.h"
#include "ort/company.h"
#include "test_problem.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

using namespace rmsnorm;

namespace {

double nanoseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start).count();
}

// body(kernels, problem), or the text of what is wrong with the problem.
template <class Body>
std::string with_problem(const char* isa, const TestProblem& t, Body body) {
  std::string error;
  const KernelSet* kernels = select_kernel_set(isa, &error);
  if (!kernels) return error;
  Problem p;
  error = to_problem(t, &p);
  if (!error.empty()) return error;
  const int64_t count = p.layout.scale_elements;
  const Bytes converted = make_bytes(count * size_of(p.settings.stash));
  if (t.scale) {
    kernels->convert(Element(t.scale_type), t.scale, p.settings.stash, converted.get(), count);
    p.scale = converted.get();
    if (Element(t.scale_type) == p.type) p.own_scale = t.scale;
  }
  p.streaming = t.streaming < 0 ? should_stream(p, true) : t.streaming > 0;
  body(*kernels, p);
  return "";
}

// body(begin, end) for all of [0, count) in steps, which threads take in turn, the last one first.
template <class Body>
void spread(int64_t count, int64_t step, int threads, Body body) {
  const int64_t parts = (count + step - 1) / step;
  const auto take = [&](int64_t turn) {
    for (int64_t part = parts - 1 - turn; part >= 0; part -= threads) {
      body(part * step, std::min(count, (part + 1) * step));
    }
  };
  std::vector<std::thread> others;
  for (int turn = 1; turn < threads; ++turn) others.emplace_back(take, turn);
  take(0);
  for (std::thread& other : others) other.join();
}

void run_chunks(const KernelSet& kernels, const Problem& p, int64_t step, int threads) {
  const int64_t chunks = p.layout.chunks(), all = p.layout.items() * chunks;
  std::vector<double> sums(static_cast<size_t>(all));
  const auto each = [&](auto half) {
    spread(all, step, threads, [&](int64_t begin, int64_t end) {
      half(p, begin, end, sums.data() + begin / chunks * chunks);
    });
  };
  each(kernels.sum_chunks);
  each(kernels.finish_chunks);
}

void copy_streaming(void* to, const void* from, int64_t bytes) {
#ifdef __SSE2__
  const auto* source = static_cast<const __m128i*>(from);
  auto* target = static_cast<__m128i*>(to);
  for (int64_t i = 0; i + 4 <= bytes / 16; i += 4) {
    const __m128i a = _mm_loadu_si128(source + i), b = _mm_loadu_si128(source + i + 1),
                  c = _mm_loadu_si128(source + i + 2), d = _mm_loadu_si128(source + i + 3);
    _mm_stream_si128(target + i, a);
    _mm_stream_si128(target + i + 1, b);
    _mm_stream_si128(target + i + 2, c);
    _mm_stream_si128(target + i + 3, d);
  }
  _mm_sfence();
#else
  std::memcpy(to, from, size_t(bytes));
#endif
}

}  // namespace

const char* rmsnorm_test_isas() {
  std::string names;
  for (const KernelSet* set : supported_kernel_sets()) names += std::string(" ") + set->name;
  return say(names);
}

const char* rmsnorm_test_run(const char* isa, const TestProblem* t) {
  return say(with_problem(isa, *t, [&](const KernelSet& kernels, const Problem& p) {
    if (t->split < 0) return run_chunks(kernels, p, -t->split, std::max(1, t->threads));
    const int64_t items = p.layout.items();
    const int64_t step = t->split > 0 ? t->split : items + 1;
    spread(items, step, std::max(1, t->threads),
           [&](int64_t begin, int64_t end) { kernels.run(p, begin, end); });
  }));
}

int32_t rmsnorm_test_streams(const TestProblem* t, int32_t alone) {
  Problem p;
  return to_problem(*t, &p).empty() ? should_stream(p, alone != 0) : -1;
}

void rmsnorm_test_company(const int64_t* bytes, const int32_t* others, int64_t calls,
                          int32_t* split) {
  ort::Company company;
  for (int64_t i = 0; i < calls; ++i) {
    split[i] = !company.stays_away(bytes[i]);
    if (split[i]) company.saw(bytes[i], others[i] != 0);
  }
}

double rmsnorm_bench_kernel(const char* isa, const TestProblem* t, int64_t repeats) {
  double took = -1;
  with_problem(isa, *t, [&](const KernelSet& kernels, const Problem& p) {
    const int64_t items = p.layout.items();
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < repeats; ++i) kernels.run(p, 0, items);
    took = nanoseconds_since(start);
  });
  return took;
}

double rmsnorm_bench_copy(void* to, const void* from, int64_t bytes, int32_t streaming,
                          int64_t repeats) {
  const auto start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < repeats; ++i) {
    streaming ? copy_streaming(to, from, bytes) : (void)std::memcpy(to, from, size_t(bytes));
    asm volatile("" : : "r"(to) : "memory");  // or the loop would be one copy
  }
  return nanoseconds_since(start);
}

const char* rmsnorm_test_layout(const int64_t* x, int64_t rank, const int64_t* axes,
                                int64_t axis_count, const int64_t* scale, int64_t scale_rank) {
  Layout layout;
  const std::string error = plan_layout(Dims(x, size_t(rank)), Dims(axes, size_t(axis_count)),
                                        Dims(scale, size_t(scale_rank)), &layout);
  if (!error.empty()) return say(error);
  return say(std::string(layout.columns ? "columns" : "rows") + " kept " +
             std::to_string(layout.kept.rank) + " reduced " + std::to_string(layout.reduced.rank) +
             " inner " + std::to_string(layout.inner) + " step " +
             std::to_string(layout.inner_scale) + " averaged " + std::to_string(layout.averaged));
}
