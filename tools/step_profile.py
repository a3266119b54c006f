"""Where the time of a training step goes: busy and idle time of its threads.

TensorFlow's RunMetadata says when each op ran; the ops of this package say when
threads worked for them and when their caller waited (native.trace). Both are
spans of one thread. What TensorFlow's own ops do in other threads than the
caller's is not seen, nor is the input. RunMetadata does not say in which thread
an op ran: an op is put into the thread that was the last to have ended another
one and is free.
"""

import collections

# Ops that wait for something and let their thread go on with other ops.
_WAITING = ('IteratorGetNext', 'OptionalGetValue', 'PartitionedCall',
            'StatefulPartitionedCall', 'If', 'StatelessIf', 'While',
            'StatelessWhile', '_Send', '_Recv', '_HostSend', '_HostRecv')
_INPUT = 'IteratorGetNext'
_CLOSE = 20e-6  # gaps that are closer to each other, in seconds, are one


class Span(collections.namedtuple('Span', 'thread begin end op calls cpu')):
  """Time in which a thread ran without a pause.

  Attributes:
    thread: int or str, different for different threads.
    begin: float, seconds since the begin of the step.
    end: float, likewise.
    op: str, the type of the op that it ran.
    calls: int, 1 in the first span of a call, else 0.
    cpu: float, the processor time, seconds; None if it is not known.
  """

  @property
  def seconds(self):
    """How long it is."""
    return self.end - self.begin


Gap = collections.namedtuple('Gap', 'begin end idle before during after')
Gap.__doc__ = """Time in which fewer threads ran than there are processors.

  Attributes:
    begin: float, seconds since the begin of the step.
    end: float, likewise.
    idle: float, the processor seconds that were not used.
    before: str, the op that ended last before it, '' if there is none.
    during: str, the op that ran most in it, '' if none did.
    after: str, the op that began first after it, '' if there is none.
  """


# ------------------------------------------------------------ spans of a step


def spans_of(metadata, traced, origin):
  """Returns the Spans of a step and how long it waited for its input.

  Args:
    metadata: tf.RunMetadata of a session call with FULL_TRACE.
    traced: numpy array, what native.trace yields for the same call.
    origin: int, the begin of the step in nanoseconds since 1970.

  Returns:
    (spans, seconds): a list of Span, those of a thread do not overlap; float.
  """
  spans = _of_kernels(traced, origin)
  ours = {str(one['type'], 'ascii') for one in traced}
  nodes = [node for device in metadata.step_stats.dev_stats
           if '/host:' not in device.device  # the same once more
           for node in device.node_stats]
  waited = 0
  threads = _Threads(spans, {
      int(one['thread']) for one in traced if one['kind'] == 0})
  for begin, end, op in sorted(_times(node, origin) for node in nodes):
    if op == _INPUT:
      waited += end - begin
    elif op not in ours and op not in _WAITING:
      threads.add(begin, end, op)
  return sorted(threads.spans, key=lambda span: span.begin), waited


def moved(traced):
  """The bytes that our ops moved, as kernels/trace.h counts them.

  Args:
    traced: numpy array, what native.trace yields.

  Returns:
    collections.Counter of op, without the ops of which none are counted.
  """
  total = collections.Counter()
  for one in traced:
    if one['bytes']:
      total[str(one['type'], 'ascii')] += int(one['bytes'])
  return total


def _times(node, origin):
  """(begin, end, type) of an op of RunMetadata."""
  begin = (node.all_start_nanos - origin) / 1e9
  label = node.timeline_label.partition(' = ')[2] or node.timeline_label
  return begin, begin + node.all_end_rel_nanos / 1e9, label.partition('(')[0]


