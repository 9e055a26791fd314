// Threads that share the work of a call, and memory of each.
#pragma once

#include <omp.h>

#include <cstdint>
#include <cstdlib>

namespace {

// Threads that share the tasks of a call; one of them is this one.
struct Team {
  int64_t index, count;

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

// Has so many threads do some work, each told which one it is.
template <typename F>
void parallel(int64_t threads, F work) {
  if (threads == 1) return work(Team{0, 1});
#pragma omp parallel num_threads(threads)
  work(Team{omp_get_thread_num(), omp_get_num_threads()});
}

// Memory of this thread for elements of a type: what was in it is lost when it is asked for again.
template <typename E>
E* scratch(int64_t count) {
  static thread_local E* own = nullptr;
  static thread_local int64_t held = 0;
  if (count > held) {
    free(own);
    own = (E*)aligned_alloc(64, (count * (int64_t)sizeof(E) + 63) / 64 * 64);
    held = count;
  }
  return own;
}

}  // namespace
