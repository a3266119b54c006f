"""URIs as text: their parts, how they are joined, and which are refused."""

import pytest

from ple_estimator import errors
from ple_estimator.storage import uris


@pytest.mark.parametrize('folder, entry, path', [
    ('data', 'a.csv', 'data/a.csv'),
    ('data', '.', 'data/.'),
    ('data', '/a.csv', '/a.csv'),
    ('data', 's3://b/a.csv', 's3://b/a.csv'),
    ('s3://b/data/', 'dt=1/a.csv', 's3://b/data/dt=1/a.csv'),
    ('s3://b/data', '.', 's3://b/data'),
    ('s3://b', '.', 's3://b'),
    ('s3://b/data', '../x', 's3://b/x'),
    ('s3://b/data', '/a.csv', '/a.csv'),
    ('s3://b/d?region=x', 'a.csv', 's3://b/d/a.csv?region=x'),
    ('s3://b', 'part-?.csv', 's3://b/part-?.csv'),
    ('gs://b/ts=07%3A00', 'a b', 'gs://b/ts=07%3A00/a b'),
    ('hdfs://h:9000/d', 'x', 'hdfs://h:9000/d/x'),
    ('file:///data', 'x', '/data/x'),
    ('data', 'file:///x%20y', '/x%20y'),
])
def test_names_are_joined(folder, entry, path):
  assert uris.join(folder, entry) == path


def test_options_are_no_part_of_a_name():
  uri = 's3://b/d/x.csv.gz?endpoint_override=http%3A//h:9&scheme=http'
  assert uris.name(uri) == 's3://b/d/x.csv.gz'
  assert uris.options(uris.split(uri)) == {
      'endpoint_override': 'http%3A//h:9', 'scheme': 'http'}
  assert uris.name('s3://b/x?.csv') == 's3://b/x?.csv'
  assert uris.name('dir/x?scheme=http') == 'dir/x?scheme=http'


def test_what_is_remote():
  for path in ('s3://b/x', 'S3://b', 'gs://b/x', 'hdfs:///x'):
    assert uris.is_remote(path) and uris.absolute(path) == path
  for path in ('/s3://b', 'data/x', 'file:///x', 'dt=12:00/x', ''):
    assert not uris.is_remote(path)


@pytest.mark.parametrize('paths, message', [
    ('http://h/x', "X.files must be a path or a URI that begins with s3://, "
     "gs://, hdfs:// or file://, got 'http://h/x': copy the files to a disk, "
     'or mount the storage that holds them.'),
    (['a', 's3:///x'], "X.files must name a bucket as s3://bucket/name, got "
     "'s3:///x'."),
    ('file://host/x', 'X.files must name a file of this machine as file:///'
     "folder/name, got 'file://host/x'."),
    ('s3://id:secret@b/x', 'X.files must not hold credentials, got s3://***@b: '
     'give them by the environment, and take them out of the URI.'),
    ('a\0b', "X.files must be a path, without a NUL character, got 'a\\x00b'."),
])
def test_refuses(paths, message):
  with pytest.raises(errors.UserError) as raised:
    uris.check('X.files', paths)
  assert str(raised.value) == message


def test_accepts():
  uris.check('X.files', ['/a//b', 'dt=12:00/x', '', 's3://b', 's3://b/*/x?',
                         'hdfs://user@h/x', 'file:///x'])
