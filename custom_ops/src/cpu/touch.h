// Memory that intrinsics read or write behind the back of sanitizers: masked loads and stores, and
// stores that pass the caches by. Elsewhere these calls are nothing.
#pragma once

#include <cstdint>

#include "../kernel.h"

#if defined(__SANITIZE_ADDRESS__)
extern "C" {
void __asan_loadN(void* from, uintptr_t bytes);
void __asan_storeN(void* to, uintptr_t bytes);
}
#elif defined(__SANITIZE_THREAD__)
extern "C" {
void __tsan_read_range(void* from, unsigned long bytes);
void __tsan_write_range(void* to, unsigned long bytes);
}
#endif

#ifndef RMSNORM_ISA
#define RMSNORM_ISA baseline
#endif

namespace rmsnorm::RMSNORM_ISA {

inline void will_read([[maybe_unused]] const void* from, [[maybe_unused]] uintptr_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_loadN(const_cast<void*>(from), bytes);
#elif defined(__SANITIZE_THREAD__)
  __tsan_read_range(const_cast<void*>(from), bytes);
#endif
}

inline void will_write([[maybe_unused]] void* to, [[maybe_unused]] uintptr_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_storeN(to, bytes);
#elif defined(__SANITIZE_THREAD__)
  __tsan_write_range(to, bytes);
#endif
}

}  // namespace rmsnorm::RMSNORM_ISA
