// Convolutions of channels-last feature maps, each image at widths of its own.
//
// One call runs a layer on a batch: image b reads the first `ci` channels of its pixels and writes
// the first `co`, as its width says. Nothing is gathered and nothing is masked. A tile
// keeps N vectors of V outputs for P pixels in registers; rows are taken in blocks that stay in
// the cache. What a kernel would multiply by the padding's zeros is left out.
//
// Elements are float or bfloat16 (the latter in pairs, summed in float).
#if !defined(__AVX2__) || !defined(__FMA__)
#error "a processor with AVX2 and fused multiply-add is needed"
#endif
#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

using Long = int64_t;
constexpr Long kBlock = 16;                 // outputs that lie together in packed weights
constexpr Long kCached = 256 * 1024;        // bytes of input that a block of rows may take
#ifdef __AVX512F__
constexpr int kLanes = 16;  // floats in a register, of which there are 32
#else
constexpr int kLanes = 8;  // 16 registers
#endif

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

// The width of each image, and where what it multiplies is counted, if anywhere.
struct Chosen {
  const Width* widths;
  const int32_t *read, *write;  // image b has width read[b] * writes + write[b]; null: all zeros
  Long writes;
  Long* macs;

  const Width& of(Long b) const {
    return widths[(read ? read[b] * writes : 0) + (write ? write[b] : 0)];
  }

  void count(Long b, Long products) const {
    if (macs) macs[b] += products;
  }
};

struct bf16 {
  uint16_t bits;
};

constexpr Long kTogether = 8;  // images that are decided at once: they share the matrices
constexpr Long kLarge = 64 * 1024;  // bytes of a feature map whose means threads share

// Threads that share the tasks of a call; one of them is this one.
struct Team {
  Long index, count;

  // Runs tasks from 0 on, those that no other thread takes; returns when all are done.
  template <typename F>
  void share(Long tasks, F task) const {
    if (count == 1) {
      for (Long i = 0; i < tasks; i++) task(i);
      return;
    }
#pragma omp for schedule(dynamic)
    for (Long i = 0; i < tasks; i++) task(i);
  }

  // The same for parts of a batch, [first, last), of so many images at most.
  template <typename F>
  void share_parts(Long batch, Long most, F task) const {
    const Long few = (batch + most - 1) / most;
    const Long parts = (few + count - 1) / count * count;
    share(parts, [&](Long i) { task(batch * i / parts, batch * (i + 1) / parts); });
  }
};

// Has as many threads do some work together.
template <typename F>
void together(Long threads, F work) {
  if (threads == 1) return work(Team{0, 1});
#pragma omp parallel num_threads(threads)
  work(Team{omp_get_thread_num(), omp_get_num_threads()});
}

// Memory of this thread for elements of a type: what was in it is lost when it is asked for again.
template <typename E>
E* scratch(Long count) {
  static thread_local E* own = nullptr;
  static thread_local Long held = 0;
  if (count > held) {
    free(own);
    own = (E*)aligned_alloc(64, (count * (Long)sizeof(E) + 63) / 64 * 64);
    held = count;
  }
  return own;
}

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
  static constexpr Long kStep = 1;  // input channels at once
  template <int V>
  using Weights = typename Vec<V>::F;
  template <int V>
  static inline typename Vec<V>::F add(typename Vec<V>::F sum, Weights<V> weights, const float* x) {
    return sum + weights * *x;
  }
};

template <>
struct Product<bf16> {
  static constexpr Long kStep = 2;
  template <int V>
  using Weights = typename Vec<V>::U;
  template <int V>
  static inline typename Vec<V>::F add(typename Vec<V>::F sum, Weights<V> weights, const bf16* x) {
    int pair;
    memcpy(&pair, x, 4);
#ifdef __AVX512BF16__
    if constexpr (V == 16) {
      const auto w = (__m512bh)weights;
      return (typename Vec<V>::F)_mm512_dpbf16_ps((__m512)sum, w, (__m512bh)_mm512_set1_epi32(pair));
    } else {
      const auto w = (__m256bh)weights;
      return (typename Vec<V>::F)_mm256_dpbf16_ps((__m256)sum, w, (__m256bh)_mm256_set1_epi32(pair));
    }
#else
    typedef typename Vec<V>::F F;
    const Weights<V> x2 = (uint32_t)pair + Weights<V>{};
    sum += (F)(weights << 16) * (F)(x2 << 16);
    return sum + (F)(weights & 0xffff0000u) * (F)(x2 & 0xffff0000u);
#endif
  }
};

// Where vector n of a tile lies: V == 8 takes the halves of a block one after the other.
template <int V>
inline Long output_of(int n) {
  return n * V;
}

template <typename E>
struct Strip {
  const E* in;
  Long row, pixel, step;  // elements from row to row, tap to tap, output to output
  Long top, bottom;       // rows of the kernel that lie in the image
  Long left, right;       // columns of it that do, but for the first pixel, and for the last
  bool joined;            // whether the taps of a row lie side by side, and their weights
  const E* weight;
  const float* bias;
  Long tap, block;
  Long half;  // elements from the weights of 8 outputs to those of the next 8, in a block or beyond
  E* out;
  Long co;  // outputs that are left
};

template <int V, typename E>
inline Long weights_of(int n, const Strip<E>& s) {
  if constexpr (V == kBlock) return n * s.block;
  return n / 2 * s.block + n % 2 * s.half;
}

// Writes sums, added to what is there if `add`, between limits; the first `left` alone where fewer
// are left.
template <int V, typename E>
inline __attribute__((always_inline)) void finish(bool add, E* out, typename Vec<V>::F sum,
                                                  Long left, typename Vec<V>::F low,
                                                  typename Vec<V>::F high) {
  if (add) sum += left < V ? read_first<V>(out, left) : read<V>(out);
  sum = sum > low ? sum : low;
  sum = sum < high ? sum : high;
  if (left < V)
    write_first<V>(out, sum, left);
  else
    write<V>(out, sum);
}

