"""input_fns on real files."""

import gzip
import inspect
import os
import subprocess
import sys

import conftest
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator.data import feature_spec
from ple_estimator.data import inputs
from ple_estimator.data import packing
from ple_estimator.data import reader
from ple_estimator.data import reading
from ple_estimator.data import row_checks


@pytest.fixture
def spec():
  import gin
  config.load('gin/taobao.gin', roots=['FeatureSpec'])
  return gin.get_configurable('FeatureSpec')()


@pytest.fixture
def read(spec):
  """All columns that the model reads, with labels."""
  return reading.Reading(spec)


def batches(dataset):
  """All elements of a dataset, lists as dense arrays."""
  element = tf.data.make_one_shot_iterator(dataset).get_next()
  found = []
  with tf.Session() as sess:
    while True:
      try:
        found.append(sess.run(element))
      except tf.errors.OutOfRangeError:
        return found


def flat(batch):
  features, labels = batch
  out = dict(features, **labels)
  return {name: (value.indices.tolist(), value.values.tolist())
          if isinstance(value, tf.SparseTensorValue) else value.tolist()
          for name, value in out.items()}


def ids(batch):
  return batch[0]['user_id'].tolist()


@pytest.mark.parametrize('shuffle_rows', [0, 500])
def test_csv_and_parquet_give_the_same_batches(read, taobao, shuffle_rows):
  both = []
  for made in [
      inputs.CsvInput('taobao_train_data', taobao, 700, shuffle_rows, 2),
      inputs.ParquetInput('taobao_train_data.parquet', taobao, 700,
                          shuffle_rows, 2)]:
    made.check(read)
    assert made.count_rows(read) == 3000
    both.append([flat(b) for b in batches(made.dataset(read, seed=4))])
  assert len(both[0]) == 9 and len(both[0][-1]['price']) == 400
  assert both[0] == both[1]


@conftest.needs_kernels
def test_kernels_and_tensorflow_make_the_same_batches(spec, taobao):
  read = reading.Reading(
      spec, ('user_id', 'price'), packing.groups(spec.categories))
  made = inputs.ParquetInput('taobao_train_data.parquet', taobao, 700, 500)
  both = [[flat(b) for b in batches(made.dataset(
      read._replace(fused=fused), seed=4))] for fused in (False, True)]
  assert both[0] == both[1]
  assert sorted(both[1][0]) == [
      'buy', 'clk', 'dim_16_mean/index', 'dim_16_mean/rows',
      'dim_16_mean/splits', 'raw/price', 'raw/user_id']
  assert len(both[1][0]['dim_16_mean/splits']) == 17 * 700 + 1


def test_epochs_differ_in_order_but_not_in_rows(read, taobao):
  made = inputs.ParquetInput('taobao_train_data.parquet', taobao, 1000, 3000, 2)
  seen = [ids(b) for b in batches(made.dataset(read, seed=1))]
  first, second = sum(seen[:3], []), sum(seen[3:], [])
  assert sorted(first) == sorted(second) and first != second
  again = [ids(b) for b in batches(made.dataset(read, seed=1))]
  other = [ids(b) for b in batches(made.dataset(read, seed=2))]
  assert again == seen and other != seen


@pytest.mark.slow
@pytest.mark.parametrize('epoch, row', [(0, 0), (0, 700), (1, 0), (1, 1100)])
def test_a_continued_run_goes_on_with_the_next_row(read, taobao, epoch, row):
  made = inputs.ParquetInput('taobao_train_data.parquet', taobao, 100, 800, 2)
  whole = sum(map(ids, batches(made.dataset(read, seed=1))), [])
  part = made.part(made.paths(), epoch, seed=1)._replace(row=row)
  rest = sum(map(ids, batches(
      made.dataset(read, parts=lambda: [part]))), [])
  assert rest == whole[3000 * epoch + row:] and len(whole) == 6000


def test_several_files_and_the_remainder(read, taobao):
  made = inputs.ParquetInput(
      ['taobao_test_data.parquet', 'taobao_train_*.parquet'], taobao, 900,
      drop_remainder=True)
  seen = batches(made.dataset(read))
  assert [len(ids(b)) for b in seen] == [900] * 4
  assert made.count_rows(read) == 4000


@pytest.mark.slow
def test_shards_share_an_epoch(read, taobao):
  made = inputs.CsvInput('taobao_train_data', taobao, 64)
  parts = [sum(map(ids, batches(made.dataset(read, shard=(i, 3)))), [])
           for i in range(3)]
  whole = sum(map(ids, batches(made.dataset(read))), [])
  assert sorted(sum(parts, [])) == sorted(whole) and all(parts)


