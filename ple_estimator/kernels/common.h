// What the ops share: parallel loops and the dtype of product operands.

#ifndef PLE_ESTIMATOR_KERNELS_COMMON_H_
#define PLE_ESTIMATOR_KERNELS_COMMON_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>

#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/lib/core/threadpool.h"

// Element-wise loops are compiled several times and chosen when the library is
// loaded, so that one build runs on any x86-64 processor.
#define PLE_VECTORIZED \
  __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))

// For what is called in such loops: a clone is as fast as what it inlines.
#define PLE_INLINE __attribute__((always_inline)) inline

namespace ple {

inline tensorflow::thread::ThreadPool* Workers(
    tensorflow::OpKernelContext* context) {
  return context->device()->tensorflow_cpu_worker_threads()->workers;
}

inline int NumThreads(tensorflow::OpKernelContext* context) {
  return context->device()->tensorflow_cpu_worker_threads()->num_threads;
}

// Runs fn(0) to fn(total - 1) on the session's own threads and waits for them.
//
// The caller works too: where the pool is busy it does everything itself, and
// so never waits for a task that has not begun.
inline void ParallelRun(tensorflow::OpKernelContext* context, int total,
                        std::function<void(int)> fn) {
  struct State {
    std::atomic<int> next{0};
    int done = 0;
    std::mutex mutex;
    std::condition_variable all_done;
  };
  const int threads = std::min(NumThreads(context), total);
  if (threads <= 1) {
    for (int i = 0; i < total; ++i) fn(i);
    return;
  }
  auto state = std::make_shared<State>();
  auto drain = [state, total, fn] {
    int finished = 0;
    for (int i; (i = state->next++) < total; ++finished) fn(i);
    if (!finished) return;
    std::lock_guard<std::mutex> lock(state->mutex);
    state->done += finished;
    if (state->done == total) state->all_done.notify_all();
  };
  for (int t = 1; t < threads; ++t) Workers(context)->Schedule(drain);
  drain();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == total; });
}

}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_COMMON_H_
