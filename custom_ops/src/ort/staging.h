// What a built-in operator asks for and no kernel does: Y of another type than X, a residual sum of
// three or of tensors of unlike shapes. Done before and after the kernel, on the same few rows.
#pragma once

#include "../bytes.h"
#include "../kernel.h"

namespace rmsnorm::ort {

class Staging {
 public:
  explicit Staging(const KernelSet& kernels) : kernels_(kernels) {}

  // The problem's Y becomes of `result`: the kernel computes in the stash type, X converted.
  void retype(Problem* problem, Element result);

  // X + second + bias becomes the sum (or Y) of a plain norm; second repeats after
  // `second_elements`. Added in the stash type and rounded once, as onnxruntime does.
  void add(Problem* problem, int64_t second_elements, const void* bias, int64_t bias_elements);

  // The kernel over items [begin, end) of the problem.
  void run(const Problem& problem, int64_t begin, int64_t end) const;

  bool is_needed() const { return widens_ || adds_; }

  // Columns interleave, so their items cannot be staged one by one.
  bool splits(const Layout& layout) const { return !layout.columns || !is_needed(); }

 private:
  void add_range(int64_t begin, int64_t end) const;

  const KernelSet& kernels_;
  bool widens_ = false;
  bool adds_ = false;
  Bytes scratch_;
  // Not set where nothing is staged, as for nearly every node.
  Element type_;  // of X
  Element stash_;
  Element result_;
  const void* x_;
  const void* second_;
  int64_t second_elements_;
  const void* bias_;
  int64_t bias_elements_;
  void* target_;  // of the first stage
  void* y_;
};

}  // namespace rmsnorm::ort