def test_processes_share_the_rows_of_one_compressed_file(
    read, taobao, tmp_path):
  with open(taobao + '/taobao_train_data', 'rb') as f:
    head = b''.join(f.readlines()[:100])
  (tmp_path / 'rows.gz').write_bytes(gzip.compress(head))
  made = inputs.CsvInput('rows.gz', str(tmp_path), 64)
  parts = [sum(map(ids, batches(made.dataset(read, shard=(i, 3)))), [])
           for i in range(3)]
  whole = sum(map(ids, batches(made.dataset(read))), [])
  assert parts == [whole[i::3] for i in range(3)] and len(whole) == 100


def test_prediction_needs_no_labels(spec, taobao, tmp_path):
  table = pa.parquet.read_table(taobao + '/taobao_test_data.parquet')
  path = str(tmp_path / 'x.parquet')
  pa.parquet.write_table(table.drop(['clk', 'buy', 'final_gender_code']), path)
  made = inputs.ParquetInput(path, batch_size=600)
  unlabelled = reading.Reading(spec, ('user_id',), with_labels=False)
  made.check(unlabelled)
  seen = batches(made.dataset(unlabelled))
  assert [len(b['price']) for b in seen] == [600, 400]
  assert seen[0]['raw/user_id'].tolist() == [
      u.encode() for u in table['user_id'].to_pylist()[:600]]
  with pytest.raises(errors.UserError, match="a column 'clk'"):
    made.check(reading.Reading(spec))
  with pytest.raises(errors.UserError, match="a column 'final_gender_code'"):
    made.check(unlabelled._replace(keep=('final_gender_code',)))


def test_lists_and_joined_text_give_the_same_batches(read, taobao, tmp_path):
  path = os.path.join(taobao, 'taobao_test_data.parquet')
  table = pa.parquet.read_table(path)
  for name in ('tag_category_list', 'tag_brand_list'):
    lists = [t.split('|') if t else None for t in table[name].to_pylist()]
    table = table.set_column(
        table.column_names.index(name), name,
        pa.array(lists, pa.list_(pa.string())))
  pa.parquet.write_table(table, str(tmp_path / 'x.parquet'))
  text, lists = [
      [flat(b) for b in batches(
          inputs.ParquetInput(p, batch_size=300).dataset(read))]
      for p in (path, str(tmp_path / 'x.parquet'))]
  assert len(text) == 4 and text == lists


def test_error_of_a_row_is_kept_in_words(read, taobao, tmp_path):
  rows = open(taobao + '/taobao_test_data').read().splitlines()
  rows[700] = rows[700][1:]
  path = tmp_path / 'x.csv'
  path.write_text('\n'.join(rows))
  made = inputs.CsvInput(str(path), batch_size=100)
  with pytest.raises(tf.errors.InvalidArgumentError):
    batches(made.dataset(read))
  assert str(made.error) == (
      "%s row 701 column 'clk' must be one of 0, 1, got ''." % path)
  path.write_text('\n'.join(rows[:700]))
  assert len(batches(made.dataset(read))) == 7
  assert made.error is None  # the one before is of another dataset
  path.write_text('\n'.join(rows))
  made = inputs.CsvInput(str(path), batch_size=100, on_bad_row='skip')
  assert sum(len(ids(b)) for b in batches(made.dataset(read))) == 999
  assert made.bad_rows.skipped == 1


@pytest.mark.parametrize('name, value, message', [
    ('batch_size', 0, 'batch_size must be an integer of at least 1, got 0'),
    ('shuffle_rows', -1, 'shuffle_rows must be an integer of at least 0'),
    ('epochs', 0, 'epochs must be an integer of at least 1, got 0'),
    ('batch_size', 51.2, 'batch_size must be an integer of at least 1'),
    ('on_bad_row', 'ignore', "on_bad_row must be 'error' or 'skip', got 'ign"),
])
@pytest.mark.parametrize('kind', [inputs.CsvInput, inputs.ParquetInput])
def test_refuses(kind, name, value, message):
  with pytest.raises(errors.UserError, match='%s.%s' % (
      kind.__name__, message)):
    kind('x', **{name: value})


@pytest.mark.parametrize('name, value', [
    ('delimiter', '::'), ('delimiter', '\xa7'), ('quote', ''), ('escape', ','),
    ('null_values', 'NULL'), ('header', 'False')])
