// Calls for networks whose images run at widths of their own, on channels-last feature maps.
//
// One call runs a layer on a batch: image b reads the first `ci` channels of its pixels and writes
// the first `co`, as its slice of the layer says. Nothing is gathered and nothing is masked. A
// program is several calls in a table, run as one. All of it is one translation unit.
//
// Elements are float or bfloat16 (the latter in pairs, summed in float).
#if !defined(__AVX2__) || !defined(__FMA__)
#error "a processor with AVX2 and fused multiply-add is needed"
#endif
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "abi.h"
#include "convolve.h"
#include "decide.h"
#include "depthwise.h"
#include "linear.h"
#include "movement.h"
#include "pooling.h"
#include "simd.h"
#include "subset.h"
#include "threads.h"

namespace {

// What instructions run on.
struct RunArgs {
  const BufferLayout* layout;
  char* room;
  char* const* values;  // addresses, or null
  const int32_t* places;
  int64_t* macs;
  const DecisionState* decisions;
  int64_t batch;
  float* means;  // room for parts of feature maps' means; null where threads do not share an image
};

// Whether a value that has no address comes into being by an instruction.
inline bool makes(const Instruction* steps, const Instruction* s, const RunArgs& args) {
  const auto same = [&](const Instruction& earlier) { return earlier.target == s->target; };
  return !args.values[s->target] && std::none_of(steps, s, same);
}

// Runs instructions for images [first, last) of a batch.
template <typename E>
void run_images(const Instruction* steps, const Instruction* end, const RunArgs& args,
                int64_t first, int64_t last, Team team) {
  const int64_t batch = last - first;
  const auto places_of = [&](int64_t row) {
    return row < 0 ? nullptr : args.places + row * args.batch + first;
  };
  const auto value_of = [&](int64_t value, int64_t elements, int64_t size) {
    if (args.values[value]) return args.values[value] + first * elements * size;
    return args.room + args.layout->places[value] * batch * (int64_t)sizeof(E);
  };
  for (const Instruction* s = steps; s < end; s++) {
    const Call& call = *s->call;
    const Geometry& g = call.g;
    const WidthLookup lookup{s->widths, places_of(s->read), places_of(s->write), s->writes,
                             args.macs ? args.macs + first : nullptr};
    const int64_t inputs = g.hi * g.wi * call.ld_in;
    const int64_t outputs = (s->opcode == kAverage ? 1 : g.ho * g.wo) * call.ld_out;
    const bool images = s->opcode == kScale || s->opcode == kScalePlanes;
    const E* in = (const E*)value_of(s->source, inputs, images ? sizeof(float) : sizeof(E));
    E* out = (E*)value_of(s->target, outputs, sizeof(E));
    if (poisoned && makes(steps, s, args))
      team.parallel_for(batch, [&](int64_t b) { poison(out + b * outputs, outputs); });
    switch (s->opcode) {
      case kConvolve:
        convolve(call, lookup, in, out, batch, team);
        break;
      case kDepthwise:
        depthwise(call, lookup, in, out, batch, team);
        break;
      case kLinear:
        linear(call, *s->widths, nullptr, in, out, batch, team);
        break;
      case kMaxPool:
        max_pool(call, lookup, in, out, batch, team);
        break;
      case kCopy:
        copy(call, *s->widths, in, out, batch, team);
        break;
      case kAverage:
        average(call, lookup, in, out, batch, team);
        break;
      case kScale:
        scale(call, *s->widths, (const float*)in, out, batch, team);
        break;
      case kScalePlanes:
        scale_planes(call, *s->widths, (const float*)in, out, batch, team);
        break;
      case kDecide: {
        const bool shared =
            s->site >= args.decisions->settled && inputs * (int64_t)sizeof(E) >= kSharedMap;
        const Parts parts{shared ? args.means : nullptr, team.count};
        if (parts.means)
          team.parallel_for(batch * team.count, [&](int64_t task) {
            const int64_t b = task / team.count, part = task % team.count;
            parts.find(in, call.ld_in, g.hi * g.wi, lookup.of(b).co, b, part);
          });
        team.parallel_for_parts(batch, kDecidedTogether, [&](int64_t begin, int64_t end) {
          decide_site(*args.decisions, s->site, call, lookup, in, parts, args.batch, first, begin,
                      end, team);
        });
        break;
      }
      case kSubset:
        run_subset(call, *s->subset, *args.decisions, args.batch, first, in, out, batch, team);
        break;
      case kClear:
        team.parallel_for(batch, [&](int64_t b) {
          const LayerSlice& slice = lookup.of(b);
          clear_image((char*)(out + b * g.hi * g.wi * call.ld_out), call.ld_out, g.hi * g.wi,
                      slice.ci, slice.co, sizeof(E));
        });
        break;
    }
  }
}

// Runs instructions for a batch. Threads take parts of `most` images through all of them, each in
// memory of its own; where that is 0, they share each instruction on the whole batch.
//
// Returns 1 where there is no memory for that, else 0.
template <typename E>
int64_t run(const Instruction* steps, const Instruction* end, RunArgs args, int64_t most,
            int64_t threads) {
  const int64_t bytes = args.layout->elements * (int64_t)sizeof(E);
  const int64_t images = most ? most * threads : args.batch;
  int64_t widest = 0;
  if (!most && args.batch < threads)
    for (const Instruction* s = steps; s < end; s++)
      if (s->opcode == kDecide) widest = std::max(widest, s->call->ld_in);
  const int64_t values =
      (args.batch * threads * widest * (int64_t)sizeof(float) / kAligned + 1) * kAligned;
  args.room = (char*)aligned_alloc(kAligned, bytes * images + values);
  if (!args.room) return 1;
  if (widest) args.means = (float*)(args.room + bytes * images);
  const bool short_of_memory = parallel(threads, [&](Team team) {
    if (!most) return run_images<E>(steps, end, args, 0, args.batch, team);
    RunArgs own = args;
    own.room += bytes * most * team.index;
    team.parallel_for_parts(args.batch, most, [&](int64_t first, int64_t last) {
      run_images<E>(steps, end, own, first, last, Team{0, 1, team.short_of_memory});
    });
  });
  free(args.room);
  return short_of_memory;
}

}  // namespace

