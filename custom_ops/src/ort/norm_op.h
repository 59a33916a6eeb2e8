// The operators as onnxruntime sees them: one CustomOp per operator, device, type of X and type of
// scale.
#pragma once

#include "../kernel.h"
#include "api.h"
#include "spec.h"

namespace rmsnorm::ort {

// Where an operator keeps what it has besides X (input 0) and Y (output 0).
struct Ports {
  static constexpr size_t kNone = SIZE_MAX;

  size_t scale = 1;
  size_t second = kNone;
  size_t bias = kNone;
  size_t sum = kNone;
  size_t mean = kNone;     // of no use for RMS norms, but part of a schema of onnxruntime
  size_t inverse = kNone;  // 1 / root of every norm, always float32
};

// What all overloads of one operator have in common.
struct Kind {
  Form form;
  const spec::Op* spec;
  Ports ports;
  size_t optional_inputs = 0;
  // Drop-in for an operator of ONNX or onnxruntime: one axis that begins the reduced ones, Y of the
  // type of the scale, and few of our attributes.
  bool built_in = false;
  float epsilon = 0;            // default of a built-in one
  bool rounds_to_type = false;  // the normalized value is rounded to the type of X = type of Y
};

enum class Device { kCpu, kCuda };

struct NormOp : CustomOp {
  NormOp(const Api& api, const Kind& kind, Device device, Element type, Element scale_type,
         bool infers_optional);

  Api api;
  Kind is;
  Device device;
  Element type;
  Element scale_type;
  Element result;  // type of Y
  bool infers_optional;
};

// Reports what the library was built from, which instruction sets it may use and which GPU, as JSON
// bytes.
struct InfoOp : CustomOp {
  explicit InfoOp(const Api& api);

  Api api;
};

}  // namespace rmsnorm::ort
