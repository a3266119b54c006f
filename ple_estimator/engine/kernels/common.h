// What the ops share: names, outputs and parallel loops.

#ifndef PLE_ESTIMATOR_KERNELS_COMMON_H_
#define PLE_ESTIMATOR_KERNELS_COMMON_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/lib/core/threadpool.h"

// Element-wise loops are compiled several times and chosen when the library is
// loaded, so that one build runs on any x86-64 processor.
#define PLE_VECTORIZED \
  __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))

// For what is called in such loops: a clone is as fast as what it inlines.
#define PLE_INLINE __attribute__((always_inline)) inline

namespace ple {

using tensorflow::DEVICE_CPU;
using tensorflow::OpInputList;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::OpOutputList;
using tensorflow::Status;
using tensorflow::Tensor;
using tensorflow::TensorShape;
namespace errors = tensorflow::errors;

// Makes the outputs of a list, of the shapes of `like`, whose last stands for
// those that it does not reach; appends where their numbers are.
inline Status Allocate(OpKernelContext* context, const char* name,
                       const OpInputList& like, std::vector<float*>* data) {
  OpOutputList outputs;
  Status status = context->output_list(name, &outputs);
  for (int i = 0; status.ok() && i < outputs.size(); ++i) {
    Tensor* output = nullptr;
    status = outputs.allocate(i, like[std::min(i, like.size() - 1)].shape(),
                              &output);
    if (status.ok()) data->push_back(output->flat<float>().data());
  }
  return status;
}

inline tensorflow::thread::ThreadPool* Workers(OpKernelContext* context) {
  return context->device()->tensorflow_cpu_worker_threads()->workers;
}

inline int NumThreads(OpKernelContext* context) {
  return context->device()->tensorflow_cpu_worker_threads()->num_threads;
}

// Runs fn(0) to fn(total - 1) on the session's own threads and waits for them.
//
// The caller works too: where the pool is busy it does everything itself, and
// so never waits for a task that has not begun.
inline void ParallelRun(OpKernelContext* context, int total,
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
