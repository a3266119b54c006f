"""A store that drops connections, refuses, or cannot be reached at all."""

import gzip
import os
from urllib import request

import object_store
import pyarrow as pa
import pyarrow.parquet
import pytest
import reader_cases

from ple_estimator import errors
from ple_estimator.data import inputs
from ple_estimator.storage import remote

TEXT = '\n'.join(reader_cases.lines(30000))


@pytest.fixture
def proxy(store, monkeypatch):
  """A proxy before the server, through which it is reached."""
  monkeypatch.setattr(remote, '_FIRST_WAIT_SECS', 0)
  made = object_store.Proxy(store.address)
  monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://' + made.address)
  yield made
  made.close()


def _parquet(path):
  pa.parquet.write_table(pa.table({
      'y': [0.0, 1.0] * 15000, 'id': list(range(30000)),
      'word': ['w%d' % i for i in range(30000)]}), path, row_group_size=9000)
  with open(path, 'rb') as f:
    return f.read()


def _reader(store, tmp_path, kind):
  """Returns the URI of a file of a kind, and its reader."""
  if kind == 'x.parquet':
    uri = store.put('rows/' + kind, _parquet(str(tmp_path / kind)))
    return uri, reader_cases.of_parquet(uri)[0]
  data = TEXT.encode()
  uri = store.put('rows/' + kind,
                  gzip.compress(data) if kind.endswith('.gz') else data)
  return uri, reader_cases.of_csv(uri)[0]


@pytest.mark.parametrize('kind', ['x.csv', 'x.csv.gz', 'x.parquet'])
@pytest.mark.parametrize('after', [0, 2000])
def test_a_connection_that_drops_loses_no_row(
    store, proxy, tmp_path, caplog, kind, after):
  uri, reader = _reader(store, tmp_path, kind)
  slices = reader.slices()
  proxy.cuts, proxy.after = 3, after
  assert reader_cases.ids(reader, slices) == list(range(30000))
  assert proxy.cuts == 0
  said = [line for line in caplog.messages if line.startswith(
      uri + ': attempt 1 of 5 to read it failed, the next follows in 0 s: ')]
  assert said and 'NETWORK_CONNECTION' in said[0] and '\n' not in said[0]


@pytest.mark.parametrize('kind', ['x.csv', 'x.csv.gz', 'x.parquet'])
def test_attempts_are_bounded(store, proxy, tmp_path, kind):
  uri, reader = _reader(store, tmp_path, kind)
  slices = reader.slices()
  proxy.cuts, proxy.after = 10**6, 2000
  with pytest.raises(errors.UserError) as raised:
    reader_cases.ids(reader, slices)
  assert str(raised.value).startswith(
      uri + ' cannot be read after 5 attempts: ')
  assert '\n' not in str(raised.value) and proxy.connections < 50


def test_waits_double_and_end_when_nobody_reads(caplog):
  waits = []
  class Closing:
    wait = waits.append
    def is_set(self):
      return len(waits) == 3
  def fails():
    raise OSError('Connection reset')
  with pytest.raises(errors.UserError, match='s3://b/x is no longer read'):
    remote.retried('s3://b/x', fails, Closing())
  assert waits == [0.5, 1, 2] and len(caplog.messages) == 3


def test_a_server_that_is_gone_is_named(store, monkeypatch):
  uri = store.put('rows/gone.csv', TEXT)
  monkeypatch.setattr(remote, '_FIRST_WAIT_SECS', 0)
  monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:1')
  with pytest.raises(errors.UserError, match='^%s cannot be read after 5 atte'
                     'mpts: .*NETWORK_CONNECTION' % uri):
    inputs.CsvInput(uri).paths()


def test_a_file_that_changes_while_it_is_read_is_refused(
    store, monkeypatch):
  monkeypatch.setattr(remote, '_FIRST_WAIT_SECS', 0)
  uri = store.put('rows/changes.csv', TEXT)
  reader = reader_cases.of_csv(uri)[0]
  slices = reader.slices()
  store.put('rows/changes.csv', TEXT[:99])
  with pytest.raises(errors.UserError, match='%s cannot be read after 5 attem'
                     'pts: it had %d bytes when it was listed, and has 99' % (
                         uri, len(TEXT))):
    reader_cases.ids(reader, slices)


@pytest.mark.parametrize('key', ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'])
def test_wrong_credentials_are_refused_in_one_line(store, monkeypatch, key):
  uri = store.put('rows/secret.csv', TEXT)
  def checks(after):  # how many requests pass before signatures are checked
    request.urlopen(request.Request(
        'http://%s/moto-api/reset-auth' % store.address, str(after).encode(),
        {'Content-Type': 'text/plain'}, method='POST')).read()
  checks(0)
  try:
    monkeypatch.setenv(key, 'wrong')
    for files, data_dir in [(uri, '.'), ('*.csv', 's3://rows')]:
      with pytest.raises(errors.UserError) as raised:
        inputs.CsvInput(files, data_dir).paths()
      message = str(raised.value)
      assert message.startswith('s3://rows') and '\n' not in message
      assert 'cannot be read: access is denied (' in message
      assert message.endswith(
          'Credentials come from the environment: see that AWS_ACCESS_KEY_ID '
          'and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE are those of who may read '
          'it.')
  finally:
    checks(10**9)


@pytest.mark.skipif('HADOOP_HOME' in os.environ, reason='there may be Hadoop')
def test_hdfs_needs_hadoop():
  with pytest.raises(errors.UserError) as raised:
    inputs.CsvInput('hdfs://host:9000/a.csv').paths()
  message = str(raised.value)
  assert message.startswith(
      'hdfs://host:9000/a.csv cannot be read, since pyarrow %s does not '
      'connect to hdfs://: ' % pa.__version__) and '\n' not in message
  assert 'set JAVA_HOME, HADOOP_HOME and CLASSPATH' in message


@pytest.mark.parametrize('scheme', ['gs', 's3'])
def test_a_pyarrow_without_a_store_is_named(monkeypatch, scheme):
  class Lacks:
    def __init__(self, *args, **kwargs):
      raise ImportError("not built with support for\n'it'")
    from_uri = classmethod(lambda cls, uri: cls(uri))
  monkeypatch.setattr(remote.pa.fs, 'FileSystem', Lacks)
  monkeypatch.setattr(remote.pa.fs, 'S3FileSystem', Lacks)
  monkeypatch.setattr(remote, '_systems', {})
  monkeypatch.setenv('AWS_REGION', 'us-east-1')
  with pytest.raises(errors.UserError) as raised:
    inputs.CsvInput('%s://bucket/a.csv' % scheme).paths()
  assert str(raised.value) == (
      "{0}://bucket/a.csv cannot be read, since pyarrow {1} does not connect "
      "to {0}://: not built with support for 'it'. To read it, install a "
      'pyarrow that is built with {2}; or copy the files to a disk, or mount '
      'their storage.'.format(scheme, pa.__version__,
                              {'gs': 'GCS', 's3': 'S3'}[scheme]))
