"""Which TensorFlow this is, and every call that differs between them.

Importing this module puts TensorFlow 2 into graph mode with the defaults that
the package is written for. experiment.py does, before any graph is built; who
builds graphs from other modules alone imports it first.
"""

import warnings

import tensorflow.compat.v1 as tf
from tensorflow.python.util import deprecation

# TensorFlow says at import and at every layer that tf.layers and tf.estimator
# are deprecated: some thirty lines that no user can act on. No public switch.
deprecation._PRINT_DEPRECATION_WARNINGS = False
# Estimator builds graphs.
tf.disable_v2_behavior()
# What TensorFlow 2 has by default, and what reads consistently from a parameter
# server on 1.15.
tf.enable_resource_variables()


def describe():
  """Returns the engine in words, e.g. 'stock TensorFlow 1.15.5'."""
  return 'stock TensorFlow %s' % tf.__version__


def intra_op_threads(fused):
  """The threads of one op where the user leaves the choice; 0 is TensorFlow's.

  Args:
    fused: bool, whether the kernels of native.py run.
  """
  # Eigen's products in 1.15 gain nothing from a second thread at these sizes,
  # while the ops beside them do: on two cores 1.3 times the steps.
  return 1 if not fused and tf.__version__.startswith('1.') else 0


def quiet():
  """Leaves of what TensorFlow logs the warnings and errors, once each."""
  tf.get_logger().handlers = []  # what remains goes to the root logger's
  warnings.filterwarnings('ignore', message=r'.*tf\.layers')
  tf.logging.set_verbosity(tf.logging.WARN)
