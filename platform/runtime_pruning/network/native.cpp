// Convolutions of channels-last feature maps, each image at widths of its own.
//
// One call runs a layer on a batch: image b reads the first `ci` channels of its pixels and writes
// the first `co`, as its row of `widths` says. Nothing is gathered and nothing is masked. A tile
// keeps N vectors of V outputs for P pixels in registers; rows are taken in blocks that stay in
// the cache. What a kernel would multiply by the padding's zeros is left out.
//
// Elements are float or bfloat16 (the latter in pairs, summed in float).
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

using Long = int64_t;
constexpr Long kBlock = 16;                 // outputs that lie together in packed weights
constexpr Long kCached = 256 * 1024;        // bytes of input that a block of rows may take

struct Geometry {
  Long hi, wi, ho, wo, kh, kw, stride_y, stride_x, pad_y, pad_x;
};

struct Width {
  // [co / 16][kh][kw][ci][16], bfloat16: [co / 16][kh][kw][ci / 2][16][2]; depthwise: [kh][kw][co]
  const void* weight;
  const float* bias;   // as many as a whole number of blocks
  Long ci, co;
  Long tap, block;  // elements between taps, and between blocks, of the weights
};

struct Call {
  Geometry g;
  Long ld_in, ld_out;  // elements from pixel to pixel
  float low, high;     // results are clamped
  Long add;            // whether results are added to what is there
};

struct bf16 {
  uint16_t bits;
};

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
#endif
  auto bits = (typename Vec<V>::U)value;
  bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  *(typename Vec<V>::H*)to = __builtin_convertvector(bits, typename Vec<V>::H);
}

// The same for the first elements alone; the others are neither read nor written.
template <int V, typename E>
inline typename Vec<V>::F read_first(const E* from, Long count) {
#ifdef __AVX512VL__
  if constexpr (V == 16 && sizeof(E) == 4)
    return (typename Vec<V>::F)_mm512_maskz_loadu_ps((1u << count) - 1, from);
#endif
  E part[V] = {};
  memcpy(part, from, count * sizeof(E));
  return read<V>(part);
}

template <int V, typename E>
inline void write_first(E* to, typename Vec<V>::F value, Long count) {
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
#endif
  E part[V];
  write<V>(part, value);
  memcpy(to, part, count * sizeof(E));
}

template <typename E>
struct Product;

template <>
struct Product<float> {
  static constexpr Long kStep = 1;  // input channels at once
  template <int V>
  static inline typename Vec<V>::F add(typename Vec<V>::F sum, const float* weight, const float* x) {
    return sum + read<V>(weight) * *x;
  }
};

#ifdef __AVX512BF16__
template <>
struct Product<bf16> {
  static constexpr Long kStep = 2;
  template <int V>
  static inline typename Vec<V>::F add(typename Vec<V>::F sum, const bf16* weight, const bf16* x) {
    int pair;
    memcpy(&pair, x, 4);
    if constexpr (V == 16) {
      auto w = (__m512bh)_mm512_loadu_si512(weight);
      return (typename Vec<V>::F)_mm512_dpbf16_ps((__m512)sum, w, (__m512bh)_mm512_set1_epi32(pair));
    } else {
      auto w = (__m256bh)_mm256_loadu_si256((const __m256i*)weight);
      return (typename Vec<V>::F)_mm256_dpbf16_ps((__m256)sum, w, (__m256bh)_mm256_set1_epi32(pair));
    }
  }
};
#endif

// Where vector n of a tile lies: V == 8 takes the halves of a block one after the other.
template <int V>
inline Long output_of(int n) {
  return n * V;
}

template <typename E, int V>
inline Long weights_of(int n, Long block) {
  Long output = n * V;
  return output / kBlock * block + output % kBlock * Product<E>::kStep;
}

template <typename E>
struct Strip {
  const E* in;
  Long row, pixel, step;  // elements from row to row, tap to tap, output to output
  Long top, bottom;       // rows of the kernel that lie in the image
  Long left, right;       // columns of it that do, but for the first pixel, and for the last
  const E* weight;
  const float* bias;
  Long tap, block;
  E* out;
  Long co;  // outputs that are left
};

