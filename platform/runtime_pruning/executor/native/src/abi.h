// What the library shares with Python: `abi.py` says the same, and the loader compares both.
#pragma once

#include <cstddef>
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
  int32_t* kept;    // [site][image][1 + room]: of subsets, how many channels, and which
  int64_t room;
  int64_t* spent;  // MACs of subsets, by image
};

// A layer of which each image runs the outputs that a branch finds salient for it.
struct Subset {
  const float *weight, *bias;            // [kh][kw][inputs][outputs]
  const float *squeeze, *expand;         // of the branch, input by output; null: all outputs run
  const float* expand_bias;
  int64_t inputs, hidden, outputs;
  float threshold, most;  // saliencies below are dropped, above are clamped
  int64_t site;           // under which kept channels are noted
  int64_t source;         // site whose kept channels the input has, first; below zero: it has all
  int64_t scattered;      // whether kept outputs go to their own places, else first
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
  kDecide,
  kSubset
};

// One of several calls that follow each other. Images find their widths in one table.
struct Instruction {
  int64_t opcode;
  const Call* call;
  const LayerSlice* widths;
  int64_t source, target;  // places in the table of values
  int64_t read, write;  // rows of the widths by image, [row][image]; below zero: all have the first
  int64_t writes;
  int64_t site;  // of kDecide
  const Subset* subset;
};

constexpr int64_t kAligned = 64;  // bytes

// Where the values of a program lie that have no address: in one block of memory, one after the
// other, each of all images that run together.
struct BufferLayout {
  int64_t elements;       // an image, a multiple of kAligned bytes
  const int64_t* places;  // of values, in elements an image
};

// What the loader compares: each structure with its size, each field with its place and size, and
// each opcode with its number.
struct AbiRow {
  const char* name;
  int64_t place, size;
};

#define SIZE(S) {#S, 0, sizeof(S)}
#define FIELD(S, field) {#S "." #field, offsetof(S, field), sizeof(S::field)}
#define OPCODE(name) {"Opcode." #name, name, 0}
// clang-format off
constexpr AbiRow kAbi[] = {
    SIZE(Geometry), FIELD(Geometry, hi), FIELD(Geometry, wi), FIELD(Geometry, ho),
    FIELD(Geometry, wo), FIELD(Geometry, kh), FIELD(Geometry, kw), FIELD(Geometry, stride_y),
    FIELD(Geometry, stride_x), FIELD(Geometry, pad_y), FIELD(Geometry, pad_x),
    SIZE(LayerSlice), FIELD(LayerSlice, weight), FIELD(LayerSlice, bias), FIELD(LayerSlice, ci),
    FIELD(LayerSlice, co), FIELD(LayerSlice, tap), FIELD(LayerSlice, block),
    SIZE(Call), FIELD(Call, g), FIELD(Call, ld_in), FIELD(Call, ld_out), FIELD(Call, low),
    FIELD(Call, high), FIELD(Call, add),
    SIZE(Decision), FIELD(Decision, encode), FIELD(Decision, table), FIELD(Decision, input),
    FIELD(Decision, input_bias), FIELD(Decision, carry), FIELD(Decision, carry_bias),
    FIELD(Decision, decode), FIELD(Decision, decode_bias), FIELD(Decision, features),
    FIELD(Decision, code), FIELD(Decision, hidden), FIELD(Decision, values), FIELD(Decision, lstm),
    SIZE(WidthKey), FIELD(WidthKey, sites), FIELD(WidthKey, counts), FIELD(WidthKey, site),
    FIELD(WidthKey, place),
    SIZE(DecisionState), FIELD(DecisionState, decisions), FIELD(DecisionState, settled),
    FIELD(DecisionState, previous), FIELD(DecisionState, hidden), FIELD(DecisionState, cell),
    FIELD(DecisionState, groups), FIELD(DecisionState, sites), FIELD(DecisionState, keys),
    FIELD(DecisionState, known), FIELD(DecisionState, places),
    FIELD(DecisionState, kept), FIELD(DecisionState, room), FIELD(DecisionState, spent),
    SIZE(Subset), FIELD(Subset, weight), FIELD(Subset, bias), FIELD(Subset, squeeze),
    FIELD(Subset, expand), FIELD(Subset, expand_bias), FIELD(Subset, inputs),
    FIELD(Subset, hidden), FIELD(Subset, outputs), FIELD(Subset, threshold), FIELD(Subset, most),
    FIELD(Subset, site), FIELD(Subset, source), FIELD(Subset, scattered),
    SIZE(Instruction), FIELD(Instruction, opcode), FIELD(Instruction, call),
    FIELD(Instruction, widths), FIELD(Instruction, source), FIELD(Instruction, target),
    FIELD(Instruction, read), FIELD(Instruction, write), FIELD(Instruction, writes),
    FIELD(Instruction, site), FIELD(Instruction, subset),
    SIZE(BufferLayout), FIELD(BufferLayout, elements), FIELD(BufferLayout, places),
    OPCODE(kConvolve), OPCODE(kDepthwise), OPCODE(kLinear), OPCODE(kMaxPool), OPCODE(kCopy),
    OPCODE(kClear), OPCODE(kAverage), OPCODE(kScale), OPCODE(kScalePlanes), OPCODE(kDecide),
    OPCODE(kSubset),
};
// clang-format on
#undef SIZE
#undef FIELD
#undef OPCODE

}  // namespace
