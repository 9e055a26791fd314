// Layers of which each image runs the output channels that are salient for it. Their rows of the
// weights are gathered, with the columns of the channels that the input has, and scaled by their
// saliency; then a convolution runs as if the layer were so narrow.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "abi.h"
#include "convolve.h"
#include "pooling.h"
#include "simd.h"
#include "threads.h"

namespace {

inline int64_t whole_blocks(int64_t count, int64_t size) { return (count + size - 1) / size * size; }

// What one thread works with, in one block of memory.
template <typename E>
struct SubsetRoom {
  float *features, *code, *saliency;  // of the pooled input, inside the branch, of the outputs
  float* bias;
  int32_t *mask, *from;  // of each block of what is written to: its kept channels, and the first
  E *weight, *result;

  // Takes places from a block, or returns how many bytes they need where there is none.
  int64_t take(char* block, const Subset& layer, const Call& call) {
    const Geometry& g = call.g;
    int64_t used = 0;
    const auto place = [&](auto*& pointer, int64_t count) {
      pointer = (std::remove_reference_t<decltype(pointer)>)(block + used);
      used += whole_blocks(count * (int64_t)sizeof *pointer, kAligned);
    };
    const int64_t outputs = whole_blocks(layer.outputs, kBlock);
    place(features, whole_blocks(layer.inputs, kBlock));
    place(code, whole_blocks(layer.hidden, kBlock));
    place(saliency, outputs);
    place(bias, outputs);
    place(mask, call.ld_out / kBlock + 1);
    place(from, call.ld_out / kBlock + 1);
    place(weight, outputs * g.kh * g.kw * whole_blocks(layer.inputs, Product<E>::kStep));
    place(result, g.ho * g.wo * outputs + kBlock);  // of which the last block is read whole
    return used;
  }
};

// The pooled input at the places of its channels, absent ones zero.
template <typename E>
void pool_kept(const E* image, int64_t ld, int64_t pixels, const Subset& layer,
               const int32_t* read, int64_t inputs, float* features) {
  means(image, ld, pixels, inputs, features);
  if (!read) return;
  std::fill(features + inputs, features + layer.inputs, 0.0f);
  for (int64_t i = inputs - 1; i >= 0; i--) {  // from the last, since no place lies before its own
    const float mean = features[i];
    features[i] = 0;
    features[read[i]] = mean;
  }
}

// Adds rows of a matrix, each times a number; zeros are passed over.
inline void add_rows(const float* rows, const float* factors, int64_t count, int64_t columns,
                     float* sums) {
  for (int64_t i = 0; i < count; i++) {
    const float factor = factors[i], *row = rows + i * columns;
    if (factor != 0)
      for (int64_t c = 0; c < columns; c++) sums[c] += factor * row[c];
  }
}

// Finds the saliencies of all outputs, and which of them are kept; returns how many.
template <typename E>
int64_t select(const Subset& layer, SubsetRoom<E>& room, int32_t* kept) {
  if (!layer.squeeze) {  // no branch: all are
    for (int64_t c = 0; c < layer.outputs; c++) kept[c] = (int32_t)c, room.saliency[c] = 1;
    return layer.outputs;
  }
  std::fill(room.code, room.code + layer.hidden, 0.0f);
  add_rows(layer.squeeze, room.features, layer.inputs, layer.hidden, room.code);
  for (int64_t h = 0; h < layer.hidden; h++) room.code[h] = std::max(room.code[h], 0.0f);
  std::copy(layer.expand_bias, layer.expand_bias + layer.outputs, room.saliency);
  add_rows(layer.expand, room.code, layer.hidden, layer.outputs, room.saliency);
  int64_t count = 0;
  for (int64_t c = 0; c < layer.outputs; c++) {
    const float saliency = std::min(std::max(room.saliency[c], 0.0f), layer.most);
    if (!(saliency >= layer.threshold && saliency > 0)) continue;
    room.saliency[count] = saliency;  // of what is kept: never behind the one that is read
    kept[count++] = (int32_t)c;
  }
  return count;
}

// Sixteen elements of a row.
inline void gather(const float* row, const int32_t* index, const float* scale, float* to) {
#ifdef __AVX512F__
  const auto found = (Vec<kBlock>::F)_mm512_i32gather_ps(_mm512_loadu_si512(index), row, 4);
  *(Vec<kBlock>::F*)to = found * *(const Vec<kBlock>::F*)scale;
#else
  for (int64_t l = 0; l < kBlock; l++) to[l] = row[index[l]] * scale[l];
#endif
}

// Rounds sixteen floats of each of two inputs, and lays them in pairs.
inline void pair_up(const float (*values)[kBlock], bf16* to) {
  bf16 rounded[2][kBlock];
  for (int64_t s = 0; s < 2; s++)
    for (int64_t l = 0; l < kBlock; l += kLanes)
      write<kLanes>(rounded[s] + l, read<kLanes>(values[s] + l));
  for (int64_t l = 0; l < kBlock; l++) to[2 * l] = rounded[0][l], to[2 * l + 1] = rounded[1][l];
}

// Packs the kept rows and columns as `LayerSlice` has them, each row times its saliency.
template <typename E>
void pack(const Subset& layer, const Geometry& g, const int32_t* read, int64_t inputs,
          const int32_t* kept, int64_t outputs, SubsetRoom<E>& room) {
  constexpr int64_t kStep = Product<E>::kStep;
  const int64_t taps = g.kh * g.kw;
  E* to = room.weight;
  for (int64_t c = 0; c < outputs; c += kBlock) {
    const int64_t lanes = std::min(outputs - c, kBlock);
    int32_t index[kBlock] = {};
    float scale[kBlock] = {};  // lanes behind the last are the first row times zero
    std::copy(kept + c, kept + c + lanes, index);
    std::copy(room.saliency + c, room.saliency + c + lanes, scale);
    gather(layer.bias, index, scale, room.bias + c);
    for (int64_t tap = 0; tap < taps; tap++) {
      const float* rows = layer.weight + tap * layer.inputs * layer.outputs;
      const auto row = [&](int64_t i) { return rows + (read ? read[i] : i) * layer.outputs; };
      for (int64_t i = 0; i < inputs; i += kStep, to += kStep * kBlock) {
        if constexpr (kStep == 1) {
          gather(row(i), index, scale, to);
        } else {
          float values[kStep][kBlock] = {};  // behind an odd input are zeros
          for (int64_t s = 0; s < std::min(kStep, inputs - i); s++)
            gather(row(i + s), index, scale, values[s]);
          pair_up(values, to);
        }
      }
    }
  }
}

#ifdef __AVX512F__
// Puts the kept channels of a result to their places: onto what is there, or between zeros.
template <typename E>
void scatter(const Call& call, const int32_t* kept, int64_t outputs, SubsetRoom<E>& room, E* out) {
  typedef Vec<kBlock>::F F;
  const int64_t blocks = (call.ld_out + kBlock - 1) / kBlock;
  for (int64_t n = 0, j = 0; n < blocks; n++) {
    room.from[n] = (int32_t)j;
    for (room.mask[n] = 0; j < outputs && kept[j] < (n + 1) * kBlock; j++)
      room.mask[n] |= 1 << kept[j] % kBlock;
  }
  const float most = call.add ? call.high : INFINITY, least = call.add ? call.low : -INFINITY;
  const F low = least + F{}, high = most + F{};
  const E* result = room.result;
  for (int64_t p = 0; p < call.g.ho * call.g.wo; p++, out += call.ld_out, result += outputs)
    for (int64_t n = 0; n < blocks; n++) {
      const auto all = (__m512)read<kBlock>(result + room.from[n]);
      const auto own = (F)_mm512_maskz_expand_ps((__mmask16)room.mask[n], all);
      store<kBlock>(call.add, out + n * kBlock, own, call.ld_out - n * kBlock, low, high);
    }
}
#else
// Likewise, channel by channel.
template <typename E>
void scatter(const Call& call, const int32_t* kept, int64_t outputs, SubsetRoom<E>& room, E* out) {
  const E* result = room.result;
  const bool limits = call.add && (call.low > -INFINITY || call.high < INFINITY);
  for (int64_t p = 0; p < call.g.ho * call.g.wo; p++, out += call.ld_out, result += outputs) {
    if (!call.add) memset((void*)out, 0, call.ld_out * sizeof(E));
    for (int64_t j = 0; j < outputs; j++) {
      E* to = out + kept[j];
      write<1>(to, call.add ? read<1>(to) + read<1>(result + j) : read<1>(result + j));
    }
    if (!limits) continue;
    for (int64_t c = 0; c < call.ld_out; c++) {
      const float value = read<1>(out + c)[0], above = call.low > value ? call.low : value;
      write<1>(out + c, Vec<1>::F{call.high < above ? call.high : above});
    }
  }
}
#endif

// Runs a layer on images [first, first + batch) of `all`, each on its own channels.
template <typename E>
void run_subset(const Call& call, const Subset& layer, const DecisionState& state, int64_t all,
                int64_t first, const E* in, E* out, int64_t batch, Team team) {
  const Geometry& g = call.g;
  SubsetRoom<E> room;
  const int64_t bytes = room.take(nullptr, layer, call);
  char* const block = scratch<char>(bytes, team);
  E* const rows = scratch<E>(
      ((g.ho - 1) * g.stride_y + g.kh) * (g.wi + 2 * g.pad_x) * (layer.inputs + 1), team);
  const auto kept_at = [&](int64_t site, int64_t b) {
    return state.kept + (site * all + first + b) * (state.room + 1);
  };
  team.parallel_for(batch, [&](int64_t b) {
    if (!block || !rows) return;
    room.take(block, layer, call);
    const int32_t* read = layer.source < 0 ? nullptr : kept_at(layer.source, b);
    const int64_t inputs = read ? *read++ : layer.inputs;
    const E* image = in + b * g.hi * g.wi * call.ld_in;
    E* to = out + b * g.ho * g.wo * call.ld_out;
    int32_t* kept = kept_at(layer.site, b);
    if (layer.squeeze)
      pool_kept(image, call.ld_in, g.hi * g.wi, layer, read, inputs, room.features);
    const int64_t outputs = *kept = (int32_t)select(layer, room, kept + 1);
    pack(layer, g, read, inputs, kept + 1, outputs, room);
    state.spent[first + b] += outputs * inputs * g.kh * g.kw * g.ho * g.wo;
    const int64_t tap = whole_blocks(inputs, Product<E>::kStep) * kBlock;
    const LayerSlice slice{room.weight, room.bias, inputs, outputs, tap, g.kh * g.kw * tap};
    Call own = call;
    own.add = 0;
    if (call.add) own.low = -INFINITY, own.high = INFINITY;
    if (layer.scattered) own.ld_out = outputs;
    E* target = layer.scattered ? room.result : to;
    if (outputs) convolve_rows(own, slice, image, target, 0, g.ho, rows);
    if (layer.scattered) scatter(call, kept + 1, outputs, room, to);
  });
}

}  // namespace
