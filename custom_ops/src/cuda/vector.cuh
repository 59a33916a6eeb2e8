// Vectors of a row that need not begin where 16 bytes do. Memory is touched in aligned pieces that
// hold an element of the row: those lie within any allocation.
#pragma once

#include <type_traits>

#include "element.cuh"

namespace rmsnorm::cuda {

RMSNORM_DEVICE int bytes_past_16(const void* address) {
  return int(reinterpret_cast<uintptr_t>(address) & 15);
}

// The first kCount of nine words are gone, if so; a template, so that no index is left at run time.
template <int kCount>
RMSNORM_DEVICE void drop(bool gone, uint32_t* word) {
#pragma unroll
  for (int i = 0; i + kCount < 9; ++i) word[i] = gone ? word[i + kCount] : word[i];
}

// The 16 bytes of low:high from byte `shift` on, 0 to 16.
RMSNORM_DEVICE Words joined(const Words& low, const Words& high, int shift) {
  uint32_t w[9] = {low.word[0],  low.word[1],  low.word[2],
                   low.word[3],  high.word[0], high.word[1],
                   high.word[2], high.word[3], 0};
  drop<4>(shift & 16, w);
  drop<2>(shift & 8, w);
  drop<1>(shift & 4, w);
  const int bits = shift % 4 * 8;
  return {shifted(w[0], w[1], bits), shifted(w[1], w[2], bits), shifted(w[2], w[3], bits),
          shifted(w[3], w[4], bits)};
}

// The first of the aligned pieces that hold a vector, or zeros for none.
template <class T>
RMSNORM_DEVICE Words load_piece(const T* from, int count) {
  const char* const piece = reinterpret_cast<const char*>(from) - bytes_past_16(from);
  return count > 0 ? load16(piece) : Words{};
}

// The vector at `from`, zeros after its first `count` elements. The second piece is the next lane's
// first for nearly all: it comes from L1, and waits in no registers.
template <class T>
RMSNORM_DEVICE Words vector_from(const Words& piece, const T* from, int count) {
  const int shift = bytes_past_16(from), bytes = count * int(sizeof(T));
  const char* const next = reinterpret_cast<const char*>(from) - shift + 16;
  Words v = joined(piece, count > 0 && shift + bytes > 16 ? load16(next) : Words{}, shift);
  if (count < kVector<T>) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int bits = (bytes - 4 * i) * 8;
      v.word[i] &= bits <= 0 ? 0 : bits >= 32 ? ~0U : (1U << bits) - 1;
    }
  }
  return v;
}

template <class T>
RMSNORM_DEVICE Words load_anywhere(const T* from, int count) {
  return vector_from(load_piece(from, count), from, count);
}

// Elements as they are in memory, one in each.
template <class T>
using Bits = std::conditional_t<sizeof(T) == 8, uint64_t,
                                std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;

template <class T>
RMSNORM_DEVICE Bits<T> load_bits(const T* from) {
  return *reinterpret_cast<const Bits<T>*>(from);
}
template <class T>
RMSNORM_DEVICE Words vector_of(const Bits<T>* element) {
  Words v;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 8) {
      v.word[i] = uint32_t(element[i / 2] >> i % 2 * 32);
    } else if constexpr (sizeof(T) == 4) {
      v.word[i] = element[i];
    } else {
      v.word[i] = uint32_t(element[2 * i + 1]) << 16 | element[2 * i];
    }
  }
  return v;
}

template <class T>
RMSNORM_DEVICE void store_element(T* to, const Words& v, int i) {
  if constexpr (sizeof(T) == 8) {
    *reinterpret_cast<uint64_t*>(to) = uint64_t(v.word[2 * i + 1]) << 32 | v.word[2 * i];
  } else if constexpr (sizeof(T) == 4) {
    *reinterpret_cast<uint32_t*>(to) = v.word[i];
  } else {
    *reinterpret_cast<uint16_t*>(to) = uint16_t(v.word[i / 2] >> i % 2 * 16);
  }
}

// Elements may be spread: those of a warp's lanes lie side by side, so that one lane's are kWarp
// apart. It has so many of the first `count` from its own on; 0 or less if that is.
template <class Count>
RMSNORM_DEVICE Count spread_over_lanes(Count count) {
  return (count + kWarp - 1) >> 5;
}

// body(i, where) of kCount of them, or of the first `left`.
template <int kCount, class Body>
RMSNORM_DEVICE void each_spread(int left, Body body) {
  if (left >= kCount) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) body(i, i * kWarp);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (i < left) body(i, i * kWarp);
    }
  }
}

// No branches: the loads of several vectors are to be under way at once.
template <class T>
RMSNORM_DEVICE Words load_spread(const T* from, int left) {
  Bits<T> element[kVector<T>];
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) {
    element[i] = i < left ? load_bits(from + i * kWarp) : Bits<T>(0);
  }
  return vector_of<T>(element);
}

template <class T>
RMSNORM_DEVICE void store_spread(T* to, const Words& v, int left) {
  each_spread<kVector<T>>(left, [&](int i, int at) { store_element(to + at, v, i); });
}

// Where a vector stands among those that its neighbours write.
struct Neighbours {
  int left;     // elements to the end of its run, 0 or less where there is no vector
  bool before;  // the lane before this one writes the vector before
  bool after;   // the lane after this one is of the same row
  int width;    // lanes of a warp that share a row
};

// Of a lane among the threads of a row.
RMSNORM_DEVICE Neighbours neighbours_of(int lane, int threads, int left, bool starts_run) {
  const int width = threads < kWarp ? threads : kWarp, in_group = lane & (width - 1);
  return {left, in_group > 0 && !starts_run, in_group + 1 < width, width};
}

// Every lane of a warp takes part. A piece that two vectors share is written by the lane of the
// second; ends of runs and of warps go element by element.
template <class T>
RMSNORM_DEVICE void store_anywhere(T* to, const Words& v, const Neighbours& next, bool streaming) {
  constexpr int kSize = int(sizeof(T));
  Words before;
#pragma unroll
  for (int i = 0; i < 4; ++i) before.word[i] = shuffle_up(v.word[i], 1, next.width);
  const int shift = bytes_past_16(to);
  const int own = next.left * kSize, following = own - 16;
  const bool first_whole = shift + own >= 16 && (next.before || shift == 0);
  const bool second_whole = next.after && shift + following >= 16;
  if (first_whole && next.left > 0) {
    store16(reinterpret_cast<char*>(to) - shift, joined(before, v, 16 - shift), streaming);
  }
  // The others one by one: bit i stands for element i, and the first `split` are in the first
  // piece.
  const int split = (16 - shift) / kSize;
  uint32_t others = next.left >= kVector<T> ? ~0U : next.left > 0 ? (1U << next.left) - 1 : 0U;
  others &= first_whole ? ~0U << split : ~0U;
  others &= second_whole ? (1U << split) - 1 : ~0U;
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) {
    if (others >> i & 1U) store_element(to + i, v, i);
  }
}

}  // namespace rmsnorm::cuda
