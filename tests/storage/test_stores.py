"""Files of a real S3 server are found and read as those of a disk are."""

import bz2
import gzip
import os
import shutil
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import reader_cases

from ple_estimator import errors
from ple_estimator.data import csv_lines
from ple_estimator.data import feature_spec
from ple_estimator.data import input_files
from ple_estimator.data import inputs
from ple_estimator.data import parquet_files
from ple_estimator.data import reading
from ple_estimator.storage import remote
from ple_estimator.storage import streams
from ple_estimator.training import input_plan

SPEC = reader_cases.SPEC
TEXT = '\n'.join(reader_cases.lines(5000)) + '\n'
COMPRESS = {'': bytes, '.gz': gzip.compress, '.bz2': bz2.compress,
            '.zst': lambda data: pa.compress(data, 'zstd', asbytes=True)}


def tree(folder, *names):
  """Makes files of one byte, and of none where the name ends in '!'."""
  for name in names:
    path = folder / name.rstrip('!')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('' if name.endswith('!') else 'x')


@pytest.fixture(scope='module')
def twins(object_server, tmp_path_factory):
  """A local folder and the URI of one with the same files."""
  folder = tmp_path_factory.mktemp('tree')
  tree(folder, 'dt=1/part-0.csv', 'dt=1/_SUCCESS!', 'dt=2/h=7/b.csv',
       'dt=2/h=7/a.csv', 'dt=2/.b.crc', '_temporary/x.csv', 'old/c.csv',
       'dt=3/part-0.csv!', 'old/.hidden/d.csv', 'hive/000000_0', 'hive/n.txt',
       'top.csv', 'e f%3A/g.csv', 'run[1]/a.csv')
  return str(folder), object_server.put_folder('trees/here', folder)


@pytest.mark.parametrize('entries', [
    '.', 'dt=*', 'dt=?', '**', '**/*.csv', 'dt=2/**/a.*', 'dt=2/**',
    '[d]t=2/h=7/*', 'old', 'old/', './old/../dt=1', '*.csv', '*/*.csv',
    '_temporary/*', ['dt=2', '.'], 'hive', 'e f%3A/g.csv',
    'dt=2/h=7', 'run[[]1]/*', 'run[1]', 'top.csv'])
def test_the_same_files_are_found(store, twins, caplog, entries):
  found, said = [], []
  for folder in twins:
    caplog.clear()
    input_files._said.clear()
    found.append([os.path.relpath(path, folder) for path in input_files.find(
        folder, entries, '.csv', 'In.files')])
    said.append([line.replace(folder + '/./', folder + '/').replace(
        folder + '/.,', folder + ',').replace(folder, 'FOLDER')
                 for line in caplog.messages])
  assert found[0] and found[0] == found[1]
  assert said[0] == said[1]


@pytest.mark.parametrize('folder, entry, where', [
    ('s3://trees', 'nope.csv', 's3://trees/nope.csv'),
    ('s3://trees/here', 'n*/*.csv', 's3://trees/here/n*/*.csv'),
    ('s3://no-bucket', 'x.csv', 's3://no-bucket/x.csv'),
    ('.', 's3://no-bucket/**', 's3://no-bucket/**'),
    ('s3://trees/here', 'dt=3/part-0.csv', None)])
def test_what_is_missing_is_named(store, twins, folder, entry, where):
  with pytest.raises(errors.UserError) as raised:
    inputs.CsvInput(entry, folder).paths()
  assert str(raised.value) == (
      'CsvInput.files must name existing files, got %r: nothing at %s.' % (
          entry, where) if where else 's3://trees/here/dt=3/part-0.csv is '
      'empty.')


@pytest.mark.parametrize('form', ['?endpoint_override=%s&scheme=http',
                                  '?endpoint_override=http%%3A%%2F%%2F%s'])
def test_an_endpoint_may_stand_in_the_uri(store, monkeypatch, form):
  store.put('rows/end/x=1/a.csv.gz', gzip.compress(TEXT.encode()))
  monkeypatch.delenv('AWS_ENDPOINT_URL')
  query = form % store.address
  path, = input_files.find('s3://rows/end' + query, '**/*.csv*', '', 'In.files')
  assert path == 's3://rows/end/x=1/a.csv.gz' + query
  assert input_files.partitions(path) == {'x': '1'}
  assert reader_cases.ids(reader_cases.of_csv(path)[0]) == list(range(5000))


