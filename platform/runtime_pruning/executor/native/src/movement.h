// What moves features: cleared, copied, scaled.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace {

// Sets N vectors of 16 bytes to zero, and `rest` bytes, at each pixel: a call of memset for so
// little takes longer than this.
template <int N>
inline void zero(char* to, int64_t apart, int64_t pixels, int64_t rest) {
  const __m128i none = _mm_setzero_si128();
  for (; pixels > 0; pixels--, to += apart) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) _mm_storeu_si128((__m128i*)to + n, none);
    if (rest) memset(to + N * 16, 0, rest);
  }
}

// Sets channels [from, to) of an image to zero; `size` bytes an element.
void clear_image(char* image, int64_t ld, int64_t pixels, int64_t from, int64_t to, int64_t size) {
  if (from >= to) return;
  char* first = image + from * size;
  const int64_t bytes = (to - from) * size, vectors = bytes / 16, rest = bytes % 16;
  if (vectors == 1)
    zero<1>(first, ld * size, pixels, rest);
  else if (vectors == 2)
    zero<2>(first, ld * size, pixels, rest);
  else if (vectors == 3)
    zero<3>(first, ld * size, pixels, rest);
  else if (vectors == 4)
    zero<4>(first, ld * size, pixels, rest);
  else
    zero<0>(first, ld * size, pixels, bytes);
}

// Copies the first channels of each pixel that the stride meets, zeros before and after them:
// `ci` channels, to those from `co` args.
template <typename E>
void copy(const Call& call, const LayerSlice& slice, const E* in, E* out, int64_t batch,
          Team team) {
  const Geometry& g = call.g;
  const int64_t before = slice.co, own = slice.ci, after = call.ld_out - before - own;
  const bool whole = own == call.ld_in && own == call.ld_out && g.stride_y == 1 && g.stride_x == 1;
  team.parallel_for(batch * g.ho, [&](int64_t task) {
    const int64_t b = task / g.ho, y = task % g.ho;
    const E* row = in + (b * g.hi + y * g.stride_y) * g.wi * call.ld_in;
    E* to = out + task * g.wo * call.ld_out;
    if (whole) return (void)memcpy((void*)to, row, g.wo * own * sizeof(E));
    for (int64_t x = 0; x < g.wo; x++, to += call.ld_out) {
      memset((void*)to, 0, before * sizeof(E));
      memcpy((void*)(to + before), row + x * g.stride_x * call.ld_in, own * sizeof(E));
      memset((void*)(to + before + own), 0, after * sizeof(E));
    }
  });
}

// Each element less one constant, divided by another; the constants come again after `ci`, a whole
// number of registers.
template <typename E>
void scale(const Call& call, const LayerSlice& slice, const float* in, E* out, int64_t batch,
           Team team) {
  constexpr int V = kLanes;
  const float *mean = slice.bias, *std = (const float*)slice.weight;
  const int64_t all = call.g.hi * call.g.wi * call.ld_in;
  team.parallel_for(batch, [&](int64_t b) {
    const float* from = in + b * all;
    E* to = out + b * all;
    int64_t i = 0;
    for (; i + slice.ci <= all; i += slice.ci)
      for (int64_t j = 0; j < slice.ci; j += V)
        write<V>(to + i + j, (read<V>(from + i + j) - read<V>(mean + j)) / read<V>(std + j));
    for (int64_t j = 0; i < all; i++, j++)
      write<1>(to + i, Vec<1>::F{(from[i] - mean[j]) / std[j]});
  });
}

// The same for images whose channels are planes, one after the other; `ci` of them.
template <typename E>
void scale_planes(const Call& call, const LayerSlice& slice, const float* in, E* out, int64_t batch,
                  Team team) {
  constexpr int V = kLanes;
  const float *mean = slice.bias, *std = (const float*)slice.weight;
  const int64_t pixels = call.g.hi * call.g.wi, channels = slice.ci;
  team.parallel_for(batch * channels, [&](int64_t task) {
    const int64_t c = task % channels;
    const float* from = in + task * pixels;
    E* to = out + task / channels * pixels * channels + c;
    int64_t i = 0;
    for (E some[V]; i + V <= pixels; i += V) {
      write<V>(some, (read<V>(from + i) - mean[c]) / std[c]);
      for (int64_t j = 0; j < V; j++) to[(i + j) * channels] = some[j];
    }
    for (; i < pixels; i++) write<1>(to + i * channels, Vec<1>::F{(from[i] - mean[c]) / std[c]});
  });
}

}  // namespace