// Adds `count` input channels of one tap to the sums of pixels [FROM, TO). Five pixels share a
// pointer: one each, and the compiler runs out of registers for them.
template <typename E, int V, int N, int P, int FROM, int TO>
inline __attribute__((always_inline)) void tap(typename Vec<V>::F (&sums)[N][P], const Strip<E>& s,
                                               const E* weight, const E* in, Long count) {
  constexpr int kBases = (P + 4) / 5;
  constexpr Long kStep = Product<E>::kStep;
  const char* base[kBases];
#pragma GCC unroll 4
  for (int k = 0; k < kBases; k++) base[k] = (const char*)(in + k * 5 * s.step);
  Long one = s.step * (Long)sizeof(E), three = 3 * one;
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
      const Long offset = k == 0 ? 0 : k == 1 ? one : k == 2 ? 2 * one : k == 3 ? three : 4 * one;
      const E* x = (const E*)(base[p / 5] + offset);
#pragma GCC unroll 8
      for (int n = 0; n < N; n++)
        sums[n][p] = Product<E>::template add<V>(
            sums[n][p], n == 0 ? first : n == 1 ? second : n == 2 ? third : weights(n), x);
    }
#pragma GCC unroll 4
    for (int k = 0; k < kBases; k++) base[k] += kStep * sizeof(E);
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
    Long x = s.left;
    if (x) tap<E, V, N, P, 1, P>(sums, s, weight, in, ci);
    if (s.joined)  // the taps of a row lie side by side, as do their weights
      tap<E, V, N, P, 0, P>(sums, s, weight + x * s.tap, in + x * s.pixel, (s.right - x) * ci);
    else
      for (; x < s.right; x++)
        tap<E, V, N, P, 0, P>(sums, s, weight + x * s.tap, in + x * s.pixel, ci);
    if (s.right < call.g.kw)
      tap<E, V, N, P, 0, P - 1>(sums, s, weight + s.right * s.tap, in + s.right * s.pixel, ci);
  }
  const F low = call.low + F{}, high = call.high + F{};
  const Long apart = call.ld_out, outputs = s.co;  // which a write might change, for the compiler
  const bool add = call.add;
  E* const out = s.out;
  const bool plain = !add && outputs >= N * V;  // layers of few inputs notice what is asked below
#pragma GCC unroll 8
  for (int n = 0; n < N; n++) {
    const Long left = outputs - output_of<V>(n);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) {
      E* to = out + p * apart + output_of<V>(n);
      if (plain)
        finish<V>(false, to, sums[n][p], V, low, high);
      else if (left > 0)
        finish<V>(add, to, sums[n][p], left, low, high);
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
    CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
#undef CASE
  }
}

// Tiles: outputs at once, and pixels for which the compiler keeps their sums in the registers.
#ifdef __AVX512F__
// 8 x 12 or 16, 16 x 16, 3 * 8 x 8, 2 * 16 x 12, 3 * 16 x 8
enum class Shape { narrow, half, odd, wide, deep };

// The shape for some outputs of a row of pixels.
inline Shape shape_of(Long outputs, Long row) {
  const bool few = (row + 7) / 8 == (row + 11) / 12;  // as many deep tiles a row as wide ones
  if (outputs > 32 && outputs <= 40) return Shape::half;  // then an odd one
  if (outputs > 32 && few) return Shape::deep;
  if (outputs > 24) return Shape::wide;
  return outputs > 16 ? Shape::odd : outputs > 8 ? Shape::half : Shape::narrow;
}

inline Long outputs_of(Shape shape) {
  if (shape == Shape::deep) return 48;
  return shape == Shape::wide ? 32 : shape == Shape::odd ? 24 : 16;
}

template <typename E>
constexpr int pixels_of(Shape shape) {
  if (shape == Shape::narrow) return sizeof(E) == 4 ? 12 : 16;  // 16 of floats take 1.4 times as long
  if (shape == Shape::deep || shape == Shape::odd) return 8;
  return shape == Shape::wide ? 12 : 16;
}

template <typename E>
void run_strip(Shape shape, const Call& call, const Strip<E>& s, Long ci, int pixels) {
  if (shape == Shape::narrow) strip<E, 8, 1, pixels_of<E>(Shape::narrow)>(call, s, ci, pixels);
  if (shape == Shape::half) strip<E, 16, 1, pixels_of<E>(Shape::half)>(call, s, ci, pixels);
  if (shape == Shape::odd) strip<E, 8, 3, pixels_of<E>(Shape::odd)>(call, s, ci, pixels);
  if (shape == Shape::wide) strip<E, 16, 2, pixels_of<E>(Shape::wide)>(call, s, ci, pixels);
  if (shape == Shape::deep) strip<E, 16, 3, pixels_of<E>(Shape::deep)>(call, s, ci, pixels);
}
#else
enum class Shape { narrow, half, deep };  // 8 x 12, 2 * 8 x 6, 3 * 8 x 4

inline Shape shape_of(Long outputs, Long row) {
  const bool few = (row + 3) / 4 == (row + 5) / 6;  // as many deep tiles a row as half ones
  if (outputs > 16 && few) return Shape::deep;
  return outputs > 8 ? Shape::half : Shape::narrow;
}

inline Long outputs_of(Shape shape) {
  return shape == Shape::deep ? 24 : shape == Shape::half ? 16 : 8;
}

template <typename E>
constexpr int pixels_of(Shape shape) {
  constexpr bool wide = sizeof(E) == 4;  // else registers are needed to widen in
  if (shape == Shape::deep) return wide ? 4 : 2;
  return shape == Shape::half ? (wide ? 6 : 4) : wide ? 12 : 8;
}

