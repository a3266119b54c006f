"""DeepRec's own optimizers, in place of this package's update rules.

engine/forms.py says when they are used and what then differs.
"""

import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.embeddings import deeprec
from ple_estimator.embeddings import keyed_table
from ple_estimator.engine import forms
from ple_estimator.optimizers import update_rules

# The form of DeepRec for each of our update rules, all of them with a method
# deeprec_arguments. A subclass has a rule of its own and is not listed.
_FORM_OF = {
    update_rules.AdamAsync: 'adam_async',
    update_rules.AdagradDecay: 'adagrad_decay',
    update_rules.AdamW: 'adamw',
}
# Rules that are used only with DeepRec's embedding variables: DeepRec has
# extended these classes of tf.train, by name, to update them.
_EXTENDED = {
    update_rules.LazyAdam: 'AdamOptimizer',
    update_rules.Adagrad: 'AdagradOptimizer',
}


def choose(optimizer, engine):
  """Decides between an optimizer and the one that DeepRec has for it.

  Args:
    optimizer: tf.train.Optimizer, from Model.optimizer.
    engine: forms.Engine of the run.

  Returns:
    tf.train.Optimizer: DeepRec's if the engine uses it, otherwise `optimizer`.

  Raises:
    UserError: if the graph has embedding variables of DeepRec that the
      optimizer cannot update, or if the engine must use DeepRec's optimizer
      and this TensorFlow lacks it.
  """
  # The slots of keyed tables must come from initializers, which DeepRec's
  # optimizers do not promise.
  chosen = None if keyed_table.of_graph() else _of_deeprec(optimizer, engine)
  errors.check(
      not deeprec.variables() or
      chosen is not None and type(optimizer) is not update_rules.AdamW,
      'Model.optimizer must be @lazy_adam, @adam_async, @adagrad or '
      "@adagrad_decay for DeepRec's EmbeddingVariable, got %s. Or leave "
      "'embedding_variable' out of Engine.forms.", type(optimizer).__name__)
  return optimizer if chosen is None else chosen


def _of_deeprec(optimizer, engine):
  """Returns the optimizer of DeepRec that stands for ours, or None."""
  rule = type(optimizer)
  if rule in _EXTENDED:
    make = getattr(tf.train, _EXTENDED[rule]) if deeprec.variables() else None
  elif rule in _FORM_OF and optimizer.deeprec_arguments():
    form = _FORM_OF[rule]
    make = forms.function(form) if engine.uses(
        form, 'Model.optimizer = @' + form) else None
  else:
    make = None
  return make and make(**optimizer.deeprec_arguments())
