// What a call works with: threads that share it, their memory, and the width of each image.
#pragma once

#include <omp.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "abi.h"

namespace {

// Threads that share the tasks of a call; one of them is this one.
struct Team {
  int64_t index, count;
  bool* short_of_memory;  // set by a thread that gets none

  // Runs tasks from 0 on, those that no other thread takes; returns when all are done.
  template <typename F>
  void parallel_for(int64_t tasks, F task) const {
    if (count == 1) {
      for (int64_t i = 0; i < tasks; i++) task(i);
      return;
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < tasks; i++) task(i);
  }

  // The same for parts of a batch, [first, last), of so many images at most.
  template <typename F>
  void parallel_for_parts(int64_t batch, int64_t most, F task) const {
    const int64_t few = (batch + most - 1) / most;
    const int64_t parts = (few + count - 1) / count * count;
    parallel_for(parts, [&](int64_t i) { task(batch * i / parts, batch * (i + 1) / parts); });
  }
};

// Has so many threads do some work, each told which one it is. Returns whether one of them was
// short of memory; its tasks are then not done.
template <typename F>
bool parallel(int64_t threads, F work) {
  bool short_of_memory = false;
  if (threads == 1) {
    work(Team{0, 1, &short_of_memory});
  } else {
#pragma omp parallel num_threads(threads)
    work(Team{omp_get_thread_num(), omp_get_num_threads(), &short_of_memory});
  }
  return short_of_memory;
}

bool poisoned = false;  // whether memory that nobody wrote holds NaN, so that reading it shows

// Fills memory with NaN, of either type, where that is asked for.
template <typename E>
inline void poison(E* memory, int64_t count) {
  if (poisoned) memset((void*)memory, 0xff, count * sizeof(E));
}

// Memory of this thread for elements of a type: what was in it is lost when it is asked for again.
// Returns null where there is none, and tells the team.
template <typename E>
E* scratch(int64_t count, const Team& team) {
  struct Block {
    E* first = nullptr;
    int64_t count = 0;
    ~Block() { free(first); }
  };
  static thread_local Block own;
  if (count > own.count) {
    free(own.first);
    own.first = (E*)aligned_alloc(kAligned, (count * (int64_t)sizeof(E) / kAligned + 1) * kAligned);
    own.count = own.first ? count : 0;
  }
  if (own.first)
    poison(own.first, count);
  else
#pragma omp atomic write
    *team.short_of_memory = true;
  return own.first;
}

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

}  // namespace