// Writes sums, added to what is there if the call adds, between its limits; the first `left` alone
// where fewer are left.
template <int V, typename E>
inline __attribute__((always_inline)) void finish(const Call& call, E* out, typename Vec<V>::F sum,
                                                  Long left, typename Vec<V>::F low,
                                                  typename Vec<V>::F high) {
  if (call.add) sum += left < V ? read_first<V>(out, left) : read<V>(out);
  sum = sum > low ? sum : low;
  sum = sum < high ? sum : high;
  if (left < V)
    write_first<V>(out, sum, left);
  else
    write<V>(out, sum);
}

// Adds one tap of the kernel to the sums of pixels [FROM, TO).
template <typename E, int V, int N, int P, int FROM, int TO>
inline __attribute__((always_inline)) void tap(typename Vec<V>::F (&sums)[N][P], const Strip<E>& s,
                                               const E* weight, const E* in, Long ci) {
  for (Long c = 0; c < ci; c += Product<E>::kStep) {
#pragma GCC unroll 16
    for (int p = FROM; p < TO; p++)
#pragma GCC unroll 8
      for (int n = 0; n < N; n++)
        sums[n][p] = Product<E>::template add<V>(
            sums[n][p], weight + weights_of<E, V>(n, s.block) + c * kBlock, in + p * s.step + c);
  }
}

template <typename E, int V, int N, int P>
inline __attribute__((always_inline)) void tile(const Call& call, const Strip<E>& s, Long ci) {
  typedef typename Vec<V>::F F;
  F sums[N][P];
  for (int n = 0; n < N; n++)
    for (int p = 0; p < P; p++) sums[n][p] = read<V>(s.bias + output_of<V>(n));
  for (Long y = s.top; y < s.bottom; y++) {
    const E* weight = s.weight + y * call.g.kw * s.tap;
    const E* in = s.in + y * s.row;
    Long x = 0;
    for (; x < s.left; x++) tap<E, V, N, P, 1, P>(sums, s, weight + x * s.tap, in + x * s.pixel, ci);
    for (; x < s.right; x++) tap<E, V, N, P, 0, P>(sums, s, weight + x * s.tap, in + x * s.pixel, ci);
    for (; x < call.g.kw; x++)
      tap<E, V, N, P, 0, P - 1>(sums, s, weight + x * s.tap, in + x * s.pixel, ci);
  }
  const F low = call.low + F{}, high = call.high + F{};
#pragma GCC unroll 8
  for (int n = 0; n < N; n++) {
    const Long left = s.co - output_of<V>(n);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) {
      E* out = s.out + p * call.ld_out + output_of<V>(n);
      if (left > 0) finish<V>(call, out, sums[n][p], left, low, high);
    }
  }
}

template <typename E, int V, int N, int MOST>
void strip(const Call& call, const Strip<E>& s, Long ci, int pixels) {
  switch (pixels) {
#define CASE(P) \
  case P:       \
    if constexpr (P <= MOST) tile<E, V, N, P>(call, s, ci); \
    break;
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
    CASE(9) CASE(10)
#undef CASE
  }
}

// Tiles: outputs at once, and pixels for which the compiler keeps their sums in 32 registers.
enum class Shape { narrow, half, wide, deep };  // 8 x 8, 16 x 10, 2 * 16 x 10, 3 * 16 x 8

template <typename E>
void run_strip(Shape shape, const Call& call, const Strip<E>& s, Long ci, int pixels) {
  if (shape == Shape::narrow) strip<E, 8, 1, 8>(call, s, ci, pixels);
  if (shape == Shape::half) strip<E, 16, 1, 16>(call, s, ci, pixels);
  if (shape == Shape::wide) strip<E, 16, 2, 10>(call, s, ci, pixels);
  if (shape == Shape::deep) strip<E, 16, 3, 8>(call, s, ci, pixels);
}

// Copies the rows of an image that rows [first, last) of its result read, with a margin of zeros at
// the sides, and as many channels as are multiplied.
template <typename E>
void copy_rows(const Call& call, const Width& width, Long ci, const E* image, Long first, Long last,
               E* to) {
  const Geometry& g = call.g;
  const Long row = (g.wi + 2 * g.pad_x) * ci, top = first * g.stride_y - g.pad_y;
  const Long bottom = top + (last - 1 - first) * g.stride_y + g.kh;
  for (Long y = top; y < bottom; y++, to += row) {
    if (y < 0 || y >= g.hi) continue;
    memset(to, 0, row * sizeof(E));
    for (Long x = 0; x < g.wi; x++)
      memcpy(to + (g.pad_x + x) * ci, image + (y * g.wi + x) * call.ld_in, width.ci * sizeof(E));
  }
}

