// Uninitialized memory at the start of a cache line, as onnxruntime allocates tensors: elsewhere
// every vector of AVX-512 would be read from two lines.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace rmsnorm {

struct FreeBytes {
  void operator()(char* bytes) const { operator delete(bytes, kLine); }
  static constexpr std::align_val_t kLine{64};
};
using Bytes = std::unique_ptr<char, FreeBytes>;

inline Bytes make_bytes(int64_t count) {
  return Bytes(static_cast<char*>(operator new(size_t(count), FreeBytes::kLine)));
}

}  // namespace rmsnorm
