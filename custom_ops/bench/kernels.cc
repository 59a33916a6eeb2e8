// Speed of the bare kernels beside a copy of as many bytes, with Google Benchmark:
//   make bench BENCH='--benchmark_filter=plain/float32 --benchmark_repetitions=5'
// RMSNORM_ONNX_ISA picks the instruction set. Bytes per second count reads and writes.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "dispatch.h"
#include "layout.h"

using namespace rmsnorm;

namespace {

struct FormName {
  const char* name;
  Form form;
  int reads, writes;  // arrays of the shape of X
};
constexpr FormName kForms[] = {{"plain", Form::kPlain, 1, 1},
                               {"skip", Form::kSkip, 2, 2},
                               {"gated", Form::kGated, 2, 1},
                               {"pregated", Form::kPreGated, 2, 1}};

struct ElementName {
  const char* name;
  Element element;
};
constexpr ElementName kElements[] = {{"float32", Element::kFloat32},
                                     {"float16", Element::kFloat16},
                                     {"bfloat16", Element::kBFloat16},
                                     {"float64", Element::kFloat64}};

// Bytes read and written by one call: within the cache of that name on a server core.
struct Place {
  const char* name;
  int64_t bytes;
};
constexpr Place kPlaces[] = {
    {"L1", 24 << 10}, {"L2", 512 << 10}, {"L3", 6 << 20}, {"DRAM", 256 << 20}};

constexpr int64_t kWidths[] = {64, 128, 1024, 4096, 16384};

// Memory at the start of a cache line, as onnxruntime allocates it, every byte written.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) : data_(std::aligned_alloc(64, size_t(bytes + 63) / 64 * 64)) {
    // 0x3C3C is a number near 1 in every type, and no slow one.
    std::memset(data_.get(), 0x3C, size_t(bytes));
  }
  void* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  std::unique_ptr<void, Free> data_;
};

int64_t rows_of(const FormName& form, Element element, const Place& place, int64_t width) {
  return place.bytes / (width * size_of(element) * (form.reads + form.writes));
}

void kernel(benchmark::State& state, FormName form, Element element, Place place, int64_t width) {
  std::string error;
  const KernelSet* kernels = select_kernel_set(&error);
  const int64_t rows = rows_of(form, element, place, width);
  Problem problem;
  if (kernels) error = plan_layout(Shape{rows, width}, Shape{1}, Shape{width}, &problem.layout);
  if (!error.empty()) {
    state.SkipWithError(error.c_str());
    return;
  }
  const int64_t bytes = rows * width * size_of(element);
  std::vector<Buffer> arrays;
  for (int i = 0; i < form.reads + form.writes; ++i) arrays.emplace_back(bytes);
  const Element stash = element == Element::kFloat64 ? Element::kFloat64 : Element::kFloat32;
  const Buffer scale(width * size_of(stash));
  problem.form = form.form;
  problem.type = element;
  problem.settings.epsilon = 1e-5;
  problem.settings.stash = problem.settings.normalized = problem.settings.scaled = stash;
  problem.x = arrays[0].get();
  problem.second = form.reads > 1 ? arrays[1].get() : nullptr;
  problem.scale = scale.get();
  problem.y = arrays[size_t(form.reads)].get();
  problem.sum = form.writes > 1 ? arrays.back().get() : nullptr;
  problem.streaming = should_stream(problem, true);
  for (auto _ : state) {
    kernels->run(problem, 0, problem.layout.items());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * bytes * (form.reads + form.writes));
  state.SetLabel(kernels->name);
}

void copy(benchmark::State& state, Place place) {
  const Buffer source(place.bytes / 2), target(place.bytes / 2);
  for (auto _ : state) {
    std::memcpy(target.get(), source.get(), size_t(place.bytes / 2));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * place.bytes);
}

void register_all() {
  for (const Place& place : kPlaces) {
    benchmark::RegisterBenchmark((std::string("copy/") + place.name).c_str(),
                                 [=](benchmark::State& state) { copy(state, place); });
    for (const FormName& form : kForms) {
      for (const ElementName& type : kElements) {
        for (const int64_t width : kWidths) {
          if (rows_of(form, type.element, place, width) == 0) continue;
          const std::string name = std::string(form.name) + "/" + type.name + "/" + place.name +
                                   "/" + std::to_string(width);
          benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
            kernel(state, form, type.element, place, width);
          });
        }
      }
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  register_all();
  benchmark::Initialize(&count, arguments);
  if (benchmark::ReportUnrecognizedArguments(count, arguments)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
