// Drives the whole surface of the library at odd sizes, on memory of exactly the size that it may
// touch, so that sanitizers see a step beyond it; results are held against plain loops.
#include <cstdio>
#include <vector>

#include "reference.h"

namespace {

template <typename E>
void drive_convolutions(bool depthwise, int rounds) {
  const int64_t sizes[] = {1, 3, 7, 8, 9, 13, 16, 17, 24, 25, 32, 35, 40, 41, 50};
  for (int round = 0; round < rounds; round++) {
    const Geometry g = drawn_geometry(depthwise ? 5 : 4);
    const int64_t co = sizes[draw(0, 14)], ci = depthwise ? co : sizes[draw(0, 10)];
    const Layer<E> layer(ci, co, g.kh, g.kw, depthwise);
    const int64_t batch = draw(1, 3), ld_in = ci + draw(0, 3), ld_out = co + draw(0, 2) * 3;
    const bool add = draw(0, 1);
    const Call call{g,  ld_in, ld_out, draw(0, 1) ? 0.0f : -INFINITY, draw(0, 1) ? 6.0f : INFINITY,
                    add};
    const int64_t few_in = draw(1, ci), few_out = depthwise ? few_in : draw(1, co);
    const LayerSlice slices[] = {layer.slice(ci, co), layer.slice(few_in, few_out)};
    std::vector<int32_t> rows(batch);
    for (int32_t& row : rows) row = (int32_t)draw(0, 1);
    std::vector<int64_t> macs(batch, 1);
    const auto in = random_values<E>(batch * g.hi * g.wi * ld_in);
    const auto before = random_values<E>(batch * g.ho * g.wo * ld_out);
    auto out = before;
    const auto function = depthwise ? Api<E>::depthwise : Api<E>::convolve;
    if (function(&call, slices, rows.data(), nullptr, 1, draw(0, 1) ? macs.data() : nullptr,
                 in.data(), out.data(), batch, draw(1, 2)))
      fail("memory", 0, 1);
    for (int64_t b = 0; b < batch; b++)
      for (int64_t p = 0; p < g.ho * g.wo; p++)
        for (int64_t o = 0; o < ld_out; o++) {
          const int64_t at = (b * g.ho * g.wo + p) * ld_out + o;
          const LayerSlice& own = slices[rows[b]];
          double expected = to_float(before[at]);
          if (o < own.co) {
            const E* image = in.data() + b * g.hi * g.wi * ld_in;
            const double sum = by_loops(layer, call, own.ci, image, p / g.wo, p % g.wo, o);
            expected =
                std::min<double>(std::max<double>(sum + add * expected, call.low), call.high);
          }
          near(depthwise ? "depthwise" : "convolve", out[at], expected);
        }
  }
}

template <typename E>
void drive_linear(int rounds) {
  for (int round = 0; round < rounds; round++) {
    const int64_t inputs = 2 * draw(1, draw(0, 1) ? 20 : 300), outputs = draw(1, 70),
                  batch = draw(1, 70);
    const Layer<E> layer(inputs, outputs, 1, 1);
    const Call call{geometry_of(1, 1, 1, 1, 1, 1, 0, 0), inputs, outputs, -INFINITY, INFINITY, 0};
    std::vector<int64_t> own(batch);
    for (int64_t& count : own) count = 2 * draw(1, inputs / 2);
    std::sort(own.rbegin(), own.rend());
    const bool alike = draw(0, 1);
    const auto in = random_values<E>(batch * inputs);
    std::vector<E> out(batch * outputs);
    const LayerSlice slice = layer.slice(inputs, outputs);
    Api<E>::linear(&call, &slice, alike ? nullptr : own.data(), in.data(), out.data(), batch,
                   draw(1, 2));
    for (int64_t b = 0; b < batch; b++)
      for (int64_t o = 0; o < outputs; o++) {
        const E* vector = in.data() + b * inputs;
        near("linear", out[b * outputs + o],
             by_loops(layer, call, alike ? inputs : own[b], vector, 0, 0, o));
      }
  }
}

template <typename E>
void drive_pool(int rounds) {
  for (int round = 0; round < rounds; round++) {
    const int64_t room = draw(1, 90), pixels = draw(1, 50), batch = draw(1, 4),
                  most = room + draw(0, 9);
    std::vector<int64_t> counts(batch);
    for (int64_t& count : counts) count = draw(1, room);
    const bool all = draw(0, 1);
    const auto in = random_values<E>(batch * pixels * room);
    std::vector<float> out(batch * most, 5.0f);
    Api<E>::pool(in.data(), room, pixels, all ? nullptr : counts.data(), room, batch, out.data(),
                 most, draw(1, 2));
    for (int64_t b = 0; b < batch; b++)
      for (int64_t c = 0; c < most; c++) {
        double sum = 0;
        for (int64_t p = 0; p < pixels && c < (all ? room : counts[b]); p++)
          sum += to_float(in[(b * pixels + p) * room + c]);
        near("pool", out[b * most + c], sum / (double)pixels);
      }
  }
}

// A decision network with random weights of exactly the size that it needs.
struct Decider {
  std::vector<std::vector<float>> weights;
  Decision decision;