template <typename E>
void run_strip(Shape shape, const Call& call, const Strip<E>& s, Long ci, int pixels) {
  if (shape == Shape::narrow) strip<E, 8, 1, pixels_of<E>(Shape::narrow)>(call, s, ci, pixels);
  if (shape == Shape::half) strip<E, 8, 2, pixels_of<E>(Shape::half)>(call, s, ci, pixels);
  if (shape == Shape::deep) strip<E, 8, 3, pixels_of<E>(Shape::deep)>(call, s, ci, pixels);
}
#endif

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
          E* room) {
  const Geometry& g = call.g;
  constexpr Long kStep = Product<E>::kStep;
  const Long ci = (width.ci + kStep - 1) / kStep * kStep;
  // Pixels a multiple of 256 bytes apart, of which little is read, share few places of the cache.
  const Long apart = g.stride_x * call.ld_in * (Long)sizeof(E);
  const bool crowded = g.stride_x > 1 && ci < call.ld_in && apart % 256 == 0;
  // Without margins a column of the kernel may leave out the first pixel or the last, not both.
  const bool margins = g.pad_x > 1 || ci != width.ci || (g.pad_x && g.kw < 2) || crowded;
  Strip<E> s;
  Long origin;  // of the first row's first tap
  if (margins) {
    copy_rows(call, width, ci, image, first, last, room);
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
  s.tap = width.tap;
  s.block = width.block;
  s.joined = s.pixel == ci && s.tap == ci * kBlock;
  // Without neighbours to read, rows are one row.
  const bool flat = g.kh * g.kw * g.stride_y * g.stride_x == 1 && g.pad_y + g.pad_x == 0;
  const Long wide = flat ? (last - first) * g.wo : g.wo, end = flat ? first + 1 : last;
  for (Long c = 0; c < width.co;) {
    s.co = width.co - c;
    const Shape shape = shape_of(s.co, wide);
    const Long most = pixels_of<E>(shape), pieces = (wide + most - 1) / most;
    const Long inside = c % kBlock * kStep;
    s.weight = (const E*)width.weight + c / kBlock * width.block + inside;
    s.half = inside ? width.block - inside : 8 * kStep;
    s.bias = width.bias + c;
    for (Long y = first; y < end; y++) {
      const Long above = g.pad_y - y * g.stride_y;
      s.top = std::max<Long>(above, 0);
      s.bottom = std::min(g.hi + above, g.kh);
      Long x = 0;
      for (Long left = pieces; left > 0; left--) {
        const int pixels = (int)((wide - x + left - 1) / left);
        s.left = margins || x ? 0 : g.pad_x;
        s.right = margins || left > 1 || !beyond ? g.kw : g.kw - 1;
        s.in = image + (origin + (y - first) * g.stride_y * s.row + x * s.step);
        s.out = out + (y * g.wo + x) * call.ld_out + c;
        run_strip(shape, call, s, ci, pixels);
        x += pixels;
      }
    }
    c += outputs_of(shape);
  }
}

template <typename E>
void convolve(const Call& call, const Chosen& chosen, const E* in, E* out, Long batch,
              Team team) {
  const Geometry& g = call.g;
  Long widest = 0;
  for (Long b = 0; b < batch; b++) {
    const Width& width = chosen.of(b);
    widest = std::max(widest, width.ci);
    if (!team.index) chosen.count(b, width.ci * width.co * g.ho * g.wo * g.kh * g.kw);
  }
  const Long line = (g.wi + 2 * g.pad_x) * (widest + 1);
  Long fit = (kCached / (Long)sizeof(E) / line - g.kh) / g.stride_y + 1;
  if (batch < team.count) fit = std::min(fit, (g.ho + team.count - 1) / team.count);
  const Long step = std::min(g.ho, std::max(fit, std::min<Long>(4, g.ho)));
  const Long blocks = (g.ho + step - 1) / step;
  E* const room = scratch<E>(((step - 1) * g.stride_y + g.kh) * line);
  team.share(batch * blocks, [&](Long task) {
    const Long b = task / blocks, first = task % blocks * step;
    rows(call, chosen.of(b), in + b * g.hi * g.wi * call.ld_in, out + b * g.ho * g.wo * call.ld_out,
         first, std::min(first + step, g.ho), room);
  });
}

// Adds inputs of P images to the sums of N vectors of outputs, 32 floats an image.
template <typename E, int N, int P>
inline void linear_tile(const Strip<E>& s, const E* weight, const E* in, Long count, float* sums) {
  constexpr int V = kLanes;
  typename Vec<V>::F own[N][P];
  for (int n = 0; n < N; n++)
    for (int p = 0; p < P; p++) own[n][p] = read<V>(sums + p * 32 + n * V);
  tap<E, V, N, P, 0, P>(own, s, weight, in, count);
  for (int n = 0; n < N; n++)
    for (int p = 0; p < P; p++) write<V>(sums + p * 32 + n * V, own[n][p]);
}

template <typename E, int N>
void linear_tiles(const Strip<E>& s, const E* weight, const E* in, Long count, Long images,
                  float* sums) {
  constexpr int kMost = kLanes == 16 ? 10 : 12 / N;
  for (; images >= kMost; images -= kMost, in += kMost * s.step, sums += kMost * 32)
    linear_tile<E, N, kMost>(s, weight, in, count, sums);
  switch (images) {
#define CASE(P) \
  case P:       \
    if constexpr (P < kMost) linear_tile<E, N, P>(s, weight, in, count, sums); \
    break;
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9)
#undef CASE
  }
}

