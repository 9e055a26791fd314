// Random layers, and what their outputs are by plain loops.
#pragma once

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "program.cpp"

namespace {

std::mt19937 generator(0);

int64_t draw(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator);
}

float to_float(float x) { return x; }
float to_float(bf16 x) {
  const uint32_t bits = (uint32_t)x.bits << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

template <typename E>
E of_float(float x) {
  E value;
  write<1>(&value, Vec<1>::F{x});
  return value;
}

template <typename E>
std::vector<E> random_values(int64_t count, float scale = 1) {
  std::uniform_real_distribution<float> uniform(-scale, scale);
  std::vector<E> values(count);
  for (E& value : values) value = of_float<E>(uniform(generator));
  return values;
}

[[noreturn]] void fail(const char* what, double found, double expected) {
  printf("%s: %g where %g is right\n", what, found, expected);
  exit(1);
}

template <typename E>
void near(const char* what, E found, double expected) {
  const double off = std::fabs(to_float(found) - expected);
  const double allowed = sizeof(E) == 4 ? 1e-4 : 2e-2;
  if (!(off <= allowed * (1 + std::fabs(expected)))) fail(what, to_float(found), expected);
}

// The functions of a type of element.
template <typename E>
struct Api;
#define API(E, type)                                         \
  template <>                                                \
  struct Api<E> {                                            \
    static constexpr auto convolve = convolve_##type;        \
    static constexpr auto depthwise = depthwise_##type;      \
    static constexpr auto linear = linear_##type;            \
    static constexpr auto pool = pool_##type;                \
    static constexpr auto run = run_##type;                  \
    static constexpr auto decide = decide_##type;            \
    static constexpr int64_t kPair = sizeof(E) == 4 ? 1 : 2; \
  }
API(float, float32);
API(bf16, bfloat16);

// A layer with its weights as they are given, and as the library reads them.
template <typename E>
struct Layer {
  int64_t inputs, outputs, kh, kw;
  bool depthwise;
  std::vector<E> plain, packed;
  std::vector<float> bias;

  Layer(int64_t inputs, int64_t outputs, int64_t kh, int64_t kw, bool depthwise = false)
      : inputs(inputs), outputs(outputs), kh(kh), kw(kw), depthwise(depthwise) {
    constexpr int64_t kPair = Api<E>::kPair;
    const int64_t blocks = (outputs + 15) / 16, whole = (inputs + kPair - 1) / kPair * kPair;
    plain = random_values<E>(outputs * kh * kw * (depthwise ? 1 : inputs), 0.3f);
    packed.assign(depthwise ? kh * kw * blocks * 16 : blocks * kh * kw * whole * 16, E{});
    bias.assign(blocks * 16, 0.0f);
    for (int64_t o = 0; o < outputs; o++) {
      bias[o] = (float)draw(-9, 9) / 8;
      for (int64_t tap = 0; tap < kh * kw; tap++)
        for (int64_t i = 0; i < (depthwise ? 1 : inputs); i++)
          packed[place(o, tap, i)] = at(o, tap, i);
    }
  }

  int64_t whole() const { return (inputs + Api<E>::kPair - 1) / Api<E>::kPair * Api<E>::kPair; }
  E at(int64_t o, int64_t tap, int64_t i) const {
    return plain[(o * kh * kw + tap) * (depthwise ? 1 : inputs) + i];
  }
  int64_t place(int64_t o, int64_t tap, int64_t i) const {
    constexpr int64_t kPair = Api<E>::kPair;
    if (depthwise) return tap * ((outputs + 15) / 16 * 16) + o;
    return ((o / 16 * kh * kw + tap) * whole() + i / kPair * kPair) * 16 + o % 16 * kPair +
           i % kPair;
  }
  LayerSlice slice(int64_t ci, int64_t co) const {
    const int64_t tap = depthwise ? (outputs + 15) / 16 * 16 : whole() * 16;
    return {packed.data(), bias.data(), ci, co, tap, depthwise ? 0 : kh * kw * tap};
  }
};

Geometry geometry_of(int64_t hi, int64_t wi, int64_t kh, int64_t kw, int64_t sy, int64_t sx,
                     int64_t py, int64_t px) {
  return {hi, wi, (hi + 2 * py - kh) / sy + 1, (wi + 2 * px - kw) / sx + 1, kh, kw, sy, sx, py, px};
}

Geometry drawn_geometry(int64_t most_kernel) {
  for (;;) {
    const int64_t kh = draw(1, most_kernel), kw = draw(0, 2) ? kh : draw(1, most_kernel);
    const int64_t hi = draw(1, 19), wi = draw(0, 9) ? draw(1, 19) : draw(20, 45);
    const Geometry g =
        geometry_of(hi, wi, kh, kw, draw(1, 3), draw(1, 3), draw(0, kh / 2), draw(0, kw / 2));
    if (hi + 2 * g.pad_y >= kh && wi + 2 * g.pad_x >= kw) return g;
  }
}

// What one output is, by plain loops.
template <typename E>
double by_loops(const Layer<E>& layer, const Call& call, int64_t ci, const E* image, int64_t y,
                int64_t x, int64_t o) {
  const Geometry& g = call.g;
  double sum = layer.bias[o];
  for (int64_t v = 0; v < g.kh; v++)
    for (int64_t u = 0; u < g.kw; u++) {
      const int64_t row = y * g.stride_y + v - g.pad_y, column = x * g.stride_x + u - g.pad_x;
      if (row < 0 || row >= g.hi || column < 0 || column >= g.wi) continue;
      const E* pixel = image + (row * g.wi + column) * call.ld_in;
      if (layer.depthwise)
        sum += (double)to_float(pixel[o]) * to_float(layer.at(o, v * g.kw + u, 0));
      else
        for (int64_t i = 0; i < ci; i++)
          sum += (double)to_float(pixel[i]) * to_float(layer.at(o, v * g.kw + u, i));
    }
  return sum;
}

}  // namespace
