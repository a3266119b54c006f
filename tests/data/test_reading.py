"""What is read: the columns that follow from it."""

import reader_cases

from ple_estimator.data import reading


def test_all_that_the_model_reads_by_default():
  read = reading.Reading(reader_cases.SPEC)
  assert read == (reader_cases.SPEC, (), (), False, True, ())
  assert [c.name for c in read.columns()] == ['y', 'id', 'word']


def test_prediction_reads_no_labels_but_those_that_are_kept():
  read = reading.Reading(reader_cases.SPEC, with_labels=False)
  assert [c.name for c in read.columns()] == ['id', 'word']
  assert [c.name for c in read._replace(keep=('y',)).columns()] == [
      'y', 'id', 'word']
