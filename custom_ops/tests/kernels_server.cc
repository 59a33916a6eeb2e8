// The interface of kernels_abi.cc for a process of another architecture: memory is a file that both
// sides map, a request is a line on stdin, its answer a line on stdout. Pointers in a request are
// offsets into that memory, 0 for null.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "kernels_abi.h"

namespace {

char* memory;

template <class T>
void relocate(T** pointer) {
  const auto offset = reinterpret_cast<uintptr_t>(*pointer);
  *pointer = offset ? reinterpret_cast<T*>(memory + offset) : nullptr;
}

const char* run(const char* isa, TestProblem problem) {
  relocate(&problem.shape);
  relocate(&problem.axes);
  relocate(&problem.scale_shape);
  relocate(&problem.x);
  relocate(&problem.second);
  relocate(&problem.scale);
  relocate(&problem.y);
  relocate(&problem.sum);
  return rmsnorm_test_run(isa, &problem);
}

// Three lists, each after its length.
const char* layout(const int64_t* lists) {
  const int64_t* x = lists + 1;
  const int64_t* axes = x + lists[0] + 1;
  const int64_t* scale = axes + axes[-1] + 1;
  return rmsnorm_test_layout(x, lists[0], axes, axes[-1], scale, scale[-1]);
}

}  // namespace

int main(int argc, char** argv) {
  const int file = argc > 1 ? open(argv[1], O_RDWR) : -1;
  struct stat facts;
  if (file < 0 || fstat(file, &facts)) return 2;
  void* mapped = mmap(nullptr, size_t(facts.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) return 2;
  memory = static_cast<char*>(mapped);
  char line[256];
  while (std::fgets(line, sizeof line, stdin)) {
    char what[16] = "", isa[64] = "";
    std::sscanf(line, "%15s %63s", what, isa);
    const char* answer = rmsnorm_test_isas();
    if (!std::strcmp(what, "layout")) answer = layout(reinterpret_cast<int64_t*>(memory + 64));
    if (!std::strcmp(what, "run")) {
      TestProblem problem;
      std::memcpy(&problem, memory + 64, sizeof problem);
      answer = run(std::strcmp(isa, "-") ? isa : "", problem);
    }
    std::printf("%s\n", answer);
    std::fflush(stdout);
  }
  return 0;
}