def _of_kernels(traced, origin):
  """The Spans of our own ops, which are cut where they wait."""
  spans = []
  for one in traced:
    if one['kind'] == 2:
      continue
    waits = [w for w in traced
             if w['kind'] == 2 and w['thread'] == one['thread'] and
             one['begin'] <= w['begin'] and w['end'] <= one['end']]
    waits.sort(key=lambda w: w['begin'])
    begins = [one['begin']] + [w['end'] for w in waits]
    ends = [w['begin'] for w in waits] + [one['end']]
    total = float(sum(end - begin for begin, end in zip(begins, ends))) or 1.0
    cpu = float(one['cpu'] - sum(w['cpu'] for w in waits)) / 1e9
    for begin, end in zip(begins, ends):
      spans.append(Span(
          int(one['thread']), (begin - origin) / 1e9, (end - origin) / 1e9,
          str(one['type'], 'ascii'),
          int(one['kind'] == 0 and begin == one['begin']),
          cpu * float(end - begin) / total))
  return spans


class _Threads:
  """Finds threads for ops of which only the time is known."""

  def __init__(self, spans, callers):
    """Begins with the spans whose thread is known.

    Args:
      spans: list of Span.
      callers: set of the threads that run whole ops, not parts of others.
    """
    self.spans = list(spans)
    self._of = {thread: [s for s in spans if s.thread == thread]
                for thread in callers}

  def add(self, begin, end, op):
    """Adds an op; they come in the order of their begin."""
    best, ended = None, -2
    for thread, spans in self._of.items():
      last = max([s.end for s in spans if s.begin <= begin] or [-1])
      if (last <= begin and last > ended and
          all(s.begin >= end for s in spans if s.begin > begin)):
        best, ended = thread, last
    if best is None:
      best = 'other %d' % len(self._of)
      self._of[best] = []
    span = Span(best, begin, end, op, 1, None)
    self._of[best].append(span)
    self.spans.append(span)


# ------------------------------------------------------------------- a profile


class Profile:
  """Busy and idle time of the threads of one step.

  Attributes:
    wall: float, the seconds of the step.
    processors: int, how many threads can run at once.
    busy: OrderedDict of thread to the seconds in which it ran.
    ops: list of (op, seconds of all threads, processor seconds or None,
      calls), the costliest first; the sum of the seconds is that of `busy`.
    gaps: list of Gap, the largest first.
    running: list of seconds; running[n] is the time in which n threads ran.
  """

  def __init__(self, spans, wall, processors):
    """Computes all of that.

    Args:
      spans: list of Span; those of a thread must not overlap.
      wall: float, the seconds of the step, which begins at 0.
      processors: int, how many threads can run at once.
    """
    self.wall, self.processors = wall, processors
    spans = [
        span._replace(begin=max(0, span.begin), end=min(wall, span.end))
        for span in spans if span.begin < wall and span.end > 0]
    self.busy = collections.OrderedDict()
    for span in spans:
      self.busy[span.thread] = self.busy.get(span.thread, 0) + span.seconds
    self.ops = _by_op(spans)
    segments = _segments(spans, wall)
    self.running = [0] * (1 + max([len(s.running) for s in segments] or [0]))
    for segment in segments:
      self.running[len(segment.running)] += segment.end - segment.begin
    self.gaps = sorted(self._gaps(segments, spans), key=lambda gap: -gap.idle)

  @property
  def idle(self):
    """The processor seconds that were not used."""
    return sum((self.processors - n) * seconds
               for n, seconds in enumerate(self.running)
               if n < self.processors)

  def _gaps(self, segments, spans):
    found = []
    for segment in segments:
      if len(segment.running) >= self.processors:
        continue
      if found and segment.begin - found[-1][-1].end < _CLOSE:
        found[-1].append(segment)
      else:
        found.append([segment])
    for parts in found:
      begin, end = parts[0].begin, parts[-1].end
      during = collections.Counter()
      for part in parts:
        for op in part.running:
          during[op] += part.end - part.begin
      before = [(s.end, s.op) for s in spans if s.end <= begin]
      after = [(s.begin, s.op) for s in spans if s.begin >= end]
      yield Gap(
          begin, end, sum(
              (self.processors - len(part.running)) * (part.end - part.begin)
              for part in parts),
          max(before)[1] if before else '',
          during.most_common(1)[0][0] if during else '',
          min(after)[1] if after else '')


