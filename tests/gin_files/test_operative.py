"""The operative config of a run is read back."""

import pytest

from ple_estimator import errors
from ple_estimator.gin_files import operative

TEXT = '''
# Macros:
RATE = 0.002
AGAIN = %RATE
NETWORK = @PLE()
LEFT_OUT = None

Experiment.max_steps = 100
Experiment.model_dir = '/a'
Experiment.predictions_path = 'p.csv'
Experiment.hooks = ()
Experiment.model = @Model()
Model.clip_norm = None
Model.network = %NETWORK
Model.micro_batches = %LEFT_OUT
Model.op_fusion = True
FeatureSpec.columns = [{'name': 'a', 'kind': 'label'},
                       {'name': 'b', 'kind': 'number'}]
PLE.expert_units = (256, 128)
ctr/Task.loss = 'binary'
lazy_adam.learning_rate = %AGAIN
'''


def test_flat_bindings_fit_into_a_table(tmp_path):
  path = tmp_path / 'operative_config-0.gin'
  path.write_text(TEXT)
  text, values = operative.read(str(path))
  assert text == TEXT and values['Experiment.model_dir'] == '/a'
  found = operative.flat(values)
  assert found == {
      'Experiment.max_steps': 100, 'Model.network': '@PLE()',
      'Model.op_fusion': True, 'PLE.expert_units': '(256, 128)',
      'ctr/Task.loss': 'binary', 'lazy_adam.learning_rate': 0.002}
  assert found['Model.op_fusion'] is True


def test_macros_in_a_circle_are_left_out(tmp_path):
  path = tmp_path / 'a.gin'
  path.write_text('A = %B\nB = %A\nPLE.l2 = %A\nPLE.num_levels = 2\n')
  assert operative.flat(operative.read(str(path))[1])['PLE.num_levels'] == 2


def test_the_newest_file_counts_by_its_number(tmp_path):
  assert operative.newest(str(tmp_path)) is None
  assert operative.newest(str(tmp_path / 'nope')) is None
  for name in ('operative_config-9.gin', 'operative_config-10.gin',
               'operative_config-x.gin', 'my_operative_config-11.gin'):
    (tmp_path / name).write_text('')
  assert operative.newest(str(tmp_path)) == str(
      tmp_path / 'operative_config-10.gin')


def test_what_is_no_gin_is_refused(tmp_path):
  path = tmp_path / 'operative_config-0.gin'
  path.write_text('PLE. = = 1')
  with pytest.raises(errors.UserError, match='operative_config-0.gin line 1'):
    operative.read(str(path))
