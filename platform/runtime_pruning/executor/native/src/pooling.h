// Max pooling, and means over pixels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace {

// The largest of the taps [top, bottom) x [left, right) of a pixel, for N vectors of channels.
template <int N, typename E>
inline void max_of(const Geometry& g, int64_t ld, const E* in, E* out, int64_t top, int64_t bottom,
                   int64_t left, int64_t right) {
  constexpr int V = kLanes;
  typename Vec<V>::F most[N];
  for (int n = 0; n < N; n++) most[n] = read<V>(in + (top * g.wi + left) * ld + n * V);
  for (int64_t y = top; y < bottom; y++)
    for (int64_t x = left; x < right; x++)
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) {
        const auto value = read<V>(in + (y * g.wi + x) * ld + n * V);
        most[n] = larger<V>(most[n], value);
      }
  for (int n = 0; n < N; n++) write<V>(out + n * V, most[n]);
}

// Max pooling of each image's first channels, as many as its width has outputs.
template <typename E>
void max_pool(const Call& call, const WidthLookup& lookup, const E* in, E* out, int64_t batch,
              Team team) {
  constexpr int V = kLanes;
  const Geometry& g = call.g;
  team.parallel_for(batch * g.ho, [&](int64_t task) {
    const int64_t b = task / g.ho, y = task % g.ho, above = g.pad_y - y * g.stride_y;
    const int64_t top = std::max<int64_t>(above, 0), bottom = std::min(g.hi + above, g.kh);
    const int64_t count = lookup.of(b).co;
    for (int64_t x = 0; x < g.wo; x++) {
      const int64_t before = g.pad_x - x * g.stride_x;
      const int64_t left = std::max<int64_t>(before, 0), right = std::min(g.wi + before, g.kw);
      const E* from = in + (b * g.hi * g.wi - above * g.wi - before) * call.ld_in;
      E* to = out + (task * g.wo + x) * call.ld_out;
      int64_t c = 0;
      for (; c + 4 * V <= count; c += 4 * V)
        max_of<4>(g, call.ld_in, from + c, to + c, top, bottom, left, right);
      for (; c + V <= count; c += V)
        max_of<1>(g, call.ld_in, from + c, to + c, top, bottom, left, right);
      for (; c < count; c++) {
        Vec<1>::F most = {-INFINITY};
        for (int64_t i = top; i < bottom; i++)
          for (int64_t j = left; j < right; j++)
            most = larger<1>(most, read<1>(from + (i * g.wi + j) * call.ld_in + c));
        write<1>(to + c, most);
      }
    }
  });
}

// Means over the pixels of N vectors of channels, or of the `left` first of them. Sums of every
// U-th pixel: one would wait for itself at each.
template <int N, int U, bool PART, typename E, typename T>
inline void mean_of(const E* from, int64_t ld, int64_t pixels, int64_t left, T* to) {
  constexpr int V = kLanes;
  typedef Vec<V>::F F;
  const auto values = [&](int n) {
    return PART ? read_first<V>(from, left) : read<V>(from + V * n);
  };
  F sums[U][N] = {};
  int64_t p = 0;
  for (; p + U <= pixels; p += U)
#pragma GCC unroll 8
    for (int u = 0; u < U; u++, from += ld)
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) sums[u][n] += values(n);
  for (; p < pixels; p++, from += ld)
    for (int n = 0; n < N; n++) sums[0][n] += values(n);
  for (int n = 0; n < N; n++) {
    F sum = sums[0][n];
    for (int u = 1; u < U; u++) sum += sums[u][n];
    if (PART)
      write_first<V>(to, sum / (float)pixels, left);
    else
      write<V>(to + V * n, sum / (float)pixels);
  }
}

// Means over the pixels of an image's first channels.
template <typename E, typename T>
void means(const E* from, int64_t ld, int64_t pixels, int64_t count, T* to) {
  constexpr int V = kLanes;
  int64_t c = 0;
  for (; c + 4 * V <= count; c += 4 * V) mean_of<4, 2, false>(from + c, ld, pixels, V, to + c);
  for (; c + V <= count; c += V) mean_of<1, 8, false>(from + c, ld, pixels, V, to + c);
  if (c < count) mean_of<1, 8, true>(from + c, ld, pixels, count - c, to + c);
}

// Means of each image's first channels: `channels` of an image, or `all` of each; zeros behind.
template <typename E>
void pool(const E* in, int64_t ld, int64_t pixels, const int64_t* channels, int64_t all,
          int64_t batch, float* out, int64_t most, Team team) {
  team.parallel_for(batch, [&](int64_t b) {
    const int64_t count = channels ? channels[b] : all;
    means(in + b * pixels * ld, ld, pixels, count, out + b * most);
    std::fill(out + b * most + count, out + (b + 1) * most, 0.0f);
  });
}

// Means over the pixels of each image's first channels, as many as its width has outputs.
template <typename E>
void average(const Call& call, const WidthLookup& lookup, const E* in, E* out, int64_t batch,
             Team team) {
  const int64_t pixels = call.g.hi * call.g.wi;
  team.parallel_for(batch, [&](int64_t b) {
    means(in + b * pixels * call.ld_in, call.ld_in, pixels, lookup.of(b).co, out + b * call.ld_out);
  });
}

}  // namespace
