// Depthwise convolutions: each channel has a kernel of its own.
#pragma once

#include <algorithm>
#include <cstdint>

#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace {

// Pixels whose depthwise kernels reach the same taps, [top, bottom) x [left, right), for a register
// of channels from `c` on, or the `count` that there are.
template <typename E, int P>
inline __attribute__((always_inline)) void depthwise_tile(const Call& call, const LayerSlice& slice,
                                                          const E* in, E* out, int64_t c,
                                                          int64_t count, int64_t top,
                                                          int64_t bottom, int64_t left,
                                                          int64_t right) {
  constexpr int V = kLanes;
  typedef Vec<V>::F F;
  F sums[P];
  for (int p = 0; p < P; p++) sums[p] = read<V>(slice.bias + c);
  const E* weights = (const E*)slice.weight + c;
  const int64_t step = call.g.stride_x * call.ld_in;
  for (int64_t y = top; y < bottom; y++)
    for (int64_t x = left; x < right; x++) {
      const E* from = in + (y * call.g.wi + x) * call.ld_in + c;
      const F weight = read<V>(weights + (y * call.g.kw + x) * slice.tap);
      for (int p = 0; p < P; p++)
        sums[p] +=
            weight * (count < V ? read_first<V>(from + p * step, count) : read<V>(from + p * step));
    }
  const F low = call.low + F{}, high = call.high + F{};
  for (int p = 0; p < P; p++) {
    store<V>(call.add, out + p * call.ld_out + c, sums[p], count, low, high);
  }
}

// The same for a kernel of 3 by 3 that moves pixel by pixel: each pixel of a row is read once.
template <typename E, int P>
inline __attribute__((always_inline)) void depthwise_three(const Call& call,
                                                           const LayerSlice& slice, const E* in,
                                                           E* out, int64_t c) {
  constexpr int V = kLanes;
  typedef Vec<V>::F F;
  F sums[P], pixels[P + 2];
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) sums[p] = read<V>(slice.bias + c);
  const E* weights = (const E*)slice.weight + c;
  in += c;
  for (int y = 0; y < 3; y++, in += call.g.wi * call.ld_in, weights += 3 * slice.tap) {
#pragma GCC unroll 10
    for (int p = 0; p < P + 2; p++) pixels[p] = read<V>(in + p * call.ld_in);
#pragma GCC unroll 3
    for (int x = 0; x < 3; x++) {
      const F weight = read<V>(weights + x * slice.tap);
#pragma GCC unroll 8
      for (int p = 0; p < P; p++) sums[p] += weight * pixels[p + x];
    }
  }
  const F low = call.low + F{}, high = call.high + F{};
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) store<V>(call.add, out + p * call.ld_out + c, sums[p], V, low, high);
}

// Row y of one image's result: each channel by a kernel of its own.
template <typename E>
void depthwise_row(const Call& call, const LayerSlice& slice, const E* image, E* out, int64_t y) {
  constexpr int V = kLanes, P = 4, WIDE = V == 16 ? 8 : 4;
  const Geometry& g = call.g;
  const int64_t above = g.pad_y - y * g.stride_y;
  const int64_t top = std::max<int64_t>(above, 0), bottom = std::min(g.hi + above, g.kh);
  for (int64_t x = 0; x < g.wo;) {
    const int64_t before = g.pad_x - x * g.stride_x;
    const int64_t left = std::max<int64_t>(before, 0), right = std::min(g.wi + before, g.kw);
    const auto fit = [&](int64_t pixels) {
      const int64_t last = g.wi + before - (pixels - 1) * g.stride_x;
      return x + pixels <= g.wo && left == 0 && last >= g.kw;
    };
    const bool inner = fit(P);
    const bool three = inner && top == 0 && bottom == 3 && g.kh == 3 && g.kw == 3;
    const bool wide = three && g.stride_x == 1 && fit(WIDE);
    const E* in = image - (above * g.wi + before) * call.ld_in;
    E* to = out + (y * g.wo + x) * call.ld_out;
    for (int64_t c = 0; c < slice.co; c += V) {
      const int64_t count = std::min<int64_t>(slice.co - c, V);
      if (wide && count == V)
        depthwise_three<E, WIDE>(call, slice, in, to, c);
      else if (wide)
        depthwise_tile<E, WIDE>(call, slice, in, to, c, count, 0, 3, 0, 3);
      else if (three && count == V)
        depthwise_tile<E, P>(call, slice, in, to, c, V, 0, 3, 0, 3);
      else if (inner)
        depthwise_tile<E, P>(call, slice, in, to, c, count, top, bottom, left, right);
      else
        depthwise_tile<E, 1>(call, slice, in, to, c, count, top, bottom, left, right);
    }
    x += wide ? WIDE : inner ? P : 1;
  }
}

template <typename E>
void depthwise(const Call& call, const WidthLookup& lookup, const E* in, E* out, int64_t batch,
               Team team) {
  const Geometry& g = call.g;
  for (int64_t b = 0; b < batch && !team.index; b++)
    lookup.count(b, lookup.of(b).co * g.ho * g.wo * g.kh * g.kw);
  team.parallel_for(batch * g.ho, [&](int64_t task) {
    const int64_t b = task / g.ho;
    depthwise_row(call, lookup.of(b), in + b * g.hi * g.wi * call.ld_in,
                  out + b * g.ho * g.wo * call.ld_out, task % g.ho);
  });
}

}  // namespace
