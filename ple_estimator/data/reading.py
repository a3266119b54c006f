"""Reading: what is read from the files, and in which form."""

import collections


class Reading(collections.namedtuple(
    'Reading', 'spec keep groups fused with_labels rules')):
  """What an input reads and hands to the model.

  Attributes:
    spec: feature_spec.FeatureSpec, the columns of the files.
    keep: tuple of str, names of columns that come along unchanged besides
      those that the model reads.
    groups: sequence of packing.Group, whose packed ids take the place of the
      features of their columns.
    fused: bool, whether the C++ kernels of native.py make the ids of groups,
      several times faster than TensorFlow's ops and with the same result. The
      kernels must be available.
    with_labels: bool, whether labels and weights are read too.
    rules: tuple of sampling.Rule, which rows are left out; empty reads all.
  """

  __slots__ = ()

  def __new__(cls, spec, keep=(), groups=(), fused=False, with_labels=True,
              rules=()):
    return super().__new__(cls, spec, keep, groups, fused, with_labels, rules)

  def columns(self):
    """Returns the list of column_kinds.Column to read, in the file's order."""
    return self.spec.read(self.with_labels, self.keep)