_Segment = collections.namedtuple('_Segment', 'begin end running')


def _segments(spans, wall):
  """Cuts a step where a span begins or ends.

  Returns:
    list of _Segment, `running` a tuple with the op of each running thread.
  """
  edges = sorted([(s.begin, 1, i) for i, s in enumerate(spans)] +
                 [(s.end, 0, i) for i, s in enumerate(spans)])
  found, running, last = [], {}, 0
  for at, starts, i in edges + [(wall, 0, None)]:
    if at > last:
      found.append(_Segment(last, at, tuple(running.values())))
      last = at
    if starts:
      running[i] = spans[i].op
    else:
      running.pop(i, None)
  return found


def _by_op(spans):
  """See Profile.ops."""
  seconds, cpu, calls = (collections.Counter() for _ in range(3))
  for span in spans:
    seconds[span.op] += span.seconds
    calls[span.op] += span.calls
    if span.cpu is not None:
      cpu[span.op] += span.cpu
  return [(op, total, cpu.get(op), calls[op])
          for op, total in seconds.most_common()]


# --------------------------------------------------------------- what is shown


def report(profile, moved_bytes=None, ops=15, gaps=10):
  """Yields the lines of a profile, tables in Markdown.

  Args:
    profile: Profile.
    moved_bytes: dict of op to bytes, as `moved` gives; None is of none.
    ops: int, how many types of op have a line of their own.
    gaps: int, how many gaps have one.
  """
  moved_bytes = moved_bytes or {}
  wall, idle = profile.wall, profile.idle
  yield 'Processors not used: %.2f core-ms of %.2f, %.1f %%.' % (
      1e3 * idle, 1e3 * wall * profile.processors,
      100 * idle / (wall * profile.processors))
  yield ''
  yield '| Thread | busy ms | idle ms | busy |'
  yield '|---|---|---|---|'
  for number, (_, busy) in enumerate(sorted(
      profile.busy.items(), key=lambda item: -item[1])):
    yield '| %d | %.2f | %.2f | %.0f %% |' % (
        number + 1, 1e3 * busy, 1e3 * (wall - busy), 100 * busy / wall)
  yield ''
  yield '| Idle core-ms | from ms | to ms | after | while there runs | before |'
  yield '|---|---|---|---|---|---|'
  for gap in profile.gaps[:gaps]:
    yield '| %.2f | %.2f | %.2f | %s | %s | %s |' % (
        1e3 * gap.idle, 1e3 * gap.begin, 1e3 * gap.end, gap.before or '-',
        gap.during or '-', gap.after or '-')
  yield ''
  yield '| Op | core-ms | CPU ms | MB moved | calls |'
  yield '|---|---|---|---|---|'
  for op, seconds, cpu, calls in profile.ops[:ops]:
    yield '| %s | %.2f | %s | %s | %d |' % (
        op, 1e3 * seconds, '-' if cpu is None else '%.2f' % (1e3 * cpu),
        '%.1f' % (moved_bytes[op] / 1e6) if op in moved_bytes else '-', calls)
  rest = profile.ops[ops:]
  if rest:
    yield '| %d others | %.2f | - | - | %d |' % (
        len(rest), 1e3 * sum(row[1] for row in rest),
        sum(row[3] for row in rest))


def timeline(spans):
  """Returns Spans as a dict for chrome://tracing."""
  threads = sorted({span.thread for span in spans}, key=str)
  return {'traceEvents': [
      {'name': span.op, 'ph': 'X', 'pid': 0, 'tid': threads.index(span.thread),
       'ts': 1e6 * span.begin, 'dur': 1e6 * span.seconds,
       'args': {'op': span.op}} for span in spans]}