def test_any_bytes_of_a_file_are_read(store, monkeypatch):
  monkeypatch.setattr(streams, '_FIRST_BYTES', 100)
  monkeypatch.setattr(streams, '_PART_BYTES', 700)
  rng = np.random.RandomState(3)
  data = rng.bytes(5000)
  uri = store.put('rows/bytes', data)
  for _ in range(10):
    begin, end = sorted(rng.randint(0, 5001, 2))
    with streams.Stream(uri, begin, end) as stream:
      assert stream.read(150) == data[begin:end][:150]
      at = rng.randint(begin, end + 1)
      stream.seek(at)
      assert b''.join(iter(lambda s=stream: s.read(999), b'')) == data[at:end]


@pytest.mark.parametrize('suffix', list(COMPRESS))
def test_csv_is_read_as_from_a_disk(store, tmp_path, suffix, monkeypatch):
  monkeypatch.setattr(csv_lines, '_BLOCK_BYTES', 9000)
  data = COMPRESS[suffix](('\ufeff' + TEXT.replace('\n', '\r\n')).encode())
  (tmp_path / ('x.csv' + suffix)).write_bytes(data)
  both = []
  for path in (str(tmp_path / ('x.csv' + suffix)),
               store.put('rows/csv/x.csv' + suffix, data)):
    reader, bad = reader_cases.of_csv(path)
    reader.check()
    slices = reader.slices(at_least=7)
    both.append((
        [piece[1:] for piece in slices], reader.count_rows(), bad.skipped,
        [[table.to_pydict() for table in reader.read(piece)]
         for piece in slices]))
  assert both[0] == both[1] and both[0][1] == 5000
  assert len(both[0][0]) == (1 if suffix else 8)


def test_parquet_is_read_as_from_a_disk(store, tmp_path):
  path = str(tmp_path / 'x.parquet')
  pa.parquet.write_table(pa.table({
      'word': ['w%d' % (i % 9) for i in range(5000)], 'id': list(range(5000)),
      'y': [0.0, 1.0] * 2500}), path, row_group_size=800)
  both = []
  for at in (path, store.put_folder('rows/parquet', tmp_path) + '/x.parquet'):
    reader, _ = reader_cases.of_parquet(at)
    reader.check()
    slices = reader.slices(at_least=10)
    both.append((
        [piece[1:] for piece in slices], reader.count_rows(),
        [[table.to_pydict() for table in reader.read(piece)]
         for piece in slices]))
  assert both[0] == both[1] and both[0][1] == 5000 and len(both[0][0]) == 14


def test_damage_of_a_remote_file_is_named(store):
  uri = store.put('rows/bad.parquet', 'PAR1, but no more of it')
  with pytest.raises(errors.UserError, match='^%s must be a whole Parq' % uri):
    parquet_files.opened(uri)
  uri = store.put('rows/bad.csv.gz', gzip.compress(TEXT.encode())[:-99])
  with pytest.raises(errors.UserError, match=uri + ' cannot be read as gzip'):
    reader_cases.ids(reader_cases.of_csv(uri)[0])


@pytest.mark.parametrize('kind', [inputs.CsvInput, inputs.ParquetInput])
def test_folders_name_a_column(store, tmp_path, kind):
  read = reading.Reading(feature_spec.FeatureSpec([
      {'name': 'y', 'kind': 'label'},
      {'name': 'day', 'kind': 'integer', 'num_buckets': 7}]), keep=('day',))
  for day in ('1', '5'):
    (tmp_path / ('day=' + day)).mkdir()
    table = pa.table({'y': [1.0, 0.0]})
    if kind is inputs.CsvInput:
      (tmp_path / ('day=' + day) / 'part-0.csv').write_text('1\n0\n')
    else:
      pa.parquet.write_table(
          table, str(tmp_path / ('day=' + day) / 'part-0.parquet'))
  source = kind('.', store.put_folder('days/' + kind.__name__, tmp_path))
  source.check(read)
  assert [x for table in source.tables(read)
          for x in table['day'].to_pylist()] == [1, 1, 5, 5]


def test_processes_share_the_rows(store):
  source = inputs.CsvInput(
      store.put('rows/shared/x.csv', TEXT), shuffle_rows=300)
  read = reading.Reading(SPEC, keep=('id',))
  parts = [[x for table in source.tables(read, shard=(i, 3), seed=1)
            for x in table['id'].to_pylist()] for i in range(3)]
  assert sorted(sum(parts, [])) == list(range(5000))
  assert min(map(len, parts)) > 1000