def test_csv_refuses(name, value):
  with pytest.raises(errors.UserError, match='CsvInput.%s must ' % name):
    inputs.CsvInput('x', **{name: value})


@pytest.mark.parametrize('files, data_dir, binding', [
    ('http://b/x.csv', '.', 'files'), ('x.csv', 'abfs://b', 'data_dir')])
def test_urls_are_refused_in_one_line(files, data_dir, binding):
  with pytest.raises(errors.UserError, match='CsvInput.%s must be a path or a '
                     'URI that begins with s3://, gs' % binding) as raised:
    inputs.CsvInput(files, data_dir).paths()
  assert '\n' not in str(raised.value)


def test_a_dialect_reaches_the_rows(tmp_path):
  (tmp_path / 'x.csv').write_text('1|"a\n0|NULL\n1|b~|c\n\n')
  made = inputs.CsvInput('x.csv', str(tmp_path), delimiter='|', quote=None,
                         escape='~', null_values=('NULL',))
  read = reading.Reading(feature_spec.FeatureSpec([
      {'name': 'y', 'kind': 'label'},
      {'name': 'word', 'kind': 'hashed', 'num_buckets': 100}]))
  table, = made.tables(read)
  assert table.to_pydict() == {'y': [1, 0, 1], 'word': [b'"a', b'', b'b|c']}
  assert made.count_rows(read) == 3


def test_both_inputs_have_the_same_defaults():
  csv = inspect.signature(inputs.CsvInput.__init__).parameters
  parquet = inspect.signature(inputs.ParquetInput.__init__).parameters
  assert list(csv.values())[:len(parquet)] == list(parquet.values())


class Letters(reader.Reader):
  """A user's own format: lines of a word and a label without a delimiter."""

  def check(self):
    for path in self._paths:
      errors.check(' ' not in open(path).readline(), '%s has a space.', path)

  def count_rows(self):
    return sum(len(open(path).readlines()) for path in self._paths)

  def slices(self, at_least=1, most_rows=None):
    return [reader.Slice(path, 0, 0, None) for path in self._paths]

  def read(self, piece):
    lines = [line.strip() for line in open(piece.path)]
    yield row_checks.typed(
        pa.table({'y': [line[-1] for line in lines],
                  'word': [line[:-1] for line in lines]}), self._columns,
        self._bad_rows, piece.path, lambda index: index + 1)


class LetterInput(inputs.FileInput):
  """A user's own input."""

  suffix = '.letters'

  def reader(self, reading):
    return Letters(self.paths(), reading.columns(), self.bad_rows)


def test_an_input_of_an_own_format(tmp_path):
  (tmp_path / 'a.letters').write_text('one1\ntwo0\nthree!\n')
  (tmp_path / 'b.letters').write_text('four1\n')
  (tmp_path / 'c.other').write_text('no')
  read = reading.Reading(feature_spec.FeatureSpec([
      {'name': 'word', 'kind': 'hashed', 'num_buckets': 100},
      {'name': 'y', 'kind': 'label'}]), keep=('word',))
  made = LetterInput('.', str(tmp_path), batch_size=2, on_bad_row='skip')
  made.check(read)
  assert made.count_rows(read) == 4 and len(made.slices(read)) == 2
  seen = batches(made.dataset(read))
  assert [f['raw/word'].tolist() for f, _ in seen] == [
      [b'one', b'two'], [b'four']]
  assert [labels['y'].tolist() for _, labels in seen] == [[1, 0], [1]]
  made = LetterInput('nothing', str(tmp_path))
  with pytest.raises(errors.UserError, match='LetterInput.files must name'):
    made.check(read)


