// Convolutions. A tile keeps N vectors of V outputs for P pixels in registers; rows are taken in
// blocks that stay in the cache. What a kernel would multiply by the padding's zeros is left out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace {

constexpr int64_t kBlock = 16;             // outputs that lie together in packed weights
constexpr int64_t kRowBlock = 256 * 1024;  // bytes of input that a block of rows may take

// Where vector n of a tile lies: V == 8 takes the halves of a block one after the other.
template <int V>
inline int64_t output_of(int n) {
  return n * V;
}

template <typename E>
struct Strip {
  const E* in;
  int64_t row, pixel, step;  // elements from row to row, tap to tap, output to output
  int64_t top, bottom;       // rows of the kernel that lie in the image
  int64_t left, right;       // columns of it that do, but for the first pixel, and for the last
  bool joined;               // whether the taps of a row lie side by side, and their weights
  const E* weight;
  const float* bias;
  int64_t tap, block;
  int64_t
      half;  // elements from the weights of 8 outputs to those of the next 8, in a block or beyond
  E* out;
  int64_t co;  // outputs that are left
};

template <int V, typename E>
inline int64_t weights_of(int n, const Strip<E>& s) {
  if constexpr (V == kBlock) return n * s.block;
  return n / 2 * s.block + n % 2 * s.half;
}

// Adds `count` input channels of one tap to the sums of pixels [FROM, TO). Five pixels share a
// pointer: one each, and the compiler runs out of registers for them.
template <typename E, int V, int N, int P, int FROM, int TO>
inline __attribute__((always_inline)) void add_tap(typename Vec<V>::F (&sums)[N][P],
                                                   const Strip<E>& s, const E* weight, const E* in,
                                                   int64_t count) {
  constexpr int kBases = (P + 4) / 5;
  constexpr int64_t kStep = Product<E>::kStep;
  const char* base[kBases];
#pragma GCC unroll 4
  for (int k = 0; k < kBases; k++) base[k] = (const char*)(in + k * 5 * s.step);
  int64_t one = s.step * (int64_t)sizeof(E), three = 3 * one;
  asm("" : "+r"(one), "+r"(three));  // so that they stay offsets, and become no pointers
  for (const E* end = weight + count * kBlock; weight < end; weight += kStep * kBlock) {
    typedef typename Product<E>::template Weights<V> Weights;
    const auto weights = [&](int n) { return *(const Weights*)(weight + weights_of<V>(n, s)); };
    auto first = weights(0), second = weights(N > 1 ? 1 : 0), third = weights(N > 2 ? 2 : 0);
    if (kLanes == 8 && N <= 3) {  // held, where the compiler would read them again for each product
      asm("" : "+x"(first));
      if (N > 1) asm("" : "+x"(second));
      if (N > 2) asm("" : "+x"(third));
    }
#pragma GCC unroll 16
    for (int p = FROM; p < TO; p++) {
      const int k = p % 5;
      const int64_t offset = k == 0   ? 0
                             : k == 1 ? one
                             : k == 2 ? 2 * one
                             : k == 3 ? three
                                      : 4 * one;
      const E* x = (const E*)(base[p / 5] + offset);
#pragma GCC unroll 8
      for (int n = 0; n < N; n++)
        sums[n][p] = Product<E>::template add<V>(sums[n][p],
                                                 n == 0   ? first
                                                 : n == 1 ? second
                                                 : n == 2 ? third
                                                          : weights(n),
                                                 x);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kBases; k++) base[k] += kStep * sizeof(E);
  }
}

template <typename E, int V, int N, int P>
inline __attribute__((always_inline)) void convolve_tile(const Call& call, const Strip<E>& s,
                                                         int64_t ci) {
  typedef typename Vec<V>::F F;
  F sums[N][P];
  for (int n = 0; n < N; n++)
    for (int p = 0; p < P; p++) sums[n][p] = read<V>(s.bias + output_of<V>(n));
  for (int64_t y = s.top; y < s.bottom; y++) {
    const E* weight = s.weight + y * call.g.kw * s.tap;
    const E* in = s.in + y * s.row;
    int64_t x = s.left;
    if (x) add_tap<E, V, N, P, 1, P>(sums, s, weight, in, ci);
    if (s.joined)  // the taps of a row lie side by side, as do their weights
      add_tap<E, V, N, P, 0, P>(sums, s, weight + x * s.tap, in + x * s.pixel, (s.right - x) * ci);
    else
      for (; x < s.right; x++)
        add_tap<E, V, N, P, 0, P>(sums, s, weight + x * s.tap, in + x * s.pixel, ci);
    if (s.right < call.g.kw)
      add_tap<E, V, N, P, 0, P - 1>(sums, s, weight + s.right * s.tap, in + s.right * s.pixel, ci);
  }
  const F low = call.low + F{}, high = call.high + F{};
  const int64_t apart = call.ld_out,
                outputs = s.co;  // which a write might change, for the compiler
  const bool add = call.add;
  E* const out = s.out;
  const bool plain = !add && outputs >= N * V;  // layers of few inputs notice what is asked below
#pragma GCC unroll 8
  for (int n = 0; n < N; n++) {
    const int64_t left = outputs - output_of<V>(n);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) {
      E* to = out + p * apart + output_of<V>(n);
      if (plain)
        store<V>(false, to, sums[n][p], V, low, high);
      else if (left > 0)
        store<V>(add, to, sums[n][p], left, low, high);
    }
  }
}

