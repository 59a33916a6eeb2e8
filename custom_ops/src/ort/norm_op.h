// The four operators as onnxruntime sees them: one CustomOp per operator, type of X and type of
// scale.
#pragma once

#include "../kernel.h"
#include "api.h"
#include "spec.h"

namespace rmsnorm::ort {

struct NormOp : CustomOp {
  NormOp(const Api& api, Form form, const spec::Op& spec, Element type, Element scale_type,
         bool infers_optional);

  Api api;
  Form form;
  const spec::Op* spec;
  Element type;
  Element scale_type;
  // How many outputs are told their shape, beginning with the first.
  size_t inferred_outputs;

  size_t scale_input() const { return spec->inputs - 1; }
};

// Reports what the library was built from and which instruction sets it may use, as JSON bytes.
struct InfoOp : CustomOp {
  explicit InfoOp(const Api& api);

  Api api;
};

}  // namespace rmsnorm::ort
