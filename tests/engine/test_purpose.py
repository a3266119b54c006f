"""What a graph is built for where only a part of it is said."""

import pytest

from ple_estimator.engine import forms
from ple_estimator.engine import purpose


def test_says_only_what_is_not_the_default():
  made = purpose.Purpose(training=True)
  assert made._replace(engine=None) == (
      True, None, False, 0, None, False, None)
  # On DeepRec too: a form is used only if the engine of a run is handed down.
  assert not any(made.engine.has(form) for form in forms.FORMS)
  assert made.engine._name == 'stock'


def test_cannot_be_changed_on_the_way_down():
  with pytest.raises(AttributeError):
    purpose.Purpose().fused = True
  with pytest.raises(AttributeError):
    purpose.Purpose().fusde = True
