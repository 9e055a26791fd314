// Vectors of floats, read from and written to float or bfloat16, and their products.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "abi.h"

namespace {

struct bf16 {
  uint16_t bits;
};

#ifdef __AVX512F__
constexpr int kLanes = 16;  // floats in a register, of which there are 32
#else
constexpr int kLanes = 8;  // 16 registers
#endif

template <int V>
struct Vec {
  typedef float F __attribute__((vector_size(V * 4), aligned(4)));
  typedef uint32_t U __attribute__((vector_size(V * 4), aligned(4)));
  typedef uint16_t H __attribute__((vector_size(V * 2), aligned(2)));
};

template <int V>
inline typename Vec<V>::F read(const float* from) {
  return *(const typename Vec<V>::F*)from;
}

template <int V>
inline typename Vec<V>::F read(const bf16* from) {
  auto wide = __builtin_convertvector(*(const typename Vec<V>::H*)from, typename Vec<V>::U) << 16;
  return (typename Vec<V>::F)wide;
}

template <int V>
inline void write(float* to, typename Vec<V>::F value) {
  *(typename Vec<V>::F*)to = value;
}

template <int V>
inline void write(bf16* to, typename Vec<V>::F value) {
#ifdef __AVX512BF16__
  if constexpr (V == 16)
    return _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
  if constexpr (V == 8)
    return _mm_storeu_si128((__m128i*)to, (__m128i)_mm256_cvtneps_pbh((__m256)value));
#endif
  auto bits = (typename Vec<V>::U)value;
  const auto number = (typename Vec<V>::U)((bits & 0x7fffffff) <= 0x7f800000);  // else NaN stays
  bits = ((bits + 0x7fff + ((bits >> 16) & 1)) & number) | ((bits | 0x400000) & ~number);
  bits >>= 16;
  *(typename Vec<V>::H*)to = __builtin_convertvector(bits, typename Vec<V>::H);
}

// The same for the first elements alone; the others are neither read nor written.
template <int V, typename E>
inline typename Vec<V>::F read_first(const E* from, int64_t count) {
#ifdef __AVX512VL__
  if constexpr (V == 16 && sizeof(E) == 4)
    return (typename Vec<V>::F)_mm512_maskz_loadu_ps((1u << count) - 1, from);
#endif
#ifdef __AVX512BW__
  if constexpr (V == 16 && sizeof(E) == 2) {
    const __m256i part = _mm256_maskz_loadu_epi16((1u << count) - 1, from);
    return (typename Vec<V>::F)_mm512_slli_epi32(_mm512_cvtepu16_epi32(part), 16);
  }
  if constexpr (V == 8 && sizeof(E) == 2) {
    const __m128i part = _mm_maskz_loadu_epi16((1u << count) - 1, from);
    return (typename Vec<V>::F)_mm256_slli_epi32(_mm256_cvtepu16_epi32(part), 16);
  }
#endif
  if constexpr (V == 8 && sizeof(E) == 4) {
    const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i wanted = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), place);
    return (typename Vec<V>::F)_mm256_maskload_ps((const float*)from, wanted);
  }
  E part[V] = {};
  memcpy(part, from, count * sizeof(E));
  return read<V>(part);
}

template <int V, typename E>
inline void write_first(E* to, typename Vec<V>::F value, int64_t count) {
#ifdef __AVX512VL__
  if constexpr (V == 16 && sizeof(E) == 4)
    return _mm512_mask_storeu_ps(to, (1u << count) - 1, (__m512)value);
  if constexpr (V == 8 && sizeof(E) == 4)
    return _mm256_mask_storeu_ps(to, (1u << count) - 1, (__m256)value);
#endif
#ifdef __AVX512BF16__
  if constexpr (V == 16 && sizeof(E) == 2) {
    const auto part = (__m256i)_mm512_cvtneps_pbh((__m512)value);
    return _mm256_mask_storeu_epi16(to, (1u << count) - 1, part);
  }
  if constexpr (V == 8 && sizeof(E) == 2) {
    const auto part = (__m128i)_mm256_cvtneps_pbh((__m256)value);
    return _mm_mask_storeu_epi16(to, (1u << count) - 1, part);
  }
#endif
  E part[V];
  write<V>(part, value);
  if (count >= 8) return (void)memcpy(to, part, count * sizeof(E));
  const E* from = part;  // of lengths that are known, since a call would cost more than the copy
  if (count & 4) memcpy(to, from, 4 * sizeof(E)), to += 4, from += 4;
  if (count & 2) memcpy(to, from, 2 * sizeof(E)), to += 2, from += 2;
  if (count & 1) *to = *from;
}

template <typename E>
struct Product;

template <>
struct Product<float> {
  static constexpr int64_t kStep = 1;  // input channels at once
  template <int V>
  using Weights = typename Vec<V>::F;
  template <int V>
  static inline typename Vec<V>::F add(typename Vec<V>::F sum, Weights<V> weights, const float* x) {
    return sum + weights * *x;
  }
};

template <>
struct Product<bf16> {
  static constexpr int64_t kStep = 2;
  template <int V>
  using Weights = typename Vec<V>::U;
  template <int V>
  static inline typename Vec<V>::F add(typename Vec<V>::F sum, Weights<V> weights, const bf16* x) {
    int pair;
    memcpy(&pair, x, 4);
#ifdef __AVX512BF16__
    if constexpr (V == 16) {
      const auto w = (__m512bh)weights;
      return (typename Vec<V>::F)_mm512_dpbf16_ps((__m512)sum, w,
                                                  (__m512bh)_mm512_set1_epi32(pair));
    } else {
      const auto w = (__m256bh)weights;
      return (typename Vec<V>::F)_mm256_dpbf16_ps((__m256)sum, w,
                                                  (__m256bh)_mm256_set1_epi32(pair));
    }
#else
    typedef typename Vec<V>::F F;
    const Weights<V> x2 = (uint32_t)pair + Weights<V>{};
    sum += (F)(weights << 16) * (F)(x2 << 16);
    return sum + (F)(weights & 0xffff0000u) * (F)(x2 & 0xffff0000u);
#endif
  }
};

// The larger of each pair; NaN where either is.
template <int V>
inline typename Vec<V>::F larger(typename Vec<V>::F one, typename Vec<V>::F other) {
  const auto second = one > other ? one : other, first = other > one ? other : one;
  return (typename Vec<V>::F)((typename Vec<V>::U)first | (typename Vec<V>::U)second);
}

// Writes sums, added to what is there if `add`, between limits; the first `left` alone where fewer
// are left.
template <int V, typename E>
inline __attribute__((always_inline)) void store(bool add, E* out, typename Vec<V>::F sum,
                                                 int64_t left, typename Vec<V>::F low,
                                                 typename Vec<V>::F high) {
  if (add) sum += left < V ? read_first<V>(out, left) : read<V>(out);
  sum = low > sum ? low : sum;  // in this order, so that NaN stays NaN
  sum = high < sum ? high : sum;
  if (left < V)
    write_first<V>(out, sum, left);
  else
    write<V>(out, sum);
}

}  // namespace
