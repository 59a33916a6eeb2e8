// Elements in memory to and from vectors of a stash type S (float or double).
#pragma once

#include "../kernel.h"
#include "half.h"

namespace rmsnorm::RMSNORM_ISA {

// How many elements a vector operation covers: all lanes, or the first few of them.
struct Full {};
// All lanes; a store passes the caches by and needs an address aligned to what it writes.
struct Streamed : Full {};

// Correct rounding of double to a 16-bit type goes through float rounded to odd: a float with 24
// bits whose last one says "inexact" cannot land on a tie of 11 or 8 bits by accident.
inline HalfWidth round_to_odd(V<double> value) {
  using Words = Vec<uint32_t, kWidth<double>>;  // of a NaN too, whose step may overflow
  const HalfWidth nearest = to_float(value);
  const V<double> error = value - to_double(nearest);
  const Words bits = (Words)nearest;
  const Words inexact = __builtin_convertvector((error < 0.0) | (error > 0.0), Words);
  const Words outwards = __builtin_convertvector((error > 0.0) == (value > 0.0), Words);
  const Words even = (bits & 1) - 1;  // all ones where the last bit is 0
  const Words odd = bits + (outwards ? Words{} + 1 : Words{} - 1);
  return (HalfWidth)((inexact & even) ? odd : bits);
}

// N elements of a type no wider than float.
template <class T, int N>
inline Vec<float, N> load_floats(const T* from) {
  if constexpr (__is_same(T, float)) {
    return load_raw<Vec<float, N>>(from);
  } else if constexpr (__is_same(T, Half)) {
    return float_from_half<N>(load_raw<Vec<uint16_t, N>>(from));
  } else {
    return float_from_bfloat16<N>(load_raw<Vec<uint16_t, N>>(from));
  }
}

template <class T, int N>
inline auto from_floats(Vec<float, N> value) {
  if constexpr (__is_same(T, float)) {
    return value;
  } else if constexpr (__is_same(T, Half)) {
    return half_from_float<N>(value);
  } else {
    return bfloat16_from_float<N>(value);
  }
}

template <class S, class T>
inline V<S> load(const T* from, Full = {}) {
  constexpr int half = kWidth<double>;
  if constexpr (__is_same(S, float) && __is_same(T, double)) {
    return join(to_float(load_raw<V<double>>(from)), to_float(load_raw<V<double>>(from + half)));
  } else if constexpr (__is_same(S, float)) {
    return load_floats<T, kWidth<float>>(from);
  } else if constexpr (__is_same(T, double)) {
    return load_raw<V<double>>(from);
  } else {
    return to_double(load_floats<T, half>(from));
  }
}

// Floats that round to the same T, where T is narrower than double, as the value itself.
template <class T>
inline V<float> rounding_floats(V<float> value) {
  return value;
}

template <class T>
inline HalfWidth rounding_floats(V<double> value) {
  if constexpr (sizeof(T) < 4) return round_to_odd(value);
  return to_float(value);
}

template <class S, class T>
inline void store(T* to, V<S> value, Full = {}) {
  if constexpr (__is_same(S, double) && __is_same(T, double)) {
    store_raw(to, value);
  } else if constexpr (__is_same(T, double)) {
    store_raw(to, to_double(low_half(value)));
    store_raw(to + kWidth<double>, to_double(high_half(value)));
  } else {
    store_raw(to, from_floats<T, kWidth<S>>(rounding_floats<T>(value)));
  }
}

template <class S, class T>
inline void store(T* to, V<S> value, Streamed) {
  if constexpr (sizeof(T) == 8 && sizeof(S) == 4) {
    store<S>(to, value, Full{});
  } else if constexpr (__is_same(S, double) && __is_same(T, double)) {
    stream_raw(to, value);
  } else {
    stream_raw(to, from_floats<T, kWidth<S>>(rounding_floats<T>(value)));
  }
}

// Two registers of elements that follow one another: the even ones and the odd ones where that
// costs nothing, else the first and the last half of them.
template <class S, class T>
constexpr bool kByParity = __is_same(S, float) && __is_same(T, BFloat16);

template <class S, class T>
inline void load_two(const T* from, V<S>* to) {
  if constexpr (kByParity<S, T>) {
    const Words words = in_register(load_raw<Words>(from));
    to[0] = even_floats(words);
    to[1] = odd_floats(words);
  } else {
    to[0] = load<S>(from);
    to[1] = load<S>(from + kWidth<S>);
  }
}

template <class S, class T, class Count>
inline void store_two(T* to, const V<S>* from, Count count) {
  if constexpr (kByParity<S, T>) {
    const Words words = bfloat16_words(from[0], from[1]);
    __is_same(Count, Streamed) ? stream_raw(to, words) : store_raw(to, words);
  } else {
    store<S>(to, from[0], count);
    store<S>(to + kWidth<S>, from[1], count);
  }
}

// Values of S for as many T, in the order of load_two; the second register `apart` elements on,
// the next where they are T themselves.
template <class T, class S, class W>
inline void load_two_for(const W* from, int64_t apart, V<S>* to) {
  if constexpr (!__is_same(W, S)) return load_two<S>(from, to);
  to[0] = load<S>(from);
  to[1] = load<S>(from + apart);
  if constexpr (kByParity<S, T>) by_parity<kWidth<S>>(to);
}

// The first `count` lanes; the others read as zero and are not written.
template <class S, class T>
inline V<S> load(const T* from, int count) {
  using Elements = Vec<typename BitsOf<T>::Unsigned, kWidth<S>>;
  const Elements first = load_first<Elements>(from, count);
  return load<S>(reinterpret_cast<const T*>(&first));
}

template <class S, class T>
inline void store(T* to, V<S> value, int count) {
  Vec<typename BitsOf<T>::Unsigned, kWidth<S>> all;
  store<S>(reinterpret_cast<T*>(&all), value);
  store_first(to, all, count);
}

// `value` rounded to T and back.
template <class T, class S>
inline V<S> through(V<S> value) {
  const auto floats = rounding_floats<T>(value);
  const auto rounded = from_floats<T, kWidth<S>>(floats);
  const auto back = load_floats<T, kWidth<S>>(reinterpret_cast<const T*>(&rounded));
  if constexpr (__is_same(S, double)) {
    return to_double(back);
  } else {
    return back;
  }
}

// A type as wide as S or wider changes nothing.
template <class S>
inline V<S> round_to(Element type, V<S> value) {
  switch (type) {
    case Element::kFloat16:
      return through<Half, S>(value);
    case Element::kBFloat16:
      return through<BFloat16, S>(value);
    case Element::kFloat32:
      return through<float, S>(value);
    case Element::kFloat64:
      break;
  }
  return value;
}

}  // namespace rmsnorm::RMSNORM_ISA
