#include "attributes.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "spec.h"

namespace rmsnorm::ort {
namespace {

std::string to_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

// Reads attributes by the type that spec.h gives them; an absent one is its default.
class Reader {
 public:
  Reader(const Api& api, const KernelInfo* info) : api_(api), info_(info) {}

  double read(const spec::Attribute<float>& attribute) const {
    float value = 0;
    if (api_.try_call<Slot::KernelInfoGetAttribute_float>(info_, attribute.name, &value)) {
      return value;
    }
    expect_absent(attribute, "FLOAT");
    return attribute.value;
  }

  int64_t read(const spec::Attribute<int64_t>& attribute) const {
    int64_t value = 0;
    if (api_.try_call<Slot::KernelInfoGetAttribute_int64>(info_, attribute.name, &value)) {
      return value;
    }
    expect_absent(attribute, "INT");
    return attribute.value;
  }

  Shape read(const spec::Attribute<spec::Ints>& attribute) const {
    size_t count = 0;
    constexpr auto kSlot = Slot::KernelInfoGetAttributeArray_int64;
    if (api_.try_call<kSlot>(info_, attribute.name, static_cast<int64_t*>(nullptr), &count)) {
      // Attributes of other types read as an empty list.
      if (count == 0) expect_no_other_type(attribute.name, "INTS");
      Shape values(count);
      if (count > 0) api_.call<kSlot>(info_, attribute.name, values.data(), &count);
      return values;
    }
    expect_absent(attribute, "INTS");
    return Shape(attribute.value.values, attribute.value.values + attribute.value.count);
  }

 private:
  // onnxruntime answers "absent" and "of another type" alike, so other types are tried; read as
  // INTS, an attribute of any type succeeds.
  template <class Value>
  void expect_absent(const spec::Attribute<Value>& attribute, const char* expected) const {
    expect_no_other_type(attribute.name, expected);
    if (attribute.required) refuse(attribute.name, expected, "none");
  }

  void expect_no_other_type(const char* name, const char* expected) const {
    float real = 0;
    int64_t integer = 0;
    size_t size = 0;
    char* no_text = nullptr;
    if (api_.try_call<Slot::KernelInfoGetAttribute_float>(info_, name, &real)) {
      refuse(name, expected, "a FLOAT");
    }
    if (api_.try_call<Slot::KernelInfoGetAttribute_int64>(info_, name, &integer)) {
      refuse(name, expected, "an INT");
    }
    if (api_.try_call<Slot::KernelInfoGetAttribute_string>(info_, name, no_text, &size)) {
      refuse(name, expected, "a STRING");
    }
    constexpr auto kList = Slot::KernelInfoGetAttributeArray_int64;
    if (std::strcmp(expected, "INTS") != 0 &&
        api_.try_call<kList>(info_, name, static_cast<int64_t*>(nullptr), &size)) {
      refuse(name, expected, "a list");
    }
  }

  [[noreturn]] static void refuse(const char* name, const char* expected, const char* got) {
    throw InvalidArgument(std::string("expected attribute ") + name + " of type " + expected +
                          ", got " + got);
  }

  const Api& api_;
  const KernelInfo* info_;
};

double not_negative(const char* name, double value) {
  if (std::isfinite(value) && value >= 0) return value;
  throw InvalidArgument(std::string("expected ") + name + " to be finite and not negative, got " +
                        to_text(value));
}

Element stash_type(int64_t value) {
  if (value == int64_t(Element::kFloat32)) return Element::kFloat32;
  if (value == int64_t(Element::kFloat64)) return Element::kFloat64;
  throw InvalidArgument(std::string("expected ") + spec::kStashType.name +
                        " FLOAT (1) or DOUBLE (11), got " + std::to_string(value));
}

Element rounding_type(const char* name, int64_t value) {
  for (const Element element :
       {Element::kFloat32, Element::kFloat16, Element::kFloat64, Element::kBFloat16}) {
    if (value == int64_t(element)) return element;
  }
  throw InvalidArgument(std::string("expected ") + name +
                        " FLOAT (1), FLOAT16 (10), DOUBLE (11) or BFLOAT16 (16), got " +
                        std::to_string(value));
}

// ONNX rounds the normalized value to T before the scale, unless the types differ: then its text
// does not type-check, and exporters mean one rounding. onnxruntime's own operators always round
// once, and compute double in double whatever stash_type says.
Attributes read_built_in(const Reader& node, const NormOp& op) {
  constexpr spec::Attribute<int64_t> kAxis = {"axis", false, -1};
  Attributes result;
  Settings& settings = result.settings;
  if (op.is.form == Form::kPlain) {
    result.axes = {node.read(kAxis)};
    result.to_the_end = true;
    if (node.read(spec::kStashType) == int64_t(Element::kFloat64))
      settings.stash = Element::kFloat64;
  } else {
    result.axes = {-1};
  }
  if (op.type == Element::kFloat64) settings.stash = Element::kFloat64;
  const bool twice = op.is.rounds_to_type && op.type == op.result;
  settings.normalized = twice ? op.type : settings.stash;
  const spec::Attribute<float> epsilon = {spec::kEpsilon.name, false, op.is.epsilon};
  settings.epsilon = not_negative(epsilon.name, node.read(epsilon));
  return result;
}

}  // namespace

Attributes read_attributes(const KernelInfo* info, const NormOp& op) {
  const Reader node(op.api, info);
  if (op.is.built_in) return read_built_in(node, op);
  Attributes result;
  Settings& settings = result.settings;
  result.axes = node.read(spec::kAxes);
  if (result.axes.empty()) {
    throw InvalidArgument(std::string("expected ") + spec::kAxes.name +
                          " to name at least one axis, got an empty list");
  }
  settings.stash = stash_type(node.read(spec::kStashType));
  settings.normalized = rounding_type(spec::kNormalizedType.name, node.read(spec::kNormalizedType));
  if (op.is.form == Form::kGated) {
    settings.scaled = rounding_type(spec::kScaledType.name, node.read(spec::kScaledType));
  }
  // A float64 epsilon comes in two float attributes, which add up in the stash type.
  const double epsilon = node.read(spec::kEpsilon) + node.read(spec::kEpsilonLow);
  settings.epsilon = settings.stash == Element::kFloat64 ? epsilon : double(float(epsilon));
  settings.epsilon = not_negative(spec::kEpsilon.name, settings.epsilon);
  settings.epsilon_outside =
      not_negative(spec::kEpsilonOutside.name, node.read(spec::kEpsilonOutside));
  settings.floor = not_negative(spec::kFloor.name, node.read(spec::kFloor));
  return result;
}

std::string node_name(const Api& api, const KernelInfo* info) {
  size_t size = 0;
  if (!api.try_call<Slot::KernelInfo_GetNodeName>(info, static_cast<char*>(nullptr), &size)) {
    return "";
  }
  std::string name(size, '\0');  // the size counts the closing NUL
  api.call<Slot::KernelInfo_GetNodeName>(info, name.data(), &size);
  name.resize(size ? size - 1 : 0);
  return name;
}

}  // namespace rmsnorm::ort
