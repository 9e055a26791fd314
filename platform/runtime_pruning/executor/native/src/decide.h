// Decisions between the layers: a small recurrent network, and the widths that follow.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "abi.h"
#include "pooling.h"
#include "simd.h"
#include "threads.h"

namespace {

constexpr int64_t kDecidedTogether = 8;  // images that are decided at once: they share the matrices
constexpr int64_t kSharedMap = 64 * 1024;  // bytes of a feature map whose means threads share

// Adds products of B vectors with N registers of columns of a matrix, the first `left` alone, to
// their sums.
template <int N, int B>
inline __attribute__((always_inline)) void columns(const float* vectors, int64_t inputs,
                                                   const float* matrix, int64_t outputs,
                                                   int64_t left, float* sums) {
  constexpr int V = kLanes;
  typedef Vec<V>::F F;
  F own[B][N];
  for (int b = 0; b < B; b++)
    for (int n = 0; n < N; n++) {
      const float* from = sums + b * outputs + n * V;
      own[b][n] = left < V ? read_first<V>(from, left) : read<V>(from);
    }
  for (int64_t i = 0; i < inputs; i++) {
    const float* row = matrix + i * outputs;
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) {
      const F weight = left < V ? read_first<V>(row, left) : read<V>(row + n * V);
#pragma GCC unroll 8
      for (int b = 0; b < B; b++) own[b][n] += weight * vectors[b * inputs + i];
    }
  }
  for (int b = 0; b < B; b++)
    for (int n = 0; n < N; n++) {
      if (left < V)
        write_first<V>(sums + b * outputs, own[b][n], left);
      else
        write<V>(sums + b * outputs + n * V, own[b][n]);
    }
}

// sums += vectors * matrix, for B vectors
template <int B>
inline void product(const float* vectors, int64_t inputs, const float* matrix, int64_t outputs,
                    float* sums) {
  // As many sums as hide how long each takes, and fit the registers.
  constexpr int V = kLanes, N = B == 1 ? 64 / V : V / 8;
  int64_t o = 0;
  for (; o + V * N <= outputs; o += V * N)
    columns<N, B>(vectors, inputs, matrix + o, outputs, V, sums + o);
  for (; o + V <= outputs; o += V) columns<1, B>(vectors, inputs, matrix + o, outputs, V, sums + o);
  if (o < outputs) columns<1, B>(vectors, inputs, matrix + o, outputs, outputs - o, sums + o);
}

// e^x of single floats, to about their precision: 2^n times a polynomial of what is left, |r| <
// 0.35. A loop over it becomes vectors, which one over the library's function does not.
inline float exponential(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float n = std::nearbyint(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float sum = 1.9875691500e-4f;
  for (float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 0.5f})
    sum = sum * r + next;
  sum = sum * r * r + r + 1;
  const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
  float scale;
  memcpy(&scale, &bits, sizeof scale);
  return sum * scale;
}

inline float sigmoid(float x) { return 1 / (1 + exponential(-x)); }

inline float tangent(float x) { return 2 * sigmoid(2 * x) - 1; }

// Gates in PyTorch's order: reset, update, new of a GRU; input, forget, cell, output of an LSTM.
void recur(const Decision& d, const float* input, const float* carry, float* __restrict hidden,
           float* __restrict cell) {
  const int64_t units = d.hidden;
  if (d.lstm) {
    for (int64_t i = 0; i < units; i++) {
      const int64_t j = i + units, k = j + units, l = k + units;
      cell[i] = sigmoid(input[j] + carry[j]) * cell[i] +
                sigmoid(input[i] + carry[i]) * tangent(input[k] + carry[k]);
      hidden[i] = sigmoid(input[l] + carry[l]) * tangent(cell[i]);
    }
    return;
  }
  for (int64_t i = 0; i < units; i++) {
    const int64_t j = i + units, k = j + units;
    const float fresh = tangent(input[k] + sigmoid(input[i] + carry[i]) * carry[k]);
    const float keep = sigmoid(input[j] + carry[j]);
    hidden[i] = fresh + keep * (hidden[i] - fresh);
  }
}

// Decides for B images.
template <int B>
void decide_block(const Decision& d, const float* features, int64_t* previous, float* hidden,
                  float* cell, float* room) {
  const int64_t all = (d.lstm ? 4 : 3) * d.hidden;
  float *code = room, *values = code + B * d.code, *input = values + B * d.values;
  float* carry = input + B * all;
  for (int b = 0; b < B; b++) {
    std::copy_n(d.table + previous[b] * d.code, d.code, code + b * d.code);
    std::copy_n(d.input_bias, all, input + b * all);
    std::copy_n(d.carry_bias, all, carry + b * all);
    std::copy_n(d.decode_bias, d.values, values + b * d.values);
  }
  product<B>(features, d.features, d.encode, d.code, code);
  for (int64_t i = 0; i < B * d.code; i++) code[i] = code[i] < 0 ? 0 : code[i];
  product<B>(code, d.code, d.input, all, input);
  product<B>(hidden, d.hidden, d.carry, all, carry);
  for (int b = 0; b < B; b++)
    recur(d, input + b * all, carry + b * all, hidden + b * d.hidden, cell + b * d.hidden);
  product<B>(hidden, d.hidden, d.decode, d.values, values);
  for (int b = 0; b < B; b++, values += d.values)
    previous[b] = std::max_element(values, values + d.values) - values + 1;
}

