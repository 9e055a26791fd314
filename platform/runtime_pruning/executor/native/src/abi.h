// What the library shares with Python: `abi.py` says the same, and the loader compares both.
#pragma once

#include <cstdint>

namespace {

struct Geometry {
  int64_t hi, wi, ho, wo, kh, kw, stride_y, stride_x, pad_y, pad_x;
};

struct LayerSlice {
  // [co / 16][kh][kw][ci][16], bfloat16: [co / 16][kh][kw][ci / 2][16][2]; depthwise: [kh][kw][co]
  const void* weight;
  const float* bias;  // as many as a whole number of blocks
  int64_t ci, co;
  int64_t tap, block;  // elements between taps, and between blocks, of the weights
};

struct Call {
  Geometry g;
  int64_t ld_in, ld_out;  // elements from pixel to pixel
  float low, high;        // results are clamped
  int64_t add;            // whether results are added to what is there
};

// Finds the slice of a layer that each image runs, and counts its MACs, if they are to be counted.
struct WidthLookup {
  const LayerSlice* slices;
  const int32_t *read, *write;  // image b has row read[b] * writes + write[b]; null: all zeros
  int64_t writes;
  int64_t* macs;

  const LayerSlice& of(int64_t b) const {
    return slices[(read ? read[b] * writes : 0) + (write ? write[b] : 0)];
  }

  void count(int64_t b, int64_t products) const {
    if (macs) macs[b] += products;
  }
};

struct bf16 {
  uint16_t bits;
};

// One decision of a network with a recurrent cell; all matrices lie input by output.
struct Decision {
  const float *encode, *table;        // features to code; what is added, by previous decision
  const float *input, *input_bias;    // code to gates
  const float *carry, *carry_bias;    // hidden state to gates
  const float *decode, *decode_bias;  // hidden state to values
  int64_t features, code, hidden, values, lstm;
};

// How wide a value is: the widest that the decisions of some sites ask for.
struct WidthKey {
  int64_t sites, counts;  // how many sites; group counts of each, none included
  const int64_t* site;
  const int32_t* place;  // [sites][counts]: of the width that a site asks for
};

// Decisions that are made between the layers.
struct DecisionState {
  const Decision* const* decisions;  // by site
  int64_t settled;                   // of the first sites all images have one group
  int64_t* previous;                 // as `decide` has them
  float *hidden, *cell;
  int64_t* groups;  // [image][site]
  int64_t sites;
  const WidthKey* keys;  // those from known[site] to known[site + 1] are settled by a site
  const int64_t* known;
  int32_t* places;  // [key][image]
};

enum Opcode {
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

// One of several calls that follow each other. Images find their widths in one table.
struct Instruction {
  int64_t opcode;
  const Call* call;
  const LayerSlice* widths;
  int64_t in, out;      // places in the table of values
  int64_t read, write;  // rows of the widths by image, [row][image]; below zero: all have the first
  int64_t writes;
  int64_t site;  // of kDecide
};

constexpr int64_t kAligned = 64;  // bytes

// Where the values of a program lie that have no address: in one block of memory, one after the
// other, each of all images that run together.
struct BufferLayout {
  int64_t elements;       // an image, a multiple of kAligned bytes
  const int64_t* places;  // of values, in elements an image
};

}  // namespace
