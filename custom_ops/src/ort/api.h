// onnxruntime's function table with types, and the border that no exception crosses.
#pragma once

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "../layout.h"
#include "abi.h"

namespace rmsnorm::ort {

// What the user asked for cannot be done; the text reaches the user's own exception.
struct InvalidArgument : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Api {
 public:
  // A table holds the slots that came up to its version.
  Api(const ApiTable* table, int version)
      : slots_(reinterpret_cast<void* const*>(table)), version_(version) {}

  // Whether a slot beyond the version that this library asks for is there.
  bool lends_shapes() const { return version_ >= kLendsShapes; }

  template <Slot kSlot, class... Arguments>
  auto raw(Arguments... arguments) const {
    using Function = typename Signature<kSlot>::Type*;
    return reinterpret_cast<Function>(slots_[int(kSlot)])(arguments...);
  }

  // Throws what a failed call says.
  template <Slot kSlot, class... Arguments>
  void call(Arguments... arguments) const {
    check(raw<kSlot>(arguments...));
  }

  // True when the call succeeded; what a failed one says is dropped.
  template <Slot kSlot, class... Arguments>
  bool try_call(Arguments... arguments) const {
    Status* status = raw<kSlot>(arguments...);
    if (status) raw<Slot::ReleaseStatus>(status);
    return status == nullptr;
  }

  // Runs body(); an exception becomes a Status.
  template <class Body>
  Status* guard(Body body) const noexcept {
    try {
      body();
      return nullptr;
    } catch (const InvalidArgument& error) {
      return raw<Slot::CreateStatus>(int(kInvalidArgument), error.what());
    } catch (const std::exception& error) {
      return raw<Slot::CreateStatus>(int(kFail), error.what());
    }
  }

 private:
  void check(Status* status) const {
    if (status) fail(status);
  }
  [[noreturn]] void fail(Status* status) const;

  void* const* slots_;
  int version_;
};

// A tensor of a kernel call or a constant input; filled in place, because `shape` may point to
// `copy`.
struct Tensor {
  Tensor() = default;
  Tensor(const Tensor&) = delete;

  Dims shape;  // onnxruntime's own, or `copy` where an older one only gives copies
  void* data = nullptr;
  std::unique_ptr<int64_t[]> copy;
};

// Fills in a copy of the shape.
void copy_shape(const Api& api, const Value* value, Tensor* tensor);

inline void read_tensor(const Api& api, const Value* value, Tensor* tensor) {
  if (api.lends_shapes()) {
    int type = 0;
    api.call<Slot::GetTensorElementTypeAndShapeDataReference>(value, &type, &tensor->shape.data,
                                                              &tensor->shape.count);
  } else {
    copy_shape(api, value, tensor);
  }
  api.call<Slot::GetTensorMutableData>(const_cast<Value*>(value), &tensor->data);
}

// A CustomOp with every callback set that does the same for all our operators.
CustomOp common_callbacks();

}  // namespace rmsnorm::ort
