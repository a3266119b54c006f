"""What one graph is built for, in one value that is handed down whole."""

import collections

from ple_estimator.engine import forms


class Purpose(collections.namedtuple(
    'Purpose', 'training precision fused num_ps engine track_rows experts')):
  """What one graph is built for.

  `Model.model_fn` decides it once per graph. Embeddings, networks and towers
  get it as their last argument, so a network or embedding of your own reads
  here, for example, whether it is being trained.

  Attributes:
    training: bool, whether the graph trains; otherwise it evaluates or
      predicts.
    precision: precision.Precision of the matrix products; None only where the
      graph has none.
    fused: bool, whether to use the C++ kernels (engine/native.py). It is True
      only if they can be used, so no other code has to check that.
    num_ps: int, the number of parameter servers that hold the variables; 0 is
      none, as it always is outside of training.
    engine: forms.Engine of the run.
    track_rows: bool, whether training notes which rows of the embedding tables
      it updates (optimizers/touched_rows.py).
    experts: dict into which a network is to put the [batch, n] output of each
      of its experts, by its name; None where nobody wants them.
  """

  __slots__ = ()

  def __new__(cls, training=False, precision=None, fused=False, num_ps=0,
              engine=None, track_rows=False, experts=None):
    """Fills in the defaults; an engine of None has no form of DeepRec."""
    return super().__new__(cls, training, precision, fused, num_ps,
                           engine or forms.Engine('stock'), track_rows, experts)