// Rows [first, last) of one image's result.
template <typename E>
void rows(const Call& call, const Width& width, const E* image, E* out, Long first, Long last,
          E* scratch) {
  const Geometry& g = call.g;
  constexpr Long kStep = Product<E>::kStep;
  const Long ci = (width.ci + kStep - 1) / kStep * kStep;
  const bool margins = g.pad_x > 1 || ci != width.ci;
  Strip<E> s;
  Long origin;  // of the first row's first tap
  if (margins) {
    copy_rows(call, width, ci, image, first, last, scratch);
    image = scratch;
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
  s.tap = width.tap;
  s.block = width.block;
  for (Long c = 0; c < width.co;) {
    s.co = width.co - c;
    Shape shape = s.co > 32 && g.wo <= 7 ? Shape::deep
                  : s.co > 24            ? Shape::wide
                  : s.co > 8             ? Shape::half
                                         : Shape::narrow;
    const Long most = shape == Shape::half || shape == Shape::wide ? 10 : 8;
    const Long pieces = (g.wo + most - 1) / most;
    s.weight = (const E*)width.weight + c / kBlock * width.block;
    s.bias = width.bias + c;
    for (Long y = first; y < last; y++) {
      const Long above = g.pad_y - y * g.stride_y;
      s.top = std::max<Long>(above, 0);
      s.bottom = std::min(g.hi + above, g.kh);
      Long x = 0;
      for (Long left = pieces; left > 0; left--) {
        const int pixels = (int)((g.wo - x + left - 1) / left);
        s.left = margins || x ? 0 : g.pad_x;
        s.right = margins || left > 1 || !beyond ? g.kw : g.kw - 1;
        s.in = image + (origin + (y - first) * g.stride_y * s.row + x * s.step);
        s.out = out + (y * g.wo + x) * call.ld_out + c;
        run_strip(shape, call, s, ci, pixels);
        x += pixels;
      }
    }
    c += shape == Shape::deep ? 48 : shape == Shape::wide ? 32 : 16;
  }
}

template <typename E>
void convolve(const Call& call, const Width* widths, const int32_t* width_of, const E* in, E* out,
              Long batch, Long threads) {
  const Geometry& g = call.g;
  Long widest = 0;
  for (Long b = 0; b < batch; b++) widest = std::max(widest, widths[width_of ? width_of[b] : 0].ci);
  const Long line = (g.wi + 2 * g.pad_x) * (widest + 1);
  Long fit = (kCached / (Long)sizeof(E) / line - g.kh) / g.stride_y + 1;
  if (batch < threads) fit = std::min(fit, (g.ho + threads - 1) / threads);
  const Long step = std::min(g.ho, std::max(fit, std::min<Long>(4, g.ho)));
  const Long blocks = (g.ho + step - 1) / step, tasks = batch * blocks;
  const Long size = (((step - 1) * g.stride_y + g.kh) * line * (Long)sizeof(E) + 63) / 64 * 64;
#pragma omp parallel num_threads(threads) if (threads > 1 && tasks > 1)
  {
    static thread_local E* scratch = nullptr;
    static thread_local Long held = 0;
    if (size > held) {
      free(scratch);
      scratch = (E*)aligned_alloc(64, size);
      held = size;
    }
#pragma omp for schedule(dynamic)
    for (Long task = 0; task < tasks; task++) {
      const Long b = task / blocks, first = task % blocks * step;
      const Width& width = widths[width_of ? width_of[b] : 0];
      rows(call, width, in + b * g.hi * g.wi * call.ld_in, out + b * g.ho * g.wo * call.ld_out,
           first, std::min(first + step, g.ho), scratch);
    }
  }
}

// Pixels whose depthwise kernels reach the same taps, [top, bottom) x [left, right), for 16 channels
// from `c` on, or the `count` that there are.
template <typename E, int P>
inline __attribute__((always_inline)) void depthwise_tile(const Call& call, const Width& width,
                                                          const E* in, E* out, Long c, Long count,
                                                          Long top, Long bottom, Long left,
                                                          Long right) {
  constexpr int V = 16;
  typedef Vec<V>::F F;
  F sums[P];
  for (int p = 0; p < P; p++) sums[p] = read<V>(width.bias + c);
  const E* weights = (const E*)width.weight + c;
  const Long step = call.g.stride_x * call.ld_in;
  for (Long y = top; y < bottom; y++)
    for (Long x = left; x < right; x++) {
      const E* from = in + (y * call.g.wi + x) * call.ld_in + c;
      const F weight = read<V>(weights + (y * call.g.kw + x) * width.tap);
      for (int p = 0; p < P; p++)
        sums[p] += weight * (count < V ? read_first<V>(from + p * step, count) : read<V>(from + p * step));
    }
  const F low = call.low + F{}, high = call.high + F{};
  for (int p = 0; p < P; p++) {
    finish<V>(call, out + p * call.ld_out + c, sums[p], count, low, high);
  }
}

// Row y of one image's result: each channel by a kernel of its own.
template <typename E>
void depthwise_row(const Call& call, const Width& width, const E* image, E* out, Long y) {
  constexpr int V = 16, P = 4;
  const Geometry& g = call.g;
  const Long above = g.pad_y - y * g.stride_y;
  const Long top = std::max<Long>(above, 0), bottom = std::min(g.hi + above, g.kh);
  for (Long x = 0; x < g.wo;) {
    const Long before = g.pad_x - x * g.stride_x;
    const Long left = std::max<Long>(before, 0), right = std::min(g.wi + before, g.kw);
    const Long last = g.wi + before - (P - 1) * g.stride_x;
    const bool inner = x + P <= g.wo && left == 0 && last >= g.kw;
    const bool three = inner && top == 0 && bottom == 3 && g.kh == 3 && g.kw == 3;
    const E* in = image - (above * g.wi + before) * call.ld_in;
    E* to = out + (y * g.wo + x) * call.ld_out;
    for (Long c = 0; c < width.co; c += V) {
      const Long count = std::min<Long>(width.co - c, V);
      if (three && count == V)
        depthwise_tile<E, P>(call, width, in, to, c, V, 0, 3, 0, 3);
      else if (inner)
        depthwise_tile<E, P>(call, width, in, to, c, count, top, bottom, left, right);
      else
        depthwise_tile<E, 1>(call, width, in, to, c, count, top, bottom, left, right);
    }
    x += inner ? P : 1;
  }
}

template <typename E>
void depthwise(const Call& call, const Width* widths, const int32_t* width_of, const E* in, E* out,
               Long batch, Long threads) {
  const Geometry& g = call.g;
  const Long tasks = batch * g.ho;
#pragma omp parallel for num_threads(threads) if (threads > 1 && tasks > 1)
  for (Long task = 0; task < tasks; task++) {
    const Long b = task / g.ho;
    depthwise_row(call, widths[width_of ? width_of[b] : 0], in + b * g.hi * g.wi * call.ld_in,
                  out + b * g.ho * g.wo * call.ld_out, task % g.ho);
  }
}

// Means over the pixels of each image's first channels: `channels` of an image, or `all` of each.
template <typename E>
void pool(const E* in, Long ld, Long pixels, const Long* channels, Long all, Long batch, float* out,
          Long most) {
  for (Long b = 0; b < batch; b++) {
    const Long count = channels ? channels[b] : all;
    float* sums = out + b * most;
    memset(sums, 0, most * sizeof(float));
    for (Long p = 0; p < pixels; p++) {
      const E* from = in + (b * pixels + p) * ld;
      Long c = 0;
      for (; c + 8 <= count; c += 8) write<8>(sums + c, read<8>(sums + c) + read<8>(from + c));
      for (; c < count; c++) sums[c] += read<1>(from + c)[0];
    }
    for (Long c = 0; c < count; c++) sums[c] /= (float)pixels;
  }
}

// One decision of a network with a recurrent cell; all matrices lie input by output.
struct Decision {
  const float *encode, *table;            // features to code; what is added, by previous decision
  const float *input, *input_bias;        // code to gates
  const float *carry, *carry_bias;        // hidden state to gates
  const float *decode, *decode_bias;      // hidden state to values
  Long features, code, hidden, values, lstm;
};

// sums += vector * matrix
inline void product(const float* vector, Long inputs, const float* matrix, Long outputs,
                    float* __restrict sums) {
  for (Long i = 0; i < inputs; i++) {
    const float x = vector[i];
    const float* row = matrix + i * outputs;
    for (Long o = 0; o < outputs; o++) sums[o] += x * row[o];
  }
}

// e^x of single floats, to about their precision: 2^n times a polynomial of what is left, |r| < 0.35.
// A loop over it becomes vectors, which one over the library's function does not.
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
void recur(const Decision& d, const float* code, float* __restrict hidden, float* __restrict cell,
           float* __restrict gates) {
  const Long width = d.hidden, all = (d.lstm ? 4 : 3) * width;
  float *input = gates, *carry = gates + all;
  std::copy_n(d.input_bias, all, input);
  std::copy_n(d.carry_bias, all, carry);
  product(code, d.code, d.input, all, input);
  product(hidden, width, d.carry, all, carry);
  if (d.lstm) {
    for (Long i = 0; i < width; i++) {
      const Long j = i + width, k = j + width, l = k + width;
      cell[i] = sigmoid(input[j] + carry[j]) * cell[i] +
                sigmoid(input[i] + carry[i]) * tangent(input[k] + carry[k]);
      hidden[i] = sigmoid(input[l] + carry[l]) * tangent(cell[i]);
    }
    return;
  }
  for (Long i = 0; i < width; i++) {
    const Long j = i + width, k = j + width;
    const float fresh = tangent(input[k] + sigmoid(input[i] + carry[i]) * carry[k]);
    const float keep = sigmoid(input[j] + carry[j]);
    hidden[i] = fresh + keep * (hidden[i] - fresh);
  }
}

void decide_one(const Decision& d, const float* features, Long* previous, float* hidden, float* cell,
                float* room) {
  float *code = room, *values = code + d.code, *gates = values + d.values;
  std::copy_n(d.table + *previous * d.code, d.code, code);
  product(features, d.features, d.encode, d.code, code);
  for (Long i = 0; i < d.code; i++) code[i] = code[i] > 0 ? code[i] : 0;
  recur(d, code, hidden, cell, gates);
  std::copy_n(d.decode_bias, d.values, values);
  product(hidden, d.hidden, d.decode, d.values, values);
  *previous = std::max_element(values, values + d.values) - values + 1;
}

template <typename E>
void decide_on(const Decision& d, const E* in, Long channels, Long pixels, Long* previous,
               float* hidden, float* cell, float* room) {
  float* features = room + d.code + d.values + 8 * d.hidden;
  pool(in, channels, pixels, nullptr, channels, 1, features, d.features);
  decide_one(d, features, previous, hidden, cell, room);
}

}  // namespace