def test_the_rows_of_a_file_are_counted_once(store, monkeypatch):
  uri = store.put('rows/count.csv', TEXT)
  assert reader_cases.of_csv(uri)[0].count_rows() == 5000
  with monkeypatch.context() as patch:
    patch.setattr(csv_lines, 'count', None)
    assert reader_cases.of_csv(uri)[0].count_rows() == 5000
  store.put('rows/count.csv', TEXT + '1,7,w\n')
  inputs.CsvInput(uri).paths()  # is listed anew
  assert reader_cases.of_csv(uri)[0].count_rows() == 5001


def test_a_checkpoint_knows_a_remote_file_again(store):
  uri = store.put('rows/plan.csv', TEXT)
  source = inputs.CsvInput(uri)
  def plan(state):
    return input_plan.make(state, source, 1, 'error', lambda paths: 5000)
  first = plan(None)
  state = dict(input_plan.state_at(first, first.parts[0] and
                                   input_plan.read_plan.Place(0, 0, 700)),
               last_step=1)
  found, = state['files']
  assert found['path'] == uri and found['size'] == len(TEXT)
  assert found['mtime'] == store.client.get_file_info(
      'rows/plan.csv').mtime_ns // 10**9
  assert input_plan.is_state(state)
  time.sleep(1.1)  # dates are whole seconds
  store.put('rows/plan.csv', TEXT)  # another date, the same bytes
  assert plan(state).parts[0].row == 700
  assert plan(state).files[uri]['mtime'] > found['mtime']
  store.put('rows/plan.csv', TEXT.replace('w', 'v'))
  with pytest.raises(errors.UserError, match='^%s has changed since it was tr'
                     'ained on: it has another date and other bytes' % uri):
    plan(state)
  store.put('rows/plan.csv', TEXT[:-10])
  with pytest.raises(errors.UserError, match='it had %d bytes and has %d' % (
      len(TEXT), len(TEXT) - 10)):
    plan(state)


def test_a_command_reads_from_a_store(store, command, taobao, tmp_path):
  local = os.path.join(taobao, 'taobao_test_data')
  with open(local, 'rb') as f:
    uri = store.put('rows/taobao_test_data', f.read())
  status, _, error = command('csv-to-parquet', uri)
  assert status == 1 and error.endswith(
      '--out must be given for more than one file, a directory, a pattern or '
      'a remote file, got %s.\n' % uri)
  for path, name in [(uri, 'remote'), (local, 'local')]:
    done = command('csv-to-parquet', path, '--out', tmp_path / name)
    assert done[0] == 0, done
  assert pa.parquet.read_table(str(tmp_path / 'remote.parquet')).equals(
      pa.parquet.read_table(str(tmp_path / 'local.parquet')))


def test_what_is_read_ahead_is_bounded_and_ends(store, monkeypatch):
  monkeypatch.setattr(streams, '_FIRST_BYTES', 10)
  monkeypatch.setattr(streams, '_PART_BYTES', 10)
  asked, before = [], threading.active_count()
  def retried(path, function, closing=None):
    asked.append(1)
    return function()
  uri = store.put('rows/ahead', TEXT)
  stream = streams.Stream(uri)
  monkeypatch.setattr(remote, 'retried', retried)
  assert stream.read(200) == TEXT[:200].encode()
  stream.end()
  assert 20 <= len(asked) <= 20 + streams._PARTS
  assert threading.active_count() == before


def test_tables_are_made_ahead_in_their_order():
  made = []
  def make():
    for i in range(5):
      made.append(i)
      yield i
    raise errors.UserError('the end')
  with pytest.raises(errors.UserError, match='the end'):
    for i in streams.ahead(make()):
      assert len(made) <= i + 2
  assert made == list(range(5))
  found = streams.ahead(make())
  assert next(found) == 0
  found.close()


def test_a_file_uri_is_a_path(tmp_path):
  (tmp_path / 'x.csv').write_text(TEXT)
  assert inputs.CsvInput('file://%s/x.csv' % tmp_path).paths() == [
      str(tmp_path / 'x.csv')]
  assert inputs.CsvInput('*.csv', 'file://%s' % tmp_path).paths() == [
      str(tmp_path / 'x.csv')]
  shutil.rmtree(str(tmp_path))
  with pytest.raises(errors.UserError, match='nothing at %s/x.csv' % tmp_path):
    inputs.CsvInput('file://%s/x.csv' % tmp_path).paths()
