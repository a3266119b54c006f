"""The columns of gin/taobao.gin with small embedding tables.

Their 710,310 rows make every start, checkpoint and end of a run a matter of
seconds.
"""

import os

import conftest
import gin

_MOST_BUCKETS = 500


def bindings():
  """Returns lines of gin, which replace the columns of FeatureSpec."""
  gin.clear_config()
  gin.parse_config_file(os.path.join(conftest.ROOT, 'gin', 'taobao.gin'))
  columns = gin.query_parameter('FeatureSpec.columns')
  gin.clear_config()
  return ['FeatureSpec.columns = %r' % [
      dict(column, num_buckets=min(column['num_buckets'], _MOST_BUCKETS))
      if 'num_buckets' in column else column for column in columns]]
