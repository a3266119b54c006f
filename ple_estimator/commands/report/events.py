"""Scalars of TensorBoard's event files, read without TensorFlow.

A file is a TFRecord: 8 bytes of length, 4 of checksum, an Event, 4 of checksum.
A record that is cut off, as in a run that goes on, ends the file.
"""

import collections
import glob
import os
import struct

from google.protobuf import message
from tensorboard.compat.proto import event_pb2

_HEAD = 12  # bytes

Point = collections.namedtuple('Point', 'step value time')
Point.__doc__ = """One value of a scalar.

Attributes:
  step: int, the global step.
  value: float.
  time: float, seconds since 1970.
"""


def read(folder):
  """The scalars of all event files of a folder, not of folders in it.

  Args:
    folder: str.

  Returns:
    dict of tag to list of Point, by step. Of two values of one step, as a run
    that was started again writes, the later one counts.
  """
  found = collections.defaultdict(dict)
  for path in sorted(glob.glob(os.path.join(
      glob.escape(folder), '*tfevents*'))):
    for event in _events(path):
      for value in event.summary.value:
        number = _number(value)
        if number is not None:
          found[value.tag][event.step] = Point(
              event.step, number, event.wall_time)
  return {tag: [points[step] for step in sorted(points)]
          for tag, points in found.items()}


def _events(path):
  with open(path, 'rb') as f:
    while True:
      head = f.read(_HEAD)
      if len(head) < _HEAD:
        return
      length, = struct.unpack('<Q', head[:8])
      data = f.read(length + 4)
      if len(data) < length + 4:
        return
      try:
        event = event_pb2.Event.FromString(data[:length])
      except message.DecodeError:
        return  # of a damaged file: where the next record is, is not known
      yield event


def _number(value):
  """The number of a scalar in either of TensorBoard's forms, or None."""
  if value.WhichOneof('value') == 'simple_value':
    return float(value.simple_value)
  if (value.WhichOneof('value') == 'tensor' and
      value.metadata.plugin_data.plugin_name == 'scalars'):
    tensor = value.tensor
    numbers = list(tensor.float_val) + list(tensor.double_val)
    if numbers:
      return float(numbers[0])
    if len(tensor.tensor_content) == 4:
      return struct.unpack('<f', tensor.tensor_content)[0]
  return None