template <typename E, int V, int N, int MOST>
void convolve_strip(const Call& call, const Strip<E>& s, int64_t ci, int pixels) {
  switch (pixels) {
    // clang-format off
#define CASE(P) \
  case P:       \
    if constexpr (P <= MOST) convolve_tile<E, V, N, P>(call, s, ci); \
    break;
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
    CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
#undef CASE
    // clang-format on
  }
}

// Tiles: outputs at once, and pixels for which the compiler keeps their sums in the registers.
#ifdef __AVX512F__
// 8 x 12 or 16, 16 x 16, 3 * 8 x 8, 2 * 16 x 12, 3 * 16 x 8
enum class Shape { narrow, half, odd, wide, deep };

// The shape for some outputs of a row of pixels.
inline Shape shape_of(int64_t outputs, int64_t row) {
  const bool few = (row + 7) / 8 == (row + 11) / 12;      // as many deep tiles a row as wide ones
  if (outputs > 32 && outputs <= 40) return Shape::half;  // then an odd one
  if (outputs > 32 && few) return Shape::deep;
  if (outputs > 24) return Shape::wide;
  return outputs > 16 ? Shape::odd : outputs > 8 ? Shape::half : Shape::narrow;
}

inline int64_t outputs_of(Shape shape) {
  if (shape == Shape::deep) return 48;
  return shape == Shape::wide ? 32 : shape == Shape::odd ? 24 : 16;
}

template <typename E>
constexpr int pixels_of(Shape shape) {
  if (shape == Shape::narrow)
    return sizeof(E) == 4 ? 12 : 16;  // 16 of floats take 1.4 times as long
  if (shape == Shape::deep || shape == Shape::odd) return 8;
  return shape == Shape::wide ? 12 : 16;
}

template <typename E>
void convolve_shape(Shape shape, const Call& call, const Strip<E>& s, int64_t ci, int pixels) {
  if (shape == Shape::narrow)
    convolve_strip<E, 8, 1, pixels_of<E>(Shape::narrow)>(call, s, ci, pixels);
  if (shape == Shape::half)
    convolve_strip<E, 16, 1, pixels_of<E>(Shape::half)>(call, s, ci, pixels);
  if (shape == Shape::odd) convolve_strip<E, 8, 3, pixels_of<E>(Shape::odd)>(call, s, ci, pixels);
  if (shape == Shape::wide)
    convolve_strip<E, 16, 2, pixels_of<E>(Shape::wide)>(call, s, ci, pixels);
  if (shape == Shape::deep)
    convolve_strip<E, 16, 3, pixels_of<E>(Shape::deep)>(call, s, ci, pixels);
}
#else
enum class Shape { narrow, half, deep };  // 8 x 12, 2 * 8 x 6, 3 * 8 x 4

inline Shape shape_of(int64_t outputs, int64_t row) {
  const bool few = (row + 3) / 4 == (row + 5) / 6;  // as many deep tiles a row as half ones
  if (outputs > 16 && few) return Shape::deep;
  return outputs > 8 ? Shape::half : Shape::narrow;
}

inline int64_t outputs_of(Shape shape) {
  return shape == Shape::deep ? 24 : shape == Shape::half ? 16 : 8;
}

template <typename E>
constexpr int pixels_of(Shape shape) {
  constexpr bool wide = sizeof(E) == 4;  // else registers are needed to widen in
  if (shape == Shape::deep) return wide ? 4 : 2;
  return shape == Shape::half ? (wide ? 6 : 4) : wide ? 12 : 8;
}

template <typename E>
void convolve_shape(Shape shape, const Call& call, const Strip<E>& s, int64_t ci, int pixels) {
  if (shape == Shape::narrow)
    convolve_strip<E, 8, 1, pixels_of<E>(Shape::narrow)>(call, s, ci, pixels);
  if (shape == Shape::half) convolve_strip<E, 8, 2, pixels_of<E>(Shape::half)>(call, s, ci, pixels);
  if (shape == Shape::deep) convolve_strip<E, 8, 3, pixels_of<E>(Shape::deep)>(call, s, ci, pixels);
}
#endif

// Copies the rows of an image that rows [first, last) of its result read, with a margin of zeros at
// the sides, and as many channels as are multiplied.
template <typename E>
void copy_rows(const Call& call, const LayerSlice& slice, int64_t ci, const E* image, int64_t first,
               int64_t last, E* to) {
  const Geometry& g = call.g;
  const int64_t row = (g.wi + 2 * g.pad_x) * ci, top = first * g.stride_y - g.pad_y;
  const int64_t bottom = top + (last - 1 - first) * g.stride_y + g.kh;
  poison(to, (bottom - top) * row);
  for (int64_t y = top; y < bottom; y++, to += row) {
    if (y < 0 || y >= g.hi) continue;
    memset(to, 0, row * sizeof(E));
    for (int64_t x = 0; x < g.wi; x++)
      memcpy(to + (g.pad_x + x) * ci, image + (y * g.wi + x) * call.ld_in, slice.ci * sizeof(E));
  }
}