extern "C" {

// `previous` holds the last decisions and gets the new ones; `room` is as long as a code, all gates
// twice, the values, and for the calls of one image below the features.
void decide(const Decision* decision, const float* features, Long batch, Long* previous,
            float* hidden, float* cell, float* room) {
  const Decision& d = *decision;
  for (Long b = 0; b < batch; b++)
    decide_one(d, features + b * d.features, previous + b, hidden + b * d.hidden,
               cell + b * d.hidden, room);
}

// The calls for one type of element. `decide_` is for one image, from the feature map that a site
// reads.
#define CALLS(E, type)                                                                            \
  void convolve_##type(const Call* call, const Width* widths, const int32_t* width_of,            \
                       const E* in, E* out, Long batch, Long threads) {                           \
    convolve(*call, widths, width_of, in, out, batch, threads);                                   \
  }                                                                                               \
  void depthwise_##type(const Call* call, const Width* widths, const int32_t* width_of,           \
                        const E* in, E* out, Long batch, Long threads) {                          \
    depthwise(*call, widths, width_of, in, out, batch, threads);                                  \
  }                                                                                               \
  void pool_##type(const E* in, Long ld, Long pixels, const Long* channels, Long all, Long batch, \
                   float* out, Long most) {                                                       \
    pool(in, ld, pixels, channels, all, batch, out, most);                                        \
  }                                                                                               \
  void decide_##type(const Decision* decision, const E* in, Long channels, Long pixels,           \
                     Long* previous, float* hidden, float* cell, float* room) {                   \
    decide_on(*decision, in, channels, pixels, previous, hidden, cell, room);                     \
  }

CALLS(float, float32)
#ifdef __AVX512BF16__
CALLS(bf16, bfloat16)
#endif
#undef CALLS

// Sets channels [from, to) of each image to zero; `size` bytes an element.
void clear(char* values, Long ld, Long pixels, const Long* from, const Long* to, Long batch,
           Long size) {
  for (Long b = 0; b < batch; b++)
    if (from[b] < to[b])
      for (Long p = 0; p < pixels; p++)
        memset(values + ((b * pixels + p) * ld + from[b]) * size, 0, (to[b] - from[b]) * size);
}
}
