// What native.py calls to trace the threads that work for our ops.

#include "trace.h"

extern "C" void ple_trace_begin() { ple::Trace::Instance().Begin(); }

extern "C" int64_t ple_trace_end(ple::Span* spans, int64_t room) {
  return ple::Trace::Instance().End(spans, room);
}
