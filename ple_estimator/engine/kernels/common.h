// What all ops share: names, errors, outputs and parallel loops.

#ifndef PLE_ESTIMATOR_KERNELS_COMMON_H_
#define PLE_ESTIMATOR_KERNELS_COMMON_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/lib/core/threadpool.h"
#include "trace.h"

// Element-wise loops are compiled several times and chosen when the library is
// loaded, so that one build runs on any x86-64 processor. The targets are named
// by features, as GCC before 12 has no arch=x86-64-v4 here; the loops need no
// more of AVX-512 than its first part. A sanitizer cannot run the code that
// chooses, which is called before the sanitizer is ready.
#ifdef PLE_NO_CLONES
#define PLE_VECTORIZED
#else
#define PLE_VECTORIZED \
  __attribute__((target_clones("avx512f", "avx2", "default")))
#endif

// For what is called in such loops: a clone is as fast as what it inlines.
#define PLE_INLINE __attribute__((always_inline)) inline

// Ends an op with InvalidArgument unless a condition holds. The parts of the
// message are only looked at if it does not.
#define PLE_REQUIRE(condition, ...)                                      \
  do {                                                                   \
    if (!(condition))                                                    \
      throw ::ple::Failure{                                              \
          tensorflow::errors::InvalidArgument(__VA_ARGS__)};             \
  } while (false)

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
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;
namespace errors = tensorflow::errors;

// ---------------------------------------------------------------- errors ---

// How a function inside of an op says that the op has failed. It never leaves
// the library: Op::Compute makes it the status of the op.
struct Failure {
  Status status;
};

// Throws Failure unless the status is OK.
inline void Check(const Status& status) {
  if (!status.ok()) throw Failure{status};
}

// Runs fn() and returns what it threw as a status.
template <typename Fn>
Status StatusOf(Fn fn) {
  try {
    fn();
    return Status();
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::bad_alloc&) {
    return errors::ResourceExhausted("there is no memory for a fused kernel");
  } catch (const std::exception& error) {
    return errors::Internal("a fused kernel failed: ", error.what());
  }
}

// An op whose Run may throw.
class Op : public OpKernel {
 public:
  using OpKernel::OpKernel;

  void Compute(OpKernelContext* context) final {
    const Traced traced(Traced::kOp, type_string());
    const Status status = StatusOf([&] { Run(context); });
    if (!status.ok()) context->SetStatus(status);
  }

 protected:
  virtual void Run(OpKernelContext* context) = 0;
};

// rows * columns * size bytes; throws if that is more than there can be.
inline size_t Bytes(int64_t rows, int64_t columns, size_t size) {
  size_t count, bytes;
  if (__builtin_mul_overflow(static_cast<size_t>(rows),
                             static_cast<size_t>(columns), &count) ||
      __builtin_mul_overflow(count, size, &bytes) ||
      bytes > static_cast<size_t>(std::numeric_limits<int64_t>::max()))
    throw std::bad_alloc();
  return bytes;
}

// ------------------------------------------------------ inputs and outputs ---

inline OpInputList Inputs(OpKernelContext* context, const char* name) {
  OpInputList list;
  Check(context->input_list(name, &list));
  return list;
}

// The numbers of a tensor or of each tensor of a list.
inline const float* Data(const Tensor& tensor) {
  return tensor.flat<float>().data();
}

inline std::vector<const float*> Data(const OpInputList& list) {
  std::vector<const float*> data;
  for (int i = 0; i < list.size(); ++i) data.push_back(Data(list[i]));
  return data;
}

// Makes the output `name` and returns where its numbers are.
inline float* Allocate(OpKernelContext* context, const char* name,
                       const TensorShape& shape) {
  Tensor* output = nullptr;
  Check(context->allocate_output(name, shape, &output));
  return output->flat<float>().data();
}

// Makes the outputs of the list `name` and returns where their numbers are.
inline std::vector<float*> Allocate(OpKernelContext* context, const char* name,
                                    const std::vector<TensorShape>& shapes) {
  OpOutputList outputs;
  Check(context->output_list(name, &outputs));
  std::vector<float*> data;
  for (int i = 0; i < outputs.size(); ++i) {
    Tensor* output = nullptr;
    Check(outputs.allocate(i, shapes[i], &output));
    data.push_back(output->flat<float>().data());
  }
  return data;
}

inline std::vector<TensorShape> Shapes(const OpInputList& list) {
  std::vector<TensorShape> shapes;
  for (int i = 0; i < list.size(); ++i) shapes.push_back(list[i].shape());
  return shapes;
}

// --------------------------------------------------------- parallel loops ---

inline tensorflow::thread::ThreadPool* Workers(OpKernelContext* context) {
  return context->device()->tensorflow_cpu_worker_threads()->workers;
}

inline int NumThreads(OpKernelContext* context) {
  return context->device()->tensorflow_cpu_worker_threads()->num_threads;
}

// The tasks of a loop, taken one by one by the threads that work on it.
class Loop {
 public:
  Loop(int64_t total, std::function<void(int64_t)> fn)
      : total_(total), fn_(std::move(fn)) {}

  // Works in a thread of the pool, for an op of this type.
  void Help(const std::string& type) {
    if (next_.load() >= total_) return;
    const Traced traced(Traced::kHelp, type);
    Work();
  }

  // Works until no task is left. What a task throws is kept for Wait, and the
  // tasks that have not begun by then are not run.
  void Work() {
    int64_t finished = 0;
    for (int64_t i; (i = next_++) < total_; ++finished) {
      if (failed_.load()) continue;
      try {
        fn_(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!failed_.exchange(true)) error_ = std::current_exception();
      }
    }
    if (!finished) return;
    std::lock_guard<std::mutex> lock(mutex_);
    done_ += finished;
    if (done_ == total_) all_done_.notify_all();
  }

  // Waits for all tasks and throws what one of them threw.
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [&] { return done_ == total_; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const int64_t total_;
  const std::function<void(int64_t)> fn_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable all_done_;
  int64_t done_ = 0;
  std::exception_ptr error_;
};

// Runs fn(0) to fn(total - 1) on the session's own threads and waits for them.
//
// The caller works too: where the pool is busy it does everything itself, and
// so never waits for a task that has not begun. What fn throws in any thread is
// thrown here.
inline void ParallelRun(OpKernelContext* context, int64_t total,
                        std::function<void(int64_t)> fn) {
  const int64_t threads = std::min<int64_t>(NumThreads(context), total);
  if (threads <= 1) {
    for (int64_t i = 0; i < total; ++i) fn(i);
    return;
  }
  auto loop = std::make_shared<Loop>(total, std::move(fn));
  const std::string& type = context->op_kernel().type_string();
  for (int64_t t = 1; t < threads; ++t)
    Workers(context)->Schedule([loop, type] { loop->Help(type); });
  loop->Work();
  const Traced traced(Traced::kWait, type);
  loop->Wait();
}

}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_COMMON_H_