  Decider(int64_t features, int64_t code, int64_t hidden, int64_t values, bool lstm) {
    const int64_t gates = (lstm ? 4 : 3) * hidden;
    for (int64_t count : {features * code, (values + 1) * code, code * gates, gates, hidden * gates,
                          gates, hidden * values, values})
      weights.push_back(random_values<float>(count));
    const auto at = [&](int i) { return weights[i].data(); };
    decision = {at(0), at(1),    at(2), at(3),  at(4),  at(5), at(6),
                at(7), features, code,  hidden, values, lstm};
  }
};

template <typename E>
void drive_decisions(int rounds) {
  for (int round = 0; round < rounds; round++) {
    const int64_t features = draw(1, 40), hidden = draw(1, 40), values = draw(1, 9),
                  batch = draw(1, 13);
    const Decider decider(features, draw(1, 40), hidden, values, draw(0, 1));
    std::vector<int64_t> previous(batch, draw(0, values));
    std::vector<float> h(batch * hidden), c(batch * hidden);
    const auto given = random_values<float>(batch * features);
    decide(&decider.decision, given.data(), batch, previous.data(), h.data(), c.data());
    const int64_t pixels = draw(1, 30), channels = draw(1, features);
    const auto map = random_values<E>(pixels * channels);
    Api<E>::decide(&decider.decision, map.data(), channels, pixels, previous.data(), h.data(),
                   c.data());
    for (int64_t groups : previous)
      if (groups < 1 || groups > values) fail("decide", (double)groups, (double)values);
    for (float value : h)
      if (!(std::fabs(value) <= 1)) fail("hidden", value, 1);
  }
}

// A whole program: every opcode once, images at widths that a site decides between them.
template <typename E>
void drive_program(int64_t batch, int64_t most, int64_t threads, bool planes) {
  const int64_t high = 9, wide = 11, groups = 3;
  const int64_t channels[] = {3, 8, 13};  // by place
  const Layer<E> stem(3, 13, 3, 3), deep(13, 13, 3, 3), each(13, 13, 3, 3, true),
      head(13, 10, 1, 1);
  const auto images = random_values<float>(batch * high * wide * 3);
  const std::vector<float> mean(3 * 16, 0.25f), deviation(3 * 16, 0.5f);
  const Geometry whole = geometry_of(high, wide, 1, 1, 1, 1, 0, 0),
                 same = geometry_of(high, wide, 3, 3, 1, 1, 1, 1);
  const Geometry pooled = geometry_of(high, wide, 3, 2, 2, 2, 1, 0);
  const Geometry small = geometry_of(pooled.ho, pooled.wo, 1, 1, 1, 1, 0, 0);
  const Geometry filter = geometry_of(pooled.ho, pooled.wo, 3, 3, 1, 1, 1, 1),
                 one = geometry_of(1, 1, 1, 1, 1, 1, 0, 0);
  const auto call = [](const Geometry& g, int64_t in, int64_t out, int64_t add = 0) {
    return Call{g, in, out, -INFINITY, INFINITY, add};
  };
  const Call scales = call(whole, 3, 3), first = call(same, 3, 13), pools = call(pooled, 13, 13);
  const Call copies = call(small, 13, 17), filters = call(filter, 13, 17, 1),
             clears = call(small, 17, 17);
  const Call averages = call(small, 17, 13), vectors = call(one, 13, 10),
             decides = call(whole, 3, 3);
  const Call again = call(filter, 13, 13);
  const LayerSlice constants{deviation.data(), mean.data(), planes ? 3 : 48, 0, 0, 0};
  const LayerSlice copied{nullptr, nullptr, 13, 2, 0, 0}, all{nullptr, nullptr, 0, 3, 0, 0};
  std::vector<LayerSlice> stems, convolutions, filtered, counts, absent;
  for (int64_t own : channels) {
    stems.push_back(stem.slice(3, own));
    convolutions.push_back(deep.slice(own, 13));
    filtered.push_back(each.slice(own, own));
    counts.push_back({nullptr, nullptr, 0, own, 0, 0});
    absent.push_back({nullptr, nullptr, own, 17, 0, 0});
  }
  const LayerSlice heads = head.slice(13, 10);
  const Instruction steps[] = {
      {planes ? kScalePlanes : kScale, &scales, &constants, 0, 1, -1, -1, 1, 0},
      {kDecide, &decides, &all, 1, 1, -1, -1, 1, 0},
      {kConvolve, &first, stems.data(), 1, 2, -1, 0, 3, 0},
      {kMaxPool, &pools, counts.data(), 2, 3, 0, -1, 1, 0},
      {kConvolve, &again, convolutions.data(), 3, 4, 0, -1, 1, 0},
      {kCopy, &copies, &copied, 4, 5, -1, -1, 1, 0},
      {kDepthwise, &filters, filtered.data(), 3, 5, 0, -1, 1, 0},
      {kClear, &clears, absent.data(), 5, 5, 0, -1, 1, 0},
      {kAverage, &averages, counts.data() + 2, 5, 6, -1, -1, 1, 0},
      {kLinear, &vectors, &heads, 6, 7, -1, -1, 1, 0},
  };
  const int64_t less = pooled.ho * pooled.wo, aligned = kAligned / (int64_t)sizeof(E);
  std::vector<int64_t> places;
  int64_t elements = 0;
  for (int64_t size : {(int64_t)0, high * wide * 3, high * wide * 13, less * 13, less * 13,
                       less * 17, (int64_t)13, (int64_t)0}) {
    places.push_back(elements);
    elements += (size + aligned - 1) / aligned * aligned;
  }
  const BufferLayout layout{elements, places.data()};
  std::vector<E> logits(batch * 10);
  char* const values[] = {
      (char*)images.data(), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
      (char*)logits.data()};
  const Decider decider(3, 5, 7, groups, draw(0, 1));
  const Decision* const decisions[] = {&decider.decision};
  std::vector<int64_t> previous(batch), chosen(batch), macs(batch), known = {0, 1};
  std::vector<float> hidden(batch * 7), cell(batch * 7);
  const int64_t site[] = {0};
  const int32_t place[] = {0, 0, 1, 2};
  const WidthKey keys[] = {{1, groups + 1, site, place}};
  std::vector<int32_t> widths(batch);
  const DecisionState state{
      decisions, 0,    previous.data(), hidden.data(), cell.data(), chosen.data(),
      1,         keys, known.data(),    widths.data()};
  if (Api<E>::run(steps, sizeof steps / sizeof *steps, &layout, values, widths.data(), macs.data(),
                  &state, batch, most, threads))
    fail("memory", 0, 1);
  for (int64_t b = 0; b < batch; b++) {
    if (chosen[b] < 1 || chosen[b] > groups || widths[b] != chosen[b] - 1)
      fail("groups", (double)chosen[b], 0);
    const int64_t own = channels[widths[b]];
    const int64_t spent = own * high * wide * 27 + (own * 13 + own) * pooled.ho * pooled.wo * 9;
    if (macs[b] != spent) fail("macs", (double)macs[b], (double)spent);
    for (int64_t k = 0; k < 10; k++)
      if (!std::isfinite(to_float(logits[b * 10 + k])))
        fail("logits", to_float(logits[b * 10 + k]), 0);
  }
}

// What knows no type of element.
void drive_the_rest() {
  for (int64_t bytes : {2, 4})
    for (int64_t channels : {1, 3, 9, 33, 70}) {
      const int64_t batch = 3, pixels = 5, from[] = {0, channels / 2, channels};
      const int64_t to[] = {channels, channels, channels};
      std::vector<char> values(batch * pixels * channels * bytes, 1);
      clear(values.data(), channels, pixels, from, to, batch, bytes);
      for (int64_t i = 0; i < (int64_t)values.size(); i++) {
        const int64_t b = i / (pixels * channels * bytes), c = i / bytes % channels;
        if (values[i] != (c < from[b])) fail("clear", values[i], c < from[b]);
      }
    }
  const int64_t plans[] = {1, 4, 2, 1, 4, 3};
  int64_t found[6];
  if (take_plans(plans, 3, 1, 2, 3, 4, found) != 2 || found[5] != 3)
    fail("take_plans", found[5], 3);
  if (take_plans(plans, 0, 1, 2, 3, 4, found) != 1) fail("take_plans", 0, 1);
  if (take_plans(plans, 3, 1, 2, 3, 3, found) != 0) fail("take_plans", 1, 0);
  const int64_t sites[] = {0, 2};
  const int32_t places[] = {0, 0, 1, 2, 0, 1, 1, 3};
  const WidthKey key{2, 4, sites, places};
  const int64_t groups[] = {1, 9, 2, 3, 9, 3};
  int32_t widths[2];
  settle(&key, 1, groups, 3, 2, widths);
  if (widths[0] != 1 || widths[1] != 3) fail("settle", widths[1], 3);
  bool short_of_memory = false;
  const Team team{0, 1, &short_of_memory};
  if (!scratch<float>(8, team) || short_of_memory) fail("scratch", 0, 1);
  if (scratch<float>((int64_t)1 << 56, team) || !short_of_memory) fail("scratch", 1, 0);
  const char* name;
  int64_t row = 0, at, size;
  while (abi_row(row, &name, &at, &size)) row++;
  if (row < 60) fail("abi_row", (double)row, 60);
}

template <typename E>
void drive(int rounds) {
  drive_convolutions<E>(false, 12 * rounds);
  drive_convolutions<E>(true, 8 * rounds);
  drive_linear<E>(2 * rounds);
  drive_pool<E>(4 * rounds);
  drive_decisions<E>(4 * rounds);
  for (int64_t batch : {1, 2, 9})
    for (bool planes : {false, true}) {
      drive_program<E>(batch, 0, 1, planes);
      drive_program<E>(batch, 0, 2, planes);
      drive_program<E>(batch, batch > 4 ? 4 : 1, 2, planes);
    }
}

}  // namespace

int main() {
  for (bool poison : {false, true}) {
    set_poisoned(poison);
    drive<float>(6);
    drive<bf16>(6);
  }
  drive_the_rest();
  puts("driven");
}
