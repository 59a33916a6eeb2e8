// Whether the other threads of a session take part in a node. onnxruntime does not say how many
// there are, and those that sleep may come too late.
#pragma once

#include <atomic>
#include <cstdint>

namespace rmsnorm::ort {

// Safe to use from several threads at once; what one of them sees late costs time, nothing else.
class Company {
 public:
  // No other thread was ever seen.
  bool is_alone() const { return !seen_.load(std::memory_order_relaxed); }

  // Whether a call whose X has so many bytes had better not be split: the last calls, one of them
  // as large, were split for nobody. Every sixteenth is split all the same, to see. 1.03-1.07 x as
  // fast at 16 x 4096 on one thread, 0.97-1.02 x elsewhere.
  bool stays_away(int64_t bytes) {
    if (away_.load(std::memory_order_relaxed) < kPatience) return false;
    if (bytes > most_.load(std::memory_order_relaxed)) return false;
    return turn_.fetch_add(1, std::memory_order_relaxed) % kPatience != 0;
  }

  // After a call with such an X that was split.
  void saw(int64_t bytes, bool others) {
    if (others) {
      seen_.store(true, std::memory_order_relaxed);
      away_.store(0, std::memory_order_relaxed);
      most_.store(0, std::memory_order_relaxed);
      return;
    }
    away_.fetch_add(1, std::memory_order_relaxed);
    if (bytes > most_.load(std::memory_order_relaxed))
      most_.store(bytes, std::memory_order_relaxed);
  }

 private:
  static constexpr uint32_t kPatience = 16;
  std::atomic<bool> seen_{false};
  std::atomic<uint32_t> away_{0};  // split calls in a row to which nobody came
  std::atomic<int64_t> most_{0};   // bytes of the largest of them
  std::atomic<uint32_t> turn_{0};
};

}  // namespace rmsnorm::ort
