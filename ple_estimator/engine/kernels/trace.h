// When the threads work for our ops and how many bytes they move, for
// tools/benchmark.py --profile.
//
// TensorFlow notes when an op runs in the thread that calls it. It does not see
// the other threads that a parallel loop takes, nor that the caller waits for
// them. Unless a trace is on, all that is done here is to look at one flag.
//
// Bytes are counted by the loops and products themselves, from the sizes that
// they are called with: each array that one reads counts once, and each that it
// writes once, as if caches kept nothing from one pass to the next. What a loop
// reads again while it is in the L1 cache does not count, nor do vectors with
// one element per column.

#ifndef PLE_ESTIMATOR_KERNELS_TRACE_H_
#define PLE_ESTIMATOR_KERNELS_TRACE_H_

#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tensorflow/core/platform/env.h"

namespace ple {

// What one thread did without interruption. native.py reads it as it is.
struct Span {
  int64_t begin, end;     // nanoseconds since 1970, as in RunMetadata
  int64_t cpu;            // processor time of the thread, in nanoseconds
  int64_t bytes;          // that its loops and products read and write
  int32_t thread, kind;   // number of the thread, as in RunMetadata
  char type[48];          // of the op
};

// The spans of a trace.
class Trace {
 public:
  static Trace& Instance() {
    static Trace* trace = new Trace;
    return *trace;
  }

  bool on() const { return on_.load(std::memory_order_relaxed); }

  void Begin() {
    std::lock_guard<std::mutex> lock(mutex_);
    spans_.clear();
    on_.store(true);
  }

  void Add(const Span& span) {
    std::lock_guard<std::mutex> lock(mutex_);
    spans_.push_back(span);
  }

  // Whether a span may begin; it is then waited for until Close.
  bool Open() {
    if (!on()) return false;
    open_.fetch_add(1);
    if (on_.load()) return true;
    Close();
    return false;
  }

  void Close() { open_.fetch_sub(1); }

  // Ends the trace, copies as many spans as there is room for, and returns how
  // many there are. A thread that has done its last task for an op may still
  // have to end its span.
  int64_t End(Span* to, int64_t room) {
    on_.store(false);
    while (open_.load() > 0) std::this_thread::yield();
    std::lock_guard<std::mutex> lock(mutex_);
    const int64_t count = spans_.size();
    std::copy_n(spans_.data(), std::min(room, count), to);
    return count;
  }

 private:
  std::atomic<bool> on_{false};
  std::atomic<int> open_{0};  // spans
  std::mutex mutex_;
  std::vector<Span> spans_;
};

// Adds the time from its construction to its destruction to the trace, if one
// is on.
class Traced {
 public:
  enum Kind { kOp, kHelp, kWait };

  Traced(Kind kind, const std::string& type) : on_(Trace::Instance().Open()) {
    if (!on_) return;
    span_ = Span();
    span_.kind = kind;
    std::copy_n(type.data(), std::min(type.size(), sizeof(span_.type)),
                span_.type);
    span_.thread = tensorflow::Env::Default()->GetCurrentThreadId();
    around_ = Current();
    Current() = &span_;
    span_.begin = Now(CLOCK_REALTIME);
    span_.cpu = Now(CLOCK_THREAD_CPUTIME_ID);
  }
  ~Traced() {
    if (!on_) return;
    span_.cpu = Now(CLOCK_THREAD_CPUTIME_ID) - span_.cpu;
    span_.end = Now(CLOCK_REALTIME);
    Current() = around_;
    Trace::Instance().Add(span_);
    Trace::Instance().Close();
  }
  Traced(const Traced&) = delete;
  Traced& operator=(const Traced&) = delete;

  // The span that this thread is in, null outside of a trace.
  static Span*& Current() {
    static thread_local Span* span = nullptr;
    return span;
  }

 private:
  static int64_t Now(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
  }

  const bool on_;
  Span span_;
  Span* around_ = nullptr;
};

// Counts the bytes that a pass over memory reads and writes.
inline void Moved(int64_t bytes) {
  if (Span* span = Traced::Current()) span->bytes += bytes;
}

}  // namespace ple

#endif  // PLE_ESTIMATOR_KERNELS_TRACE_H_