// A linear layer: weights are read once for 64 images, a few inputs of 32 outputs at a time. An
// image reads the first `inputs`, none fewer than the next; null: all read those of the width.
template <typename E>
void linear(const Call& call, const Width& width, const Long* inputs, const E* in, E* out,
            Long batch, Team team) {
  constexpr int V = kLanes;
  typedef typename Vec<V>::F F;
  constexpr Long kImages = 64, kInputs = 512, kFew = 4;
  Strip<E> s;
  s.step = call.ld_in;
  s.block = width.block;
  s.half = 8 * Product<E>::kStep;
  team.share((width.co + 31) / 32, [&](Long task) {
    const Long o = task * 32, left = width.co - o;
    const E* weight = (const E*)width.weight + o / kBlock * width.block;
    float sums[kImages * 32];
    for (Long b = 0; b < batch; b += kImages) {
      const Long images = std::min(batch - b, kImages);
      for (Long i = 0; i < images; i++)
        for (Long n = 0; n < (left > 16 ? 32 : 16); n++) sums[i * 32 + n] = width.bias[o + n];
      for (Long c = 0, count, reading = images;; c += count) {
        while (inputs && reading && inputs[b + reading - 1] <= c) reading--;
        const Long end = !inputs ? width.ci : reading ? inputs[b + reading - 1] : 0;
        count = std::min(end - c, kInputs);
        if (count <= 0) break;
        const E* from = in + b * call.ld_in + c;
        if (left > 16 && (V == 16 || reading < kFew))
          linear_tiles<E, 32 / V>(s, weight + c * kBlock, from, count, reading, sums);
        else  // registers hold sums of 16 outputs for more images
          for (Long n = 0; n < std::min<Long>(left, 32); n += 16)
            linear_tiles<E, 16 / V>(s, weight + n / kBlock * width.block + c * kBlock, from, count,
                                    reading, sums + n);
      }
      const F low = call.low + F{}, high = call.high + F{};
      for (Long i = 0; i < images; i++) {
        E* to = out + (b + i) * call.ld_out + o;
        for (Long n = 0; n < std::min<Long>(left, 32); n += V)
          finish<V>(call.add, to + n, read<V>(sums + i * 32 + n), left - n, low, high);
      }
    }
  });
}

// Pixels whose depthwise kernels reach the same taps, [top, bottom) x [left, right), for a register
// of channels from `c` on, or the `count` that there are.
template <typename E, int P>
inline __attribute__((always_inline)) void depthwise_tile(const Call& call, const Width& width,
                                                          const E* in, E* out, Long c, Long count,
                                                          Long top, Long bottom, Long left,
                                                          Long right) {
  constexpr int V = kLanes;
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
    finish<V>(call.add, out + p * call.ld_out + c, sums[p], count, low, high);
  }
}

// The same for a kernel of 3 by 3 that moves pixel by pixel: each pixel of a row is read once.
template <typename E, int P>
inline __attribute__((always_inline)) void depthwise_three(const Call& call, const Width& width,
                                                           const E* in, E* out, Long c) {
  constexpr int V = kLanes;
  typedef Vec<V>::F F;
  F sums[P], pixels[P + 2];
#pragma GCC unroll 8
  for (int p = 0; p < P; p++) sums[p] = read<V>(width.bias + c);
  const E* weights = (const E*)width.weight + c;
  in += c;
  for (int y = 0; y < 3; y++, in += call.g.wi * call.ld_in, weights += 3 * width.tap) {
#pragma GCC unroll 10
    for (int p = 0; p < P + 2; p++) pixels[p] = read<V>(in + p * call.ld_in);
#pragma GCC unroll 3
    for (int x = 0; x < 3; x++) {
      const F weight = read<V>(weights + x * width.tap);
#pragma GCC unroll 8
      for (int p = 0; p < P; p++) sums[p] += weight * pixels[p + x];
    }
  }
  const F low = call.low + F{}, high = call.high + F{};
#pragma GCC unroll 8
  for (int p = 0; p < P; p++)
    finish<V>(call.add, out + p * call.ld_out + c, sums[p], V, low, high);
}

// Row y of one image's result: each channel by a kernel of its own.
template <typename E>
void depthwise_row(const Call& call, const Width& width, const E* image, E* out, Long y) {
  constexpr int V = kLanes, P = 4, WIDE = V == 16 ? 8 : 4;
  const Geometry& g = call.g;
  const Long above = g.pad_y - y * g.stride_y;
  const Long top = std::max<Long>(above, 0), bottom = std::min(g.hi + above, g.kh);
  for (Long x = 0; x < g.wo;) {
    const Long before = g.pad_x - x * g.stride_x;
    const Long left = std::max<Long>(before, 0), right = std::min(g.wi + before, g.kw);
    const auto fit = [&](Long pixels) {
      const Long last = g.wi + before - (pixels - 1) * g.stride_x;
      return x + pixels <= g.wo && left == 0 && last >= g.kw;
    };
    const bool inner = fit(P);
    const bool three = inner && top == 0 && bottom == 3 && g.kh == 3 && g.kw == 3;
    const bool wide = three && g.stride_x == 1 && fit(WIDE);
    const E* in = image - (above * g.wi + before) * call.ld_in;
    E* to = out + (y * g.wo + x) * call.ld_out;
    for (Long c = 0; c < width.co; c += V) {
      const Long count = std::min<Long>(width.co - c, V);
      if (wide && count == V)
        depthwise_three<E, WIDE>(call, width, in, to, c);
      else if (wide)
        depthwise_tile<E, WIDE>(call, width, in, to, c, count, 0, 3, 0, 3);
      else if (three && count == V)
        depthwise_tile<E, P>(call, width, in, to, c, V, 0, 3, 0, 3);
      else if (inner)
        depthwise_tile<E, P>(call, width, in, to, c, count, top, bottom, left, right);
      else
        depthwise_tile<E, 1>(call, width, in, to, c, count, top, bottom, left, right);
    }
    x += wide ? WIDE : inner ? P : 1;
  }
}

template <typename E>
void depthwise(const Call& call, const Chosen& chosen, const E* in, E* out, Long batch,
               Team team) {
  const Geometry& g = call.g;
  for (Long b = 0; b < batch && !team.index; b++)
    chosen.count(b, chosen.of(b).co * g.ho * g.wo * g.kh * g.kw);
  team.share(batch * g.ho, [&](Long task) {
    const Long b = task / g.ho;
    depthwise_row(call, chosen.of(b), in + b * g.hi * g.wi * call.ld_in,
                  out + b * g.ho * g.wo * call.ld_out, task % g.ho);
  });
}

