// Linear layers: weights are read once for 64 images.
#pragma once

#include <algorithm>
#include <cstdint>

#include "abi.h"
#include "convolve.h"

namespace {

// Adds inputs of P images to the sums of N vectors of outputs, 32 floats an image.
template <typename E, int N, int P>
inline void linear_tile(const Strip<E>& s, const E* weight, const E* in, int64_t count,
                        float* sums) {
  constexpr int V = kLanes;
  typename Vec<V>::F own[N][P];
  for (int n = 0; n < N; n++)
    for (int p = 0; p < P; p++) own[n][p] = read<V>(sums + p * 32 + n * V);
  add_tap<E, V, N, P, 0, P>(own, s, weight, in, count);
  for (int n = 0; n < N; n++)
    for (int p = 0; p < P; p++) write<V>(sums + p * 32 + n * V, own[n][p]);
}

template <typename E, int N>
void linear_tiles(const Strip<E>& s, const E* weight, const E* in, int64_t count, int64_t images,
                  float* sums) {
  constexpr int kMost = kLanes == 16 ? 10 : 12 / N;
  for (; images >= kMost; images -= kMost, in += kMost * s.step, sums += kMost * 32)
    linear_tile<E, N, kMost>(s, weight, in, count, sums);
  switch (images) {
    // clang-format off
#define CASE(P) \
  case P:       \
    if constexpr (P < kMost) linear_tile<E, N, P>(s, weight, in, count, sums); \
    break;
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9)
#undef CASE
    // clang-format on
  }
}

// A linear layer: weights are read once for 64 images, a few inputs of 32 outputs at a time. An
// image reads the first `inputs`, none fewer than the next; null: all read those of the slice.
template <typename E>
void linear(const Call& call, const LayerSlice& slice, const int64_t* inputs, const E* in, E* out,
            int64_t batch, Team team) {
  constexpr int V = kLanes;
  typedef typename Vec<V>::F F;
  constexpr int64_t kImages = 64, kInputs = 512, kFew = 4;
  Strip<E> s;
  s.step = call.ld_in;
  s.block = slice.block;
  s.half = 8 * Product<E>::kStep;
  team.parallel_for((slice.co + 31) / 32, [&](int64_t task) {
    const int64_t o = task * 32, left = slice.co - o;
    const E* weight = (const E*)slice.weight + o / kBlock * slice.block;
    float sums[kImages * 32];
    for (int64_t b = 0; b < batch; b += kImages) {
      const int64_t images = std::min(batch - b, kImages);
      for (int64_t i = 0; i < images; i++)
        for (int64_t n = 0; n < (left > 16 ? 32 : 16); n++) sums[i * 32 + n] = slice.bias[o + n];
      for (int64_t c = 0, count, reading = images;; c += count) {
        while (inputs && reading && inputs[b + reading - 1] <= c) reading--;
        const int64_t end = !inputs ? slice.ci : reading ? inputs[b + reading - 1] : 0;
        count = std::min(end - c, kInputs);
        if (count <= 0) break;
        const E* from = in + b * call.ld_in + c;
        if (left > 16 && (V == 16 || reading < kFew))
          linear_tiles<E, 32 / V>(s, weight + c * kBlock, from, count, reading, sums);
        else  // registers hold sums of 16 outputs for more images
          for (int64_t n = 0; n < std::min<int64_t>(left, 32); n += 16)
            linear_tiles<E, 16 / V>(s, weight + n / kBlock * slice.block + c * kBlock, from, count,
                                    reading, sums + n);
      }
      const F low = call.low + F{}, high = call.high + F{};
      for (int64_t i = 0; i < images; i++) {
        E* to = out + (b + i) * call.ld_out + o;
        for (int64_t n = 0; n < std::min<int64_t>(left, 32); n += V)
          store<V>(call.add, to + n, read<V>(sums + i * 32 + n), left - n, low, high);
      }
    }
  });
}

}  // namespace