@pytest.mark.parametrize('header', [False, True])
def test_folders_name_a_column_of_csv_files(tmp_path, header):
  spec = feature_spec.FeatureSpec([
      {'name': 'y', 'kind': 'label'},
      {'name': 'day', 'kind': 'integer', 'num_buckets': 7},
      {'name': 'x', 'kind': 'number'}])
  read = reading.Reading(spec, keep=('day',))
  for day, rows in [('1', '1,2.5\n0,3.5\n'),
                    ('__HIVE_DEFAULT_PARTITION__', '1,4.5\n')]:
    (tmp_path / ('day=' + day)).mkdir()
    (tmp_path / ('day=' + day) / 'part-0').write_text(
        ('y,x\n' if header else '') + rows)
  made = inputs.CsvInput('.', str(tmp_path), 10, header=header)
  made.check(read)
  assert made.count_rows(read) == 3
  (features, labels), = batches(made.dataset(read))
  assert features['day'].tolist() == features['raw/day'].tolist() == [1, 1, -1]
  assert features['x'].tolist() == [2.5, 3.5, 4.5]
  assert labels['y'].tolist() == [1, 0, 1]
  (tmp_path / 'day=9').mkdir()
  (tmp_path / 'day=9' / 'part-0').write_text(
      ('y,x\n' if header else '') + '1,2.5\n0,3.5\n')
  with pytest.raises(errors.UserError, match="day=9/part-0 row 1 column 'day' "
                     "must be an integer in .0, 7., got '9'"):
    made.check(read)
  made = inputs.CsvInput('.', str(tmp_path), 10, header=header,
                         on_bad_row='skip')
  assert sum(t.num_rows for t in made.tables(read)) == 3
  assert made.bad_rows.skipped == 2


def test_a_column_of_the_file_counts_more_than_its_path(tmp_path):
  read = reading.Reading(feature_spec.FeatureSpec([
      {'name': 'y', 'kind': 'label'}, {'name': 'x', 'kind': 'number'}]))
  (tmp_path / 'x=7').mkdir()
  (tmp_path / 'x=7' / 'a.csv').write_text('y,"x"\n1,2.5\n')
  made = inputs.CsvInput('x=7/a.csv', str(tmp_path), header=True)
  made.check(read)
  assert [t['x'].to_pylist() for t in made.tables(read)] == [[2.5]]


@pytest.mark.skipif(not os.path.exists(conftest.REAL_ROWS),
                    reason='the real rows are not at hand')
def test_real_rows_are_read(read):
  made = inputs.CsvInput(conftest.REAL_ROWS, batch_size=4000)
  made.check(read)
  seen = batches(made.dataset(read))
  assert [len(ids(b)) for b in seen] == [4000, 4000, 2000]
  assert sum(b[1]['clk'].sum() for b in seen) == 533
  assert sum(b[1]['buy'].sum() for b in seen) == 4


PEAK = '''
import sys
import conftest
from ple_estimator import config
from ple_estimator.data import inputs
from ple_estimator.data import reading
import gin
config.load('gin/taobao.gin', roots=['FeatureSpec'])
made = inputs.%s(sys.argv[1], shuffle_rows=20000)
rows = sum(t.num_rows for t in made.tables(
    reading.Reading(gin.get_configurable('FeatureSpec')())))
print(rows, conftest.peak_mb())
'''


@pytest.mark.slow
@pytest.mark.parametrize('kind, suffix', [('ParquetInput', '.parquet'),
                                          ('CsvInput', '')])
def test_memory_does_not_grow_with_the_file(many_rows, kind, suffix):
  peaks = []
  for copies in (50, 250):
    out = subprocess.check_output(
        [sys.executable, '-c', PEAK % kind, many_rows(copies) + suffix],
        cwd=conftest.ROOT,
        env=dict(os.environ, PYTHONPATH=os.path.join(conftest.ROOT, 'tests')))
    read, peak = map(int, out.split())
    assert read == 3000 * copies
    peaks.append(peak)
  print('%s: peak RSS in MB at 150,000 and 750,000 rows: %s' % (kind, peaks))
  assert peaks[1] < 1.15 * peaks[0]


@pytest.mark.parametrize('text, wanted', [
    ('1,7,a\n0,8,b\n', ['7', '8']), ('7,a\n8,b\n', ['7', '8'])])
def test_a_file_to_predict_may_leave_out_the_labels(tmp_path, text, wanted):
  spec = feature_spec.FeatureSpec([
      {'name': 'clk', 'kind': 'label', 'values': (0, 1)},
      {'name': 'user', 'kind': 'hashed', 'num_buckets': 9},
      {'name': 'word', 'kind': 'hashed', 'num_buckets': 9}])
  (tmp_path / 'x.csv').write_text(text)
  source = inputs.CsvInput('x.csv', str(tmp_path))
  read = reading.Reading(spec, keep=('user',), with_labels=False)
  source.check(read)
  tables = list(source.tables(read))
  assert [x.decode() for t in tables
          for x in t['user'].to_pylist()] == wanted
  if len(text) < 12:  # what is trained needs them
    with pytest.raises(errors.UserError, match='must have 3 columns, got 2'):
      source.check(reading.Reading(spec))