// Decides for images; `features_of` has an image and a place that may take them, and returns where
// the features of this image and those behind it are.
template <typename F>
void decide_all(const Decision& d, int64_t batch, F features_of, int64_t* previous, float* hidden,
                float* cell, const Team& team) {
  const int64_t gates = 2 * (d.lstm ? 4 : 3) * d.hidden;
  float* const place =
      scratch<float>(kDecidedTogether * (d.features + d.code + d.values + gates), team);
  if (!place) return;
  float* const room = place + kDecidedTogether * d.features;
  for (int64_t b = 0; b < batch;) {
    const int64_t left = batch - b, images = left >= kDecidedTogether ? kDecidedTogether
                                             : left >= 4              ? 4
                                                                      : 1;
    const float* features = features_of(b, images, place);
    const auto block = images == kDecidedTogether ? decide_block<kDecidedTogether>
                       : images == 4              ? decide_block<4>
                                                  : decide_block<1>;
    block(d, features, previous + b, hidden + b * d.hidden, cell + b * d.hidden, room);
    b += images;
  }
}

// The places of widths of images [first, last), of some keys, from group counts [image][site].
void settle_all(const WidthKey* keys, int64_t count, const int64_t* groups, int64_t sites,
                int64_t batch, int64_t first, int64_t last, int32_t* places) {
  for (const WidthKey* key = keys; key < keys + count; key++, places += batch)
    for (int64_t b = first; b < last; b++) {
      int32_t most = 0;
      for (int64_t s = 0; s < key->sites; s++)
        most = std::max(most, key->place[s * key->counts + groups[b * sites + key->site[s]]]);
      places[b] = most;
    }
}

// Means over parts of the pixels of feature maps, [image][part][channel].
struct Parts {
  float* means;  // or null
  int64_t count;

  // Finds those of a part of an image's pixels.
  template <typename E>
  void find(const E* in, int64_t ld, int64_t pixels, int64_t channels, int64_t image,
            int64_t part) const {
    const int64_t first = pixels * part / count, last = pixels * (part + 1) / count;
    in += (image * pixels + first) * ld;
    ::means(in, ld, last - first, channels, means + (image * count + part) * ld);
  }

  // The means over all pixels.
  void join(int64_t ld, int64_t pixels, int64_t channels, int64_t image, float* to) const {
    std::fill(to, to + channels, 0.0f);
    const float* from = means + image * count * ld;
    for (int64_t part = 0; part < count; part++, from += ld) {
      const int64_t own = pixels * (part + 1) / count - pixels * part / count;
      for (int64_t c = 0; c < channels; c++) to[c] += from[c] * ((float)own / (float)pixels);
    }
  }
};

// Decides a site for images [first, last) of a batch behind its first `before`, from their feature
// maps at `in`, or from `parts` of those.
template <typename E>
void decide_site(const DecisionState& d, int64_t site, const Call& call, const WidthLookup& lookup,
                 const E* in, const Parts& parts, int64_t batch, int64_t before, int64_t first,
                 int64_t last, const Team& team) {
  int64_t* groups = d.groups + before * d.sites + site;
  if (site < d.settled) {
    for (int64_t b = first; b < last; b++) groups[b * d.sites] = 1;
  } else {
    const Decision& own = *d.decisions[site];
    const int64_t pixels = call.g.hi * call.g.wi;
    const auto features_of = [&](int64_t image, int64_t images, float* features) {
      for (int64_t b = first + image; b < first + image + images; b++, features += own.features) {
        const int64_t count = lookup.of(b).co, ld = call.ld_in;
        if (parts.means)
          parts.join(ld, pixels, count, b, features);
        else
          means(in + b * pixels * ld, ld, pixels, count, features);
        std::fill(features + count, features + own.features, 0.0f);
      }
      return features - images * own.features;
    };
    const int64_t state = (before + first) * own.hidden;
    int64_t* previous = d.previous + before;
    decide_all(own, last - first, features_of, previous + first, d.hidden + state, d.cell + state,
               team);
    for (int64_t b = first; b < last; b++) groups[b * d.sites] = previous[b];
  }
  const int64_t key = d.known[site];
  settle_all(d.keys + key, d.known[site + 1] - key, d.groups, d.sites, batch, before + first,
             before + last, d.places + key * batch);
}

}  // namespace