// The largest of the taps [top, bottom) x [left, right) of a pixel, for N vectors of channels.
template <int N, typename E>
inline void most_of(const Geometry& g, Long ld, const E* in, E* out, Long top, Long bottom,
                    Long left, Long right) {
  constexpr int V = kLanes;
  typename Vec<V>::F most[N];
  for (int n = 0; n < N; n++) most[n] = read<V>(in + (top * g.wi + left) * ld + n * V);
  for (Long y = top; y < bottom; y++)
    for (Long x = left; x < right; x++)
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) {
        const auto value = read<V>(in + (y * g.wi + x) * ld + n * V);
        most[n] = most[n] > value ? most[n] : value;
      }
  for (int n = 0; n < N; n++) write<V>(out + n * V, most[n]);
}

// Max pooling of each image's first channels, as many as its width has outputs.
template <typename E>
void max_pool(const Call& call, const Chosen& chosen, const E* in, E* out, Long batch,
              Team team) {
  constexpr int V = kLanes;
  const Geometry& g = call.g;
  team.share(batch * g.ho, [&](Long task) {
    const Long b = task / g.ho, y = task % g.ho, above = g.pad_y - y * g.stride_y;
    const Long top = std::max<Long>(above, 0), bottom = std::min(g.hi + above, g.kh);
    const Long count = chosen.of(b).co;
    for (Long x = 0; x < g.wo; x++) {
      const Long before = g.pad_x - x * g.stride_x;
      const Long left = std::max<Long>(before, 0), right = std::min(g.wi + before, g.kw);
      const E* from = in + (b * g.hi * g.wi - above * g.wi - before) * call.ld_in;
      E* to = out + (task * g.wo + x) * call.ld_out;
      Long c = 0;
      for (; c + 4 * V <= count; c += 4 * V)
        most_of<4>(g, call.ld_in, from + c, to + c, top, bottom, left, right);
      for (; c + V <= count; c += V)
        most_of<1>(g, call.ld_in, from + c, to + c, top, bottom, left, right);
      for (; c < count; c++) {
        float most = -INFINITY;
        for (Long i = top; i < bottom; i++)
          for (Long j = left; j < right; j++)
            most = std::max(most, read<1>(from + (i * g.wi + j) * call.ld_in + c)[0]);
        write<1>(to + c, Vec<1>::F{most});
      }
    }
  });
}