extern "C" {

// Calls that return a number return 0 where all was done, 1 where there was no memory for it.

// `previous` holds the last decisions and gets the new ones.
int64_t decide(const Decision* decision, const float* features, int64_t batch, int64_t* previous,
               float* hidden, float* cell) {
  const auto features_of = [&](int64_t b, int64_t, float*) {
    return features + b * decision->features;
  };
  return parallel(1, [&](Team team) {
    decide_all(*decision, batch, features_of, previous, hidden, cell, team);
  });
}

// The calls for one type of element. `decide_` is for one image, from the feature map that a site
// reads.
#define CALLS(E, type)                                                                            \
  int64_t convolve_##type(const Call* call, const LayerSlice* widths, const int32_t* read,        \
                          const int32_t* write, int64_t writes, int64_t* macs, const E* in,       \
                          E* out, int64_t batch, int64_t threads) {                               \
    return parallel(threads, [&](Team team) {                                                     \
      convolve(*call, {widths, read, write, writes, macs}, in, out, batch, team);                 \
    });                                                                                           \
  }                                                                                               \
  int64_t depthwise_##type(const Call* call, const LayerSlice* widths, const int32_t* read,       \
                           const int32_t* write, int64_t writes, int64_t* macs, const E* in,      \
                           E* out, int64_t batch, int64_t threads) {                              \
    return parallel(threads, [&](Team team) {                                                     \
      depthwise(*call, {widths, read, write, writes, macs}, in, out, batch, team);                \
    });                                                                                           \
  }                                                                                               \
  void linear_##type(const Call* call, const LayerSlice* slice, const int64_t* inputs,            \
                     const E* in, E* out, int64_t batch, int64_t threads) {                       \
    parallel(threads, [&](Team team) { linear(*call, *slice, inputs, in, out, batch, team); });   \
  }                                                                                               \
  void pool_##type(const E* in, int64_t ld, int64_t pixels, const int64_t* channels, int64_t all, \
                   int64_t batch, float* out, int64_t most, int64_t threads) {                    \
    parallel(threads,                                                                             \
             [&](Team team) { pool(in, ld, pixels, channels, all, batch, out, most, team); });    \
  }                                                                                               \
  int64_t run_##type(const Instruction* steps, int64_t count, const BufferLayout* layout,         \
                     char* const* values, const int32_t* places, int64_t* macs,                   \
                     const DecisionState* decisions, int64_t batch, int64_t most,                 \
                     int64_t threads) {                                                           \
    const RunArgs args{layout, nullptr, values, places, macs, decisions, batch, nullptr};         \
    return run<E>(steps, steps + count, args, most, threads);                                     \
  }                                                                                               \
  int64_t decide_##type(const Decision* decision, const E* in, int64_t channels, int64_t pixels,  \
                        int64_t* previous, float* hidden, float* cell) {                          \
    return parallel(1, [&](Team team) {                                                           \
      const auto features_of = [&](int64_t, int64_t, float* features) {                           \
        pool(in, channels, pixels, nullptr, channels, 1, features, decision->features, team);     \
        return features;                                                                          \
      };                                                                                          \
      decide_all(*decision, 1, features_of, previous, hidden, cell, team);                        \
    });                                                                                           \
  }

CALLS(float, float32)
CALLS(bf16, bfloat16)
#undef CALLS

// Sets channels [from, to) of each image to zero; `size` bytes an element.
void clear(char* values, int64_t ld, int64_t pixels, const int64_t* from, const int64_t* to,
           int64_t batch, int64_t size) {
  for (int64_t b = 0; b < batch; b++)
    clear_image(values + b * pixels * ld * size, ld, pixels, from[b], to[b], size);
}

void settle(const WidthKey* keys, int64_t count, const int64_t* groups, int64_t sites,
            int64_t batch, int32_t* places) {
  settle_all(keys, count, groups, sites, batch, 0, batch, places);
}

// Copies group counts to [image][site]. Returns 0 where a count is not in [1, most], 1 where all
// images have the same, else 2.
int64_t take_plans(const int64_t* from, int64_t image, int64_t site, int64_t batch, int64_t sites,
                   int64_t most, int64_t* to) {
  bool fit = true, alike = true;
  for (int64_t b = 0; b < batch; b++)
    for (int64_t s = 0; s < sites; s++) {
      const int64_t count = from[b * image + s * site];
      to[b * sites + s] = count;
      fit &= count >= 1 && count <= most;
      alike &= count == to[s];
    }
  return fit ? (alike ? 1 : 2) : 0;
}

// Has memory that nobody wrote hold NaN from here on, or not.
void set_poisoned(int64_t on) { poisoned = on; }

// Finds a row of what `abi.py` must agree with; returns 0 behind the last.
int64_t abi_row(int64_t row, const char** name, int64_t* place, int64_t* size) {
  if (row >= (int64_t)(sizeof kAbi / sizeof *kAbi)) return 0;
  *name = kAbi[row].name;
  *place = kAbi[row].place;
  *size = kAbi[row].size;
  return 1;
}
}  // extern "C"