// Rows [first, last) of one image's result.
template <typename E>
void convolve_rows(const Call& call, const LayerSlice& slice, const E* image, E* out, int64_t first,
                   int64_t last, E* room) {
  const Geometry& g = call.g;
  constexpr int64_t kStep = Product<E>::kStep;
  const int64_t ci = (slice.ci + kStep - 1) / kStep * kStep;
  // Pixels a multiple of 256 bytes apart, of which little is read, share few places of the cache.
  const int64_t apart = g.stride_x * call.ld_in * (int64_t)sizeof(E);
  const bool crowded = g.stride_x > 1 && ci < call.ld_in && apart % 256 == 0;
  // Without margins a column of the kernel may leave out the first pixel or the last, not both.
  const bool margins = g.pad_x > 1 || ci != slice.ci || (g.pad_x && g.kw < 2) || crowded;
  Strip<E> s;
  int64_t origin;  // of the first row's first tap
  if (margins) {
    copy_rows(call, slice, ci, image, first, last, room);
    image = room;
    s.pixel = ci;
    s.row = (g.wi + 2 * g.pad_x) * ci;
    origin = 0;
  } else {
    s.pixel = call.ld_in;
    s.row = g.wi * call.ld_in;
    origin = (first * g.stride_y - g.pad_y) * s.row - g.pad_x * s.pixel;
  }
  const bool beyond = (g.wo - 1) * g.stride_x - g.pad_x + g.kw > g.wi;
  s.step = g.stride_x * s.pixel;
  s.tap = slice.tap;
  s.block = slice.block;
  s.joined = s.pixel == ci && s.tap == ci * kBlock;
  // Without neighbours to read, rows are one row.
  const bool flat = g.kh * g.kw * g.stride_y * g.stride_x == 1 && g.pad_y + g.pad_x == 0;
  const int64_t wide = flat ? (last - first) * g.wo : g.wo, end = flat ? first + 1 : last;
  for (int64_t c = 0; c < slice.co;) {
    s.co = slice.co - c;
    const Shape shape = shape_of(s.co, wide);
    const int64_t most = pixels_of<E>(shape), pieces = (wide + most - 1) / most;
    const int64_t inside = c % kBlock * kStep;
    s.weight = (const E*)slice.weight + c / kBlock * slice.block + inside;
    s.half = inside ? slice.block - inside : 8 * kStep;
    s.bias = slice.bias + c;
    for (int64_t y = first; y < end; y++) {
      const int64_t above = g.pad_y - y * g.stride_y;
      s.top = std::max<int64_t>(above, 0);
      s.bottom = std::min(g.hi + above, g.kh);
      int64_t x = 0;
      for (int64_t left = pieces; left > 0; left--) {
        const int pixels = (int)((wide - x + left - 1) / left);
        s.left = margins || x ? 0 : g.pad_x;
        s.right = margins || left > 1 || !beyond ? g.kw : g.kw - 1;
        s.in = image + (origin + (y - first) * g.stride_y * s.row + x * s.step);
        s.out = out + (y * g.wo + x) * call.ld_out + c;
        convolve_shape(shape, call, s, ci, pixels);
        x += pixels;
      }
    }
    c += outputs_of(shape);
  }
}

template <typename E>
void convolve(const Call& call, const WidthLookup& lookup, const E* in, E* out, int64_t batch,
              Team team) {
  const Geometry& g = call.g;
  int64_t widest = 0;
  for (int64_t b = 0; b < batch; b++) {
    const LayerSlice& slice = lookup.of(b);
    widest = std::max(widest, slice.ci);
    if (!team.index) lookup.count(b, slice.ci * slice.co * g.ho * g.wo * g.kh * g.kw);
  }
  const int64_t line = (g.wi + 2 * g.pad_x) * (widest + 1);
  int64_t fit = (kRowBlock / (int64_t)sizeof(E) / line - g.kh) / g.stride_y + 1;
  if (batch < team.count) fit = std::min(fit, (g.ho + team.count - 1) / team.count);
  const int64_t step = std::min(g.ho, std::max(fit, std::min<int64_t>(4, g.ho)));
  const int64_t blocks = (g.ho + step - 1) / step;
  E* const room = scratch<E>(((step - 1) * g.stride_y + g.kh) * line, team);
  team.parallel_for(batch * blocks, [&](int64_t task) {
    if (!room) return;
    const int64_t b = task / blocks, first = task % blocks * step;
    convolve_rows(call, lookup.of(b), in + b * g.hi * g.wi * call.ld_in,
                  out + b * g.ho * g.wo * call.ld_out, first, std::min(first + step, g.ho), room);
  });
}

}  // namespace