// Means over the pixels of N vectors of channels, or of the `left` first of them. Sums of every U-th
// pixel: one would wait for itself at each.
template <int N, int U, bool PART, typename E, typename T>
inline void mean_of(const E* from, Long ld, Long pixels, Long left, T* to) {
  constexpr int V = kLanes;
  typedef Vec<V>::F F;
  const auto values = [&](int n) {
    return PART ? read_first<V>(from, left) : read<V>(from + V * n);
  };
  F sums[U][N] = {};
  Long p = 0;
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
void means(const E* from, Long ld, Long pixels, Long count, T* to) {
  constexpr int V = kLanes;
  Long c = 0;
  for (; c + 4 * V <= count; c += 4 * V) mean_of<4, 2, false>(from + c, ld, pixels, V, to + c);
  for (; c + V <= count; c += V) mean_of<1, 8, false>(from + c, ld, pixels, V, to + c);
  if (c < count) mean_of<1, 8, true>(from + c, ld, pixels, count - c, to + c);
}

// Means of each image's first channels: `channels` of an image, or `all` of each; zeros behind.
template <typename E>
void pool(const E* in, Long ld, Long pixels, const Long* channels, Long all, Long batch, float* out,
          Long most, Team team) {
  team.share(batch, [&](Long b) {
    const Long count = channels ? channels[b] : all;
    means(in + b * pixels * ld, ld, pixels, count, out + b * most);
    std::fill(out + b * most + count, out + (b + 1) * most, 0.0f);
  });
}

// One decision of a network with a recurrent cell; all matrices lie input by output.
struct Decision {
  const float *encode, *table;            // features to code; what is added, by previous decision
  const float *input, *input_bias;        // code to gates
  const float *carry, *carry_bias;        // hidden state to gates
  const float *decode, *decode_bias;      // hidden state to values
  Long features, code, hidden, values, lstm;
};

// Adds products of B vectors with N registers of columns of a matrix, the first `left` alone, to
// their sums.
template <int N, int B>
inline __attribute__((always_inline)) void columns(const float* vectors, Long inputs,
                                                   const float* matrix, Long outputs, Long left,
                                                   float* sums) {
  constexpr int V = kLanes;
  typedef Vec<V>::F F;
  F own[B][N];
  for (int b = 0; b < B; b++)
    for (int n = 0; n < N; n++) {
      const float* from = sums + b * outputs + n * V;
      own[b][n] = left < V ? read_first<V>(from, left) : read<V>(from);
    }
  for (Long i = 0; i < inputs; i++) {
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
inline void product(const float* vectors, Long inputs, const float* matrix, Long outputs,
                    float* sums) {
  // As many sums as hide how long each takes, and fit the registers.
  constexpr int V = kLanes, N = B == 1 ? 64 / V : V / 8;
  Long o = 0;
  for (; o + V * N <= outputs; o += V * N)
    columns<N, B>(vectors, inputs, matrix + o, outputs, V, sums + o);
  for (; o + V <= outputs; o += V) columns<1, B>(vectors, inputs, matrix + o, outputs, V, sums + o);
  if (o < outputs) columns<1, B>(vectors, inputs, matrix + o, outputs, outputs - o, sums + o);
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
void recur(const Decision& d, const float* input, const float* carry, float* __restrict hidden,
           float* __restrict cell) {
  const Long width = d.hidden;
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

// Decides for B images.
template <int B>
void decide_block(const Decision& d, const float* features, Long* previous, float* hidden,
                  float* cell, float* room) {
  const Long all = (d.lstm ? 4 : 3) * d.hidden;
  float *code = room, *values = code + B * d.code, *input = values + B * d.values;
  float* carry = input + B * all;
  for (int b = 0; b < B; b++) {
    std::copy_n(d.table + previous[b] * d.code, d.code, code + b * d.code);
    std::copy_n(d.input_bias, all, input + b * all);
    std::copy_n(d.carry_bias, all, carry + b * all);
    std::copy_n(d.decode_bias, d.values, values + b * d.values);
  }
  product<B>(features, d.features, d.encode, d.code, code);
  for (Long i = 0; i < B * d.code; i++) code[i] = code[i] > 0 ? code[i] : 0;
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
void decide_all(const Decision& d, Long batch, F features_of, Long* previous, float* hidden,
                float* cell) {
  const Long gates = 2 * (d.lstm ? 4 : 3) * d.hidden;
  float* const place = scratch<float>(kTogether * (d.features + d.code + d.values + gates));
  float* const room = place + kTogether * d.features;
  for (Long b = 0; b < batch;) {
    const Long left = batch - b, images = left >= kTogether ? kTogether : left >= 4 ? 4 : 1;
    const float* features = features_of(b, images, place);
    const auto block = images == kTogether ? decide_block<kTogether>
                       : images == 4       ? decide_block<4>
                                           : decide_block<1>;
    block(d, features, previous + b, hidden + b * d.hidden, cell + b * d.hidden, room);
    b += images;
  }
}

// Sets N vectors of 16 bytes to zero, and `rest` bytes, at each pixel: a call of memset for so
// little takes longer than this.
template <int N>
inline void zero(char* to, Long apart, Long pixels, Long rest) {
  const __m128i none = _mm_setzero_si128();
  for (; pixels > 0; pixels--, to += apart) {
#pragma GCC unroll 4
    for (int n = 0; n < N; n++) _mm_storeu_si128((__m128i*)to + n, none);
    if (rest) memset(to + N * 16, 0, rest);
  }
}

// Sets channels [from, to) of an image to zero; `size` bytes an element.
void clear_image(char* image, Long ld, Long pixels, Long from, Long to, Long size) {
  if (from >= to) return;
  char* first = image + from * size;
  const Long bytes = (to - from) * size, vectors = bytes / 16, rest = bytes % 16;
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
// `ci` channels, to those from `co` on.
template <typename E>
void copy(const Call& call, const Width& width, const E* in, E* out, Long batch, Team team) {
  const Geometry& g = call.g;
  const Long before = width.co, own = width.ci, after = call.ld_out - before - own;
  const bool whole = own == call.ld_in && own == call.ld_out && g.stride_y == 1 && g.stride_x == 1;
  team.share(batch * g.ho, [&](Long task) {
    const Long b = task / g.ho, y = task % g.ho;
    const E* row = in + (b * g.hi + y * g.stride_y) * g.wi * call.ld_in;
    E* to = out + task * g.wo * call.ld_out;
    if (whole) return (void)memcpy((void*)to, row, g.wo * own * sizeof(E));
    for (Long x = 0; x < g.wo; x++, to += call.ld_out) {
      memset((void*)to, 0, before * sizeof(E));
      memcpy((void*)(to + before), row + x * g.stride_x * call.ld_in, own * sizeof(E));
      memset((void*)(to + before + own), 0, after * sizeof(E));
    }
  });
}

// Means over the pixels of each image's first channels, as many as its width has outputs.
template <typename E>
void average(const Call& call, const Chosen& chosen, const E* in, E* out, Long batch,
             Team team) {
  const Long pixels = call.g.hi * call.g.wi;
  team.share(batch, [&](Long b) {
    means(in + b * pixels * call.ld_in, call.ld_in, pixels, chosen.of(b).co, out + b * call.ld_out);
  });
}

// Each element less one constant, divided by another; the constants come again after `ci`, a whole
// number of registers.
template <typename E>
void scale(const Call& call, const Width& width, const float* in, E* out, Long batch,
           Team team) {
  constexpr int V = kLanes;
  const float *mean = width.bias, *std = (const float*)width.weight;
  const Long all = call.g.hi * call.g.wi * call.ld_in;
  team.share(batch, [&](Long b) {
    const float* from = in + b * all;
    E* to = out + b * all;
    Long i = 0;
    for (; i + width.ci <= all; i += width.ci)
      for (Long j = 0; j < width.ci; j += V)
        write<V>(to + i + j, (read<V>(from + i + j) - read<V>(mean + j)) / read<V>(std + j));
    for (Long j = 0; i < all; i++, j++)
      write<1>(to + i, Vec<1>::F{(from[i] - mean[j]) / std[j]});
  });
}

// The same for images whose channels are planes, one after the other; `ci` of them.
template <typename E>
void scale_planes(const Call& call, const Width& width, const float* in, E* out, Long batch,
                  Team team) {
  constexpr int V = kLanes;
  const float *mean = width.bias, *std = (const float*)width.weight;
  const Long pixels = call.g.hi * call.g.wi, channels = width.ci;
  team.share(batch * channels, [&](Long task) {
    const Long c = task % channels;
    const float* from = in + task * pixels;
    E* to = out + task / channels * pixels * channels + c;
    Long i = 0;
    for (E some[V]; i + V <= pixels; i += V) {
      write<V>(some, (read<V>(from + i) - mean[c]) / std[c]);
      for (Long j = 0; j < V; j++) to[(i + j) * channels] = some[j];
    }
    for (; i < pixels; i++) write<1>(to + i * channels, Vec<1>::F{(from[i] - mean[c]) / std[c]});
  });
}

// How wide a value is: the widest that the decisions of some sites ask for.
struct Key {
  Long sites, counts;    // how many sites; group counts of each, none included
  const Long* site;
  const int32_t* place;  // [sites][counts]: of the width that a site asks for
};

// The places of widths of images [first, last), of some keys, from group counts [image][site].
void settle_all(const Key* keys, Long count, const Long* groups, Long sites, Long batch, Long first,
                Long last, int32_t* places) {
  for (const Key* key = keys; key < keys + count; key++, places += batch)
    for (Long b = first; b < last; b++) {
      int32_t most = 0;
      for (Long s = 0; s < key->sites; s++)
        most = std::max(most, key->place[s * key->counts + groups[b * sites + key->site[s]]]);
      places[b] = most;
    }
}

// Decisions that are made between the layers.
struct Deciding {
  const Decision* const* decisions;  // by site
  Long settled;                      // of the first sites all images have one group
  Long* previous;                    // as `decide` has them
  float *hidden, *cell;
  Long* groups;         // [image][site]
  Long sites;
  const Key* keys;      // those from known[site] to known[site + 1] are settled by a site
  const Long* known;
  int32_t* places;      // [key][image]
};

// Means over parts of the pixels of feature maps, [image][part][channel].
struct Parts {
  float* means;  // or null
  Long count;

  // Finds those of a part of an image's pixels.
  template <typename E>
  void find(const E* in, Long ld, Long pixels, Long channels, Long image, Long part) const {
    const Long first = pixels * part / count, last = pixels * (part + 1) / count;
    in += (image * pixels + first) * ld;
    ::means(in, ld, last - first, channels, means + (image * count + part) * ld);
  }

  // The means over all pixels.
  void join(Long ld, Long pixels, Long channels, Long image, float* to) const {
    std::fill(to, to + channels, 0.0f);
    const float* from = means + image * count * ld;
    for (Long part = 0; part < count; part++, from += ld) {
      const Long own = pixels * (part + 1) / count - pixels * part / count;
      for (Long c = 0; c < channels; c++) to[c] += from[c] * ((float)own / (float)pixels);
    }
  }
};

// Decides a site for images [first, last) of a batch behind its first `before`, from their feature
// maps at `in`, or from `parts` of those.
template <typename E>
void decide_site(const Deciding& d, Long site, const Call& call, const Chosen& chosen, const E* in,
                 const Parts& parts, Long batch, Long before, Long first, Long last) {
  Long* groups = d.groups + before * d.sites + site;
  if (site < d.settled) {
    for (Long b = first; b < last; b++) groups[b * d.sites] = 1;
  } else {
    const Decision& own = *d.decisions[site];
    const Long pixels = call.g.hi * call.g.wi;
    const auto features_of = [&](Long image, Long images, float* features) {
      for (Long b = first + image; b < first + image + images; b++, features += own.features) {
        const Long count = chosen.of(b).co, ld = call.ld_in;
        if (parts.means)
          parts.join(ld, pixels, count, b, features);
        else
          means(in + b * pixels * ld, ld, pixels, count, features);
        std::fill(features + count, features + own.features, 0.0f);
      }
      return features - images * own.features;
    };
    const Long state = (before + first) * own.hidden;
    Long* previous = d.previous + before;
    decide_all(own, last - first, features_of, previous + first, d.hidden + state, d.cell + state);
    for (Long b = first; b < last; b++) groups[b * d.sites] = previous[b];
  }
  const Long key = d.known[site];
  settle_all(d.keys + key, d.known[site + 1] - key, d.groups, d.sites, batch, before + first,
             before + last, d.places + key * batch);
}

enum Kind {
  kConvolve,
  kDepthwise,
  kLinear,
  kMaxPool,
  kCopy,
  kClear,
  kAverage,
  kScale,
  kScalePlanes,
  kDecide
};

// One of several calls that follow each other. Images of all have their widths in the same table.
struct Step {
  Long kind;
  const Call* call;
  const Width* widths;
  Long in, out;      // places in the table of values
  Long read, write;  // rows of the widths by image, [row][image]; below zero: all have the first
  Long writes;
  Long site;         // of kDecide
};

constexpr Long kAligned = 64;  // bytes

// Where the values of a tape lie that have no address: in a room, one value after the other, each
// of all images that are played together.
struct Layout {
  Long elements;       // an image, a multiple of kAligned bytes
  const Long* places;  // of values, in elements an image
};

// What a batch is played on.
struct Played {
  const Layout* layout;
  char* room;
  char* const* values;  // addresses, or null
  const int32_t* places;
  Long* macs;
  const Deciding* deciding;
  Long batch;
  float* means;  // room for parts of feature maps' means; null where threads do not share an image
};

// Plays steps for images [first, last) of a batch.
template <typename E>
void play_some(const Step* steps, const Step* end, const Played& on, Long first, Long last,
               Team team) {
  const Long batch = last - first;
  const auto places_of = [&](Long row) {
    return row < 0 ? nullptr : on.places + row * on.batch + first;
  };
  const auto value_of = [&](Long value, Long elements, Long size) {
    if (on.values[value]) return on.values[value] + first * elements * size;
    return on.room + on.layout->places[value] * batch * (Long)sizeof(E);
  };
  for (const Step* s = steps; s < end; s++) {
    const Call& call = *s->call;
    const Geometry& g = call.g;
    const Chosen chosen{s->widths, places_of(s->read), places_of(s->write), s->writes,
                        on.macs ? on.macs + first : nullptr};
    const Long inputs = g.hi * g.wi * call.ld_in;
    const Long outputs = (s->kind == kAverage ? 1 : g.ho * g.wo) * call.ld_out;
    const bool images = s->kind == kScale || s->kind == kScalePlanes;
    const E* in = (const E*)value_of(s->in, inputs, images ? sizeof(float) : sizeof(E));
    E* out = (E*)value_of(s->out, outputs, sizeof(E));
    switch (s->kind) {
      case kConvolve:
        convolve(call, chosen, in, out, batch, team);
        break;
      case kDepthwise:
        depthwise(call, chosen, in, out, batch, team);
        break;
      case kLinear:
        linear(call, *s->widths, nullptr, in, out, batch, team);
        break;
      case kMaxPool:
        max_pool(call, chosen, in, out, batch, team);
        break;
      case kCopy:
        copy(call, *s->widths, in, out, batch, team);
        break;
      case kAverage:
        average(call, chosen, in, out, batch, team);
        break;
      case kScale:
        scale(call, *s->widths, (const float*)in, out, batch, team);
        break;
      case kScalePlanes:
        scale_planes(call, *s->widths, (const float*)in, out, batch, team);
        break;
      case kDecide: {
        const bool shared = s->site >= on.deciding->settled && inputs * (Long)sizeof(E) >= kLarge;
        const Parts parts{shared ? on.means : nullptr, team.count};
        if (parts.means)
          team.share(batch * team.count, [&](Long task) {
            const Long b = task / team.count, part = task % team.count;
            parts.find(in, call.ld_in, g.hi * g.wi, chosen.of(b).co, b, part);
          });
        team.share_parts(batch, kTogether, [&](Long begin, Long end) {
          decide_site(*on.deciding, s->site, call, chosen, in, parts, on.batch, first, begin, end);
        });
        break;
      }
      case kClear:
        team.share(batch, [&](Long b) {
          const Width& width = chosen.of(b);
          clear_image((char*)(out + b * g.hi * g.wi * call.ld_out), call.ld_out, g.hi * g.wi,
                      width.ci, width.co, sizeof(E));
        });
        break;
    }
  }
}

// Plays steps for a batch. Threads take parts of `most` images through all of them, each in a room
// of its own; where that is 0, they share each step of the whole batch.
//
// Returns 1 where there is no memory for that, else 0.
template <typename E>
Long play(const Step* steps, const Step* end, Played on, Long most, Long threads) {
  const Long bytes = on.layout->elements * (Long)sizeof(E);
  const Long images = most ? most * threads : on.batch;
  Long widest = 0;
  if (!most && on.batch < threads)
    for (const Step* s = steps; s < end; s++)
      if (s->kind == kDecide) widest = std::max(widest, s->call->ld_in);
  const Long values = (on.batch * threads * widest * (Long)sizeof(float) / kAligned + 1) * kAligned;
  on.room = (char*)aligned_alloc(kAligned, bytes * images + values);
  if (!on.room) return 1;
  if (widest) on.means = (float*)(on.room + bytes * images);
  together(threads, [&](Team team) {
    if (!most) return play_some<E>(steps, end, on, 0, on.batch, team);
    Played own = on;
    own.room += bytes * most * team.index;
    team.share_parts(on.batch, most, [&](Long first, Long last) {
      play_some<E>(steps, end, own, first, last, Team{0, 1});
    });
  });
  free(on.room);
  return 0;
}

}  // namespace

extern "C" {

// `previous` holds the last decisions and gets the new ones.
void decide(const Decision* decision, const float* features, Long batch, Long* previous,
            float* hidden, float* cell) {
  const auto features_of = [&](Long b, Long, float*) { return features + b * decision->features; };
  decide_all(*decision, batch, features_of, previous, hidden, cell);
}

// The calls for one type of element. `decide_` is for one image, from the feature map that a site
// reads.
#define CALLS(E, type)                                                                            \
  void convolve_##type(const Call* call, const Width* widths, const int32_t* read,                \
                       const int32_t* write, Long writes, Long* macs, const E* in, E* out,        \
                       Long batch, Long threads) {                                                \
    together(threads, [&](Team team) {                                                            \
      convolve(*call, {widths, read, write, writes, macs}, in, out, batch, team);                 \
    });                                                                                           \
  }                                                                                               \
  void depthwise_##type(const Call* call, const Width* widths, const int32_t* read,               \
                        const int32_t* write, Long writes, Long* macs, const E* in, E* out,       \
                        Long batch, Long threads) {                                               \
    together(threads, [&](Team team) {                                                            \
      depthwise(*call, {widths, read, write, writes, macs}, in, out, batch, team);                \
    });                                                                                           \
  }                                                                                               \
  void linear_##type(const Call* call, const Width* width, const Long* inputs, const E* in,       \
                     E* out, Long batch, Long threads) {                                          \
    together(threads,                                                                             \
             [&](Team team) { linear(*call, *width, inputs, in, out, batch, team); });            \
  }                                                                                               \
  void pool_##type(const E* in, Long ld, Long pixels, const Long* channels, Long all, Long batch, \
                   float* out, Long most, Long threads) {                                         \
    together(threads,                                                                             \
             [&](Team team) { pool(in, ld, pixels, channels, all, batch, out, most, team); });    \
  }                                                                                               \
  Long play_##type(const Step* steps, Long count, const Layout* layout, char* const* values,      \
                   const int32_t* places, Long* macs, const Deciding* deciding, Long batch,       \
                   Long most, Long threads) {                                                     \
    const Played on{layout, nullptr, values, places, macs, deciding, batch, nullptr};             \
    return play<E>(steps, steps + count, on, most, threads);                                      \
  }                                                                                               \
  void decide_##type(const Decision* decision, const E* in, Long channels, Long pixels,           \
                     Long* previous, float* hidden, float* cell) {                                \
    const auto features_of = [&](Long, Long, float* features) {                                   \
      pool(in, channels, pixels, nullptr, channels, 1, features, decision->features, Team{0, 1}); \
      return features;                                                                            \
    };                                                                                            \
    decide_all(*decision, 1, features_of, previous, hidden, cell);                                \
  }

CALLS(float, float32)
CALLS(bf16, bfloat16)
#undef CALLS

// Sets channels [from, to) of each image to zero; `size` bytes an element.
void clear(char* values, Long ld, Long pixels, const Long* from, const Long* to, Long batch,
           Long size) {
  for (Long b = 0; b < batch; b++)
    clear_image(values + b * pixels * ld * size, ld, pixels, from[b], to[b], size);
}

void settle(const Key* keys, Long count, const Long* groups, Long sites, Long batch,
            int32_t* places) {
  settle_all(keys, count, groups, sites, batch, 0, batch, places);
}

// Copies group counts to [image][site]. Returns 0 where a count is not in [1, most], 1 where all
// images have the same, else 2.
Long take_plans(const Long* from, Long image, Long site, Long batch, Long sites, Long most,
                Long* to) {
  bool fit = true, alike = true;
  for (Long b = 0; b < batch; b++)
    for (Long s = 0; s < sites; s++) {
      const Long count = from[b * image + s * site];
      to[b * sites + s] = count;
      fit &= count >= 1 && count <= most;
      alike &= count == to[s];
    }
  return fit ? (alike ? 1 : 2) : 0;
}
}
