"""`ple-estimator init`: what it sees in files, what it writes and refuses."""

import collections
import gzip
import json
import os
import re
import shlex

import conftest
import gin
import numpy as np
import object_store
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import config
from ple_estimator import errors
from ple_estimator import experiment
from ple_estimator.commands import words as words_lib
from ple_estimator.commands.init import choosing
from ple_estimator.commands.init import dates
from ple_estimator.commands.init import describing
from ple_estimator.commands.init import distinct
from ple_estimator.commands.init import labels as labels_lib
from ple_estimator.commands.init import like_columns
from ple_estimator.commands.init import rows
from ple_estimator.commands.init import sniffing
from ple_estimator.commands.init import splitting
from ple_estimator.commands.init import writing
from ple_estimator.data import feature_spec
from ple_estimator.storage import remote

ADULT = os.path.join(os.path.dirname(conftest.REAL_ROWS), '..', 'adult')
SMALL = ['PLE.expert_units = (4,)', 'Tower.units = (3,)', 'FwFM.dim = 2',
         'PLE.num_task_experts = 0', 'Model.averaging = None',
         'Experiment.exports = None', 'Periodic.num_frequencies = 2',
         'Binned.num_bins = 20']


def described(values, name='x'):
  """The Description of a column of texts, None where empty."""
  describer = describing.Describer([name])
  for start in range(0, len(values), 700):  # several pieces
    describer.add(pa.table({name: pa.array(
        values[start:start + 700], pa.string())}))
  return describer.finish()[name]


def chosen(values, name='x', arrow_type=pa.string()):
  return choosing.choose(described(values, name), arrow_type)


# ------------------------------------------------------------------- sniffing


@pytest.mark.parametrize('text, encoding, delimiter, quote, escape, header', [
    ('a,b\n1,x\n2,y\n', 'utf-8', ',', '"', None, True),
    ('1,x\n2,y\n2,x\n', 'utf-8', ',', '"', None, False),
    ('a;b\n"1,5";"x;y"\n"2,5";z\n', 'utf-8', ';', '"', None, True),
    ('a\tb\n1\t3" pipe\n2\tx\n', 'utf-8', '\t', '"', None, True),
    ('a|b\n1|"x\n2|"y\n', 'utf-8', '|', None, None, True),
    ("a,b\n'x,1','2'\n'x','3'\n", 'utf-8', ',', "'", None, True),
    ('a,b\n"x \\"1\\", y",2\nx,3\n', 'utf-8', ',', '"', '\\', True),
    ('a,b\n"x ""1"", y",2\nx,3\n', 'utf-8', ',', '"', None, True),
    (u'\ufeffa,b\n1,x\n'.encode('utf-8'), 'utf-8-sig', ',', '"', None, True),
    (u'a,b\n1,é\n'.encode('utf-16'), 'utf-16', ',', '"', None, True),
    (u'a;Größe\n1;x\n'.encode('cp1252'), 'cp1252', ';', '"', None, True),
    ('u,list\n1,a|b|c\n2,a|b\n3,c|d\n', 'utf-8', ',', '"', None, True),
    ('x,y\nu,v\nu,w\nz,v\n', 'utf-8', ',', '"', None, True),
    ('u,v\nu,w\nz,v\n', 'utf-8', ',', '"', None, False),
])
def test_sniffs(tmp_path, text, encoding, delimiter, quote, escape, header):
  path = tmp_path / 'x.csv'
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  found = sniffing.sniff(str(path), [])
  assert (found.encoding, found.dialect.delimiter, found.dialect.quote,
          found.dialect.escape, found.header) == (
              encoding, delimiter, quote, escape, header)


@pytest.mark.parametrize('end, name', [
    ('\n', 'LF'), ('\r\n', 'CRLF'), ('\r', 'CR')])
def test_sniffs_line_ends_in_compressed_files(tmp_path, end, name):
  path = str(tmp_path / 'x.csv.gz')
  with gzip.open(path, 'wb') as f:
    f.write(end.join(['a,b', '1,2', '']).encode())
  assert sniffing.sniff(path, []).line_end == name


def test_a_label_in_the_first_row_makes_it_a_header(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_text('a,7\nb,c\nb,a\n')
  assert not sniffing.sniff(str(path), []).header
  assert sniffing.sniff(str(path), ['7']).header
  assert sniffing.sniff(str(path), [], ['7', 'z']).header


def test_names_become_unique():
  assert sniffing.unique(['a', ' b ', '', 'a', 'a', 'a_2']) == [
      'a', 'b', 'column_3', 'a_3', 'a_4', 'a_2']


# ----------------------------------------------------------------- describing


def test_few_values_are_counted_exactly_and_many_nearly():
  values = [str(i).encode() for i in range(300000)]
  few, many = distinct.Counter(), distinct.Counter()
  for start in range(0, 300000, 50000):
    few.add(values[:60000] + values[start % 40000:][:100])
    many.add(values[start:start + 50000])
  assert few.exact and few.count() == 60000
  assert not many.exact and abs(many.count() / 300000 - 1) < 0.015


def test_hashes_do_not_depend_on_the_other_values():
  long = [b'a', b'abcdefghij' * 3, b'']
  assert distinct.hashes([b'a', b''])[0] == distinct.hashes(long)[0]
  assert len(set(distinct.hashes(long).tolist())) == 3


def test_describes_numbers_as_numpy_does():
  rng = np.random.RandomState(1)
  numbers = np.round(rng.normal(5, 2, 3000), 3)
  found = described([None if i % 10 == 0 else 'NA' if i % 10 == 1 else '%.3f' %
                     x for i, x in enumerate(numbers)])
  kept = numbers[np.arange(3000) % 10 > 1]
  assert found.filled() == 2400 and found.null_words() == ['NA']
  assert found.empty_share() == pytest.approx(0.2)
  assert found.distinct() == len(np.unique(kept))
  assert (found.low, found.high) == (kept.min(), kept.max())
  np.testing.assert_allclose(found.sample_numbers(), kept)
  made = choosing.choose(found, pa.string())
  assert made.kind == 'number' and 'log1p' not in made.arguments
  assert made.arguments['mean'] == pytest.approx(kept.mean(), rel=1e-3)
  assert made.arguments['std'] == pytest.approx(kept.std(), rel=1e-3)
  assert made.arguments['default'] == pytest.approx(np.median(kept), rel=1e-3)


def test_words_of_numbers_are_values_of_text():
  found = described(['NA', 'DE', 'FR', 'NULL'] * 5)
  assert found.null_words() == ['NULL'] and found.distinct() == 3
  assert set(found.values()) == {'NA', 'DE', 'FR'}


def test_a_sample_is_of_rows_at_equal_distances(monkeypatch):
  monkeypatch.setattr(describing, '_SAMPLE_ROWS', 1000)
  found = described([str(i) for i in range(5000)])
  steps = np.diff(list(map(int, found.sample)))
  assert 500 <= len(found.sample) <= 1000 and set(steps) == {8}


@pytest.mark.parametrize('texts, form', [
    (['2024-01-31', '2023-02-01'], '%Y-%m-%d'),
    (['2024-01-31T07:00:00.123Z'], '%Y-%m-%d %H:%M:%S.%f'),
    (['2024-01-31 07:00:00.123456789'], '%Y-%m-%d %H:%M:%S.%f'),
    (['31.01.2024', '01.02.2024'], '%d.%m.%Y'),
    (['01/02/2024', '01/31/2024'], '%m/%d/%Y'),
    (['01/02/2024', '31/01/2024'], '%d/%m/%Y'),
    (['1.2.3'], None), (['2024-13-45'], None), (['x'], None), ([], None)])
def test_formats_of_dates(texts, form):
  assert dates.form(texts) == form


# -------------------------------------------------------------------- choosing


@pytest.mark.parametrize('name, values, kind', [
    ('x', [None] * 9, 'ignored'),
    ('x', ['a'] * 9, 'ignored'),
    ('x', ['a', 'b'] * 9, 'vocabulary'),
    ('x', ['a', 'b'] * 4, 'hashed'),
    ('x', ['v%d' % (i % 101) for i in range(909)], 'hashed'),
    ('x', ['t%d' % i for i in range(300)], 'ignored'),
    ('x', ['0.5', '1.5', None], 'number'),
    ('x', ['1', '2', '3'] * 9, 'hashed'),
    ('education_num', ['1', '2', '3'] * 9, 'number'),
    ('age', [str(i % 70) for i in range(900)], 'number'),
    ('itemId', [str(i % 70) for i in range(900)], 'hashed'),
    ('zip', [str(i % 70) for i in range(900)], 'hashed'),
    ('x', ['%03d' % (i % 70) for i in range(900)], 'hashed'),
    ('x', [str(7 * i % 3000) for i in range(9000)], 'hashed'),
    ('x', [str(int(1.002 ** i)) for i in range(6000)], 'number'),
    ('x', ['2024-01-%02d' % (i % 28 + 1) for i in range(90)], 'ignored'),
    ('created_at', [str(1700000000 + i) for i in range(90)], 'ignored'),
    ('x', ['%s|%s' % (i % 7, i % 5) for i in range(90)], 'hashed_list'),
    ('x', ['red,%s' % 'JAM'[i % 3] for i in range(90)], 'vocabulary'),
    ('x', ['Doe%d, J%d' % (i % 40, i % 39) for i in range(39)], 'hashed'),
])
def test_kinds(name, values, kind):
  assert chosen(values, name).kind == kind


def test_rare_texts_share_ids_with_new_ones():
  made = chosen(['a', 'b', "c'd"] * 5 + ['rare', 'other'])
  assert dict(made.arguments) == {
      'values': ('a', 'b', "c'd"), 'num_oov_buckets': 2}
  assert '2 of fewer than 5 rows share the ids' in made.reason
  made = chosen(['a', 'b', 'NULL'] * 5)
  assert dict(made.arguments) == {'values': ('a', 'b'), 'num_oov_buckets': 1}


@pytest.mark.parametrize('name, values, reason', [
    ('itemId', [str(i % 70) for i in range(900)],
     'ids, as the name ends in id'),
    ('x', ['007', '12'] * 9, 'ids, as digits start with 0'),
    ('x', ['1', '2', '3'] * 9, 'ids, as there are 3 different ones only'),
    ('x', [str(7 * i % 3000) for i in range(9000)],
     'ids, as the middle half of the rows covers 50 % of the range'),
    ('age', [str(i % 70) for i in range(900)],
     'amounts, as the name ends in age, 0 to 69'),
    ('x', [str(i % 70) for i in range(900)],
     'amounts, as there are 70 different ones, 0 to 69'),
    ('x', [str(int(1.002 ** i)) for i in range(9000)],
     'amounts, as the middle half of the rows covers 1.1 % of the range')])
def test_reasons_of_whole_numbers(name, values, reason):
  assert chosen(values, name).reason.startswith(reason)


def test_a_skewed_number_becomes_its_logarithm():
  rng = np.random.RandomState(1)
  numbers = np.exp(rng.normal(3, 1.5, 4000))
  made = chosen([repr(x) for x in numbers], 'views')
  logs = np.log1p(numbers)
  assert made.arguments['log1p'] is True
  assert made.arguments['mean'] == pytest.approx(logs.mean(), rel=1e-3)
  assert made.arguments['std'] == pytest.approx(logs.std(), rel=1e-3)
  low, high = made.arguments['clip']
  assert low <= numbers.min() and numbers.max() <= high
  assert [low, high] == pytest.approx([numbers.min(), numbers.max()], rel=1e-4)


def test_a_number_of_which_few_are_huge_is_bucketised():
  rng = np.random.RandomState(1)
  numbers = np.round(rng.standard_cauchy(4000), 4)
  made = chosen([repr(x) for x in numbers], 'x')
  assert made.kind == 'bucketised' and made.stored == 'number'
  boundaries = made.arguments['boundaries']
  assert len(boundaries) == 19
  counts = np.bincount(np.searchsorted(boundaries, numbers, side='right'))
  assert len(counts) == 20 and counts.min() > 190 and counts.max() < 210
  # Of numbers that are 0 in nearly all rows there are no quantiles.
  few = np.where(np.arange(4000) % 500 == 0, 10.0 ** 6, 0)
  assert chosen([repr(x) for x in few + 0.5], 'x').kind == 'number'
  assert chosen([repr(x) for x in rng.normal(size=4000)]).kind == 'number'


def test_quantiles_of_few_numbers_ascend():
  made = choosing.choose(described(
      ['1', '1', '2', '3', '3', '16777216', '16777217', None]), pa.string(),
                         bucketise=True)
  assert made.arguments['boundaries'] == (2.0, 3.0, 16777200.0)


def test_decimal_commas():
  found = described(['1,5', '1.234,25', '-3', None])
  assert found.is_number() and not found.is_whole()
  assert found.sample_numbers().tolist() == [1.5, 1234.25, -3]


@pytest.mark.parametrize('count', [2, 3, 17, 100, 999])
def test_fewer_than_one_in_twenty_values_share_a_bucket(count):
  values = ['v%d' % i for i in range(count)]
  size, shared = choosing.buckets(values)
  with tf.Session() as session:
    ids = session.run(tf.strings.to_hash_bucket_fast(
        tf.constant(values), size)).tolist()
  assert shared == sum(ids.count(i) > 1 for i in ids) < 0.05 * count
  assert count > 20 or not shared


@pytest.mark.parametrize('count', [1001, 54321, 10**6])
def test_of_many_values_fewer_than_one_in_twenty_are_expected_to(count):
  size, _ = choosing.buckets(count)
  assert 1 - (1 - 1 / size) ** (count - 1) < 0.05 and size < 25 * count


def test_items_of_a_list_are_counted():
  made = chosen([';'.join('t%d' % (i * j % 60) for j in range(1 + i % 4))
                 for i in range(400)])
  assert made.kind == 'hashed_list' and made.arguments['separator'] == ';'
  assert made.arguments['num_buckets'] == choosing.buckets(
      len({i * j % 60 for i in range(400) for j in range(1 + i % 4)}))[0]


@pytest.mark.parametrize('names, user', [
    (['item_id', 'user_id'], 'user_id'), (['customer', 'userId'], 'userId'),
    (['customer'], 'customer'), (['users', 'user_age', 'item'], None)])
def test_a_likely_user(names, user):
  found = collections.OrderedDict(
      (name, described([str(i % 30) for i in range(90)], name))
      for name in names)
  assert choosing.likely_user(found) == user


def test_a_row_of_its_own_is_no_user():
  found = {'user_id': described([str(i) for i in range(90)], 'user_id')}
  assert choosing.likely_user(found) is None


# ---------------------------------------------------------------------- labels


def label(text, values):
  wanted, = labels_lib.wanted([text])
  name = wanted.column
  return labels_lib.describe(wanted, described(values, name))


@pytest.mark.parametrize('text, values, entry', [
    ('y', ['0', '1', '1'], {'values': (0, 1)}),
    ('y', ['0', '1.0', '1'], {'values': (0, 1)}),
    ('y', ['<=50K', '>50K', '<=50K'], {'values': {'<=50K': 0, '>50K': 1}}),
    ('y', ['yes', 'no', 'yes'], {'values': {'no': 0, 'yes': 1}}),
    ('y', ['1', '2', '2'], {'values': {'2': 0, '1': 1}}),
    ('y', ['-1', '1', '1'], {'values': {'-1': 0, '1': 1}}),
    ('y=b', ['a', 'b', 'c'], {'values': {'a': 0, 'b': 1, 'c': 0}}),
    ('y>3', ['1', '3', '5', None], {'above': 3}),
    ('y', ['0.5', '1.5', '7'], {}),
])
def test_labels(text, values, entry):
  found = label(text, values)
  wanted = collections.OrderedDict([('name', 'y'), ('kind', 'label')], **entry)
  assert found.entry == wanted and found.is_binary == bool(entry)


@pytest.mark.parametrize('values, entry, num_classes', [
    (['a', 'c', 'b'], {'values': {'a': 0, 'b': 1, 'c': 2}}, 3),
    (['0', '1', '2'] * 10, {'values': (0, 1, 2)}, 3),
    (['3', '10', '7'] * 10, {'values': {'3': 0, '7': 1, '10': 2}}, 3),
    (['1.0', '1', '2', '3'] * 10,
     {'values': {'1': 0, '1.0': 0, '2': 1, '3': 2}}, 3)])
def test_several_values_are_classes(values, entry, num_classes):
  found = label('grade', values)
  assert found.num_classes == num_classes and not found.is_binary
  assert found.loss == '@grade/MultiClass()' and found.measure == 'log_loss'
  assert {'values': found.entry['values']} == entry
  wanted = [found.entry['values'][x] if isinstance(found.entry['values'], dict)
            else float(x) for x in values]
  np.testing.assert_array_equal(found.targets(pa.array(values)), wanted)
  assert np.isnan(found.targets(pa.array(['zz', None]))).all()


def test_too_many_texts_are_no_label():
  with pytest.raises(errors.UserError) as raised:
    label('word', ['w%d' % i for i in range(101)])
  assert str(raised.value) == (
      "--labels: 'word' has 101 different values (w0, w1, w10, w100, w11, w12, "
      'w13, w14, ...), and init makes classes of at most 100: name the one '
      "that counts as 1, such as --labels 'word=w0'.")


@pytest.mark.parametrize('name, values, loss', [
    # Of a Poisson distribution, whose tail has too few rows to be classes.
    ('y', np.random.RandomState(1).poisson(2, 500), "'poisson'"),
    ('y', np.random.RandomState(1).poisson(0.5, 500), "'poisson'"),
    ('clicks', np.arange(300) % 3, "'poisson'"),
    ('stars', np.arange(300) % 5 + 1, "'regression'"),
    ('age', np.arange(17, 90), "'regression'"),
    ('y', np.arange(100), "'regression'"),  # as often large as small
    ('y', np.arange(0, 3000, 50) ** 2, "'regression'"),  # mostly left out
    ('y', np.arange(300) % 3 - 1, '@y/MultiClass()')])
def test_whole_numbers_are_counts_classes_or_amounts(name, values, loss):
  found = label(name, list(map(str, values)))
  assert found.loss == loss
  if loss == "'poisson'":
    assert found.weight == pytest.approx(1 / max(1, values.mean()), rel=1e-2)


def test_targets_of_labels():
  texts = pa.array(['5', None, '3', 'x'])
  for found, wanted in [
      (label('y>3', ['3', '5']), [1, np.nan, 0, np.nan]),
      (label('y=x', ['3', '5', 'x']), [0, np.nan, 0, 1]),
      (label('y', ['3', '5', '9']), [5, np.nan, 3, np.nan])]:
    np.testing.assert_array_equal(found.targets(texts), wanted)


def test_a_regression_counts_in_units_of_its_variance():
  values = [1.0, 2.0, 6.0, 7.0]
  assert label('y', list(map(str, values))).weight == pytest.approx(
      1 / np.var(values), rel=1e-2)


@pytest.mark.parametrize('values, loss', [
    ([1, 2, 3, 4], "'regression'"), ([-1] * 30 + [99], "'regression'"),
    ([1, 2] * 20 + [99], "'lognormal'"), ([0, 1] * 20 + [99], '@Tweedie()')])
def test_losses_of_numbers(values, loss):
  assert label('y', list(map(str, values + [1.5]))).loss == loss


@pytest.mark.parametrize('column, name', [
    ('like', 'like'), ('shared', 'task_shared'), ('2nd', 'task_2nd'),
    ('is new', 'is_new'), (u'größe', 'gr__e')])
def test_task_names(column, name):
  assert labels_lib.task_name(column) == name


# --------------------------------------------------------------------- writing


def shop(num_rows=600, seed=1):
  """Lines of a CSV file with a header, whose labels can be learnt."""
  rng = np.random.RandomState(seed)
  lines = ['user_id,at,price,brand,tags,like,stars']
  for i in range(num_rows):
    brand = rng.randint(9)
    like = rng.random_sample() < (0.8 if brand < 4 else 0.1)
    lines.append('u%d,%d,%s,%s,%s,%d,%.2f' % (
        rng.randint(60), 1700000000 + i, '' if i % 9 == 0 else '%.3f' %
        np.exp(rng.normal(2, 1)), 'NULL' if i % 31 == 0 else 'b%d' % brand,
        '|'.join('t%d' % t for t in rng.randint(0, 15, rng.randint(4))),
        like, 3 + like + rng.normal(0, 0.1)))
  return lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A working directory with shop.csv."""
  (tmp_path / 'shop.csv').write_text('\n'.join(shop()) + '\n')
  monkeypatch.chdir(tmp_path)
  return tmp_path


def init(command, *args):
  status, said, error = command('init', *args)
  assert status == 0, error
  return said


def trained(path, *bindings):
  """Trains a .gin file for 8 epochs, in this process; returns its metrics."""
  config.load(path, SMALL + ['EPOCHS = 8', 'Experiment.eval_epochs = 8',
                             'LEARNING_RATE = 0.02'] + list(bindings))
  run = experiment.Experiment()
  run.train()
  with open(os.path.join(run.model_dir, 'evaluations.json')) as f:
    return json.load(f)['evaluations'][-1]


def stored(part, folder='shop_data'):
  return pa.parquet.read_table(os.path.join(folder, part + '.parquet'))


@pytest.mark.slow
def test_one_file_is_cut_by_users_and_trains(folder, command):
  said = init(command, 'shop.csv', '--labels', 'like,stars', '--out',
              'shop.gin')
  for line in ['ple-estimator --gin_file=shop.gin',
               'ple-estimator --gin_file=shop.gin --mode=test']:
    assert '\n  %s\n' % line in said
  users = [set(stored(part)['user_id'].to_pylist())
           for part in splitting.PARTS]
  assert not users[0] & users[1] and not users[0] & users[2]
  assert not users[1] & users[2] and len(set().union(*users)) == 60
  assert sum(stored(part).num_rows for part in splitting.PARTS) == 600
  text = (folder / 'shop.gin').read_text()
  assert "include 'gin/small.gin'" in text
  assert max(map(len, text.split('FeatureSpec')[0].splitlines())) <= 100
  found = trained('shop.gin')
  assert found['like/auc'] > 0.7 and found['stars/rmse'] < 1
  spec = gin.get_configurable(feature_spec.FeatureSpec)()
  assert [(c.name, type(c).__name__) for c in spec.columns] == [
      ('user_id', 'Ignored'), ('at', 'Ignored'), ('price', 'Number'),
      ('brand', 'Vocabulary'), ('tags', 'HashedList'), ('like', 'Label'),
      ('stars', 'Label')]


def test_the_last_rows_are_for_the_test(folder, command):
  init(command, 'shop.csv', '--labels', 'like', '--time', 'at', '--out',
       'shop.gin')
  at = [np.array(stored(part)['at'].to_pylist(), float)
        for part in splitting.PARTS]
  assert at[0].max() < at[1].min() and at[1].max() < at[2].min()
  assert [len(part) for part in at] == [480, 60, 60]


def test_the_same_rows_are_drawn_again(folder, command):
  args = ['shop.csv', '--labels', 'like', '--random', '--out']
  init(command, *(args + ['a.gin']))
  init(command, *(args + ['b.gin']))
  for part in splitting.PARTS:
    assert stored(part, 'a_data').equals(stored(part, 'b_data'))
  counts = [stored(part, 'a_data').num_rows for part in splitting.PARTS]
  assert sum(counts) == 600 and 40 < counts[1] < 80 and 40 < counts[2] < 80
  assert "'user_id', 'kind': 'hashed'" in (folder / 'a.gin').read_text()


def test_numbers_and_words_for_nothing_are_stored_as_such(folder, command):
  init(command, 'shop.csv', '--labels', 'like', '--random', '--out', 'shop.gin')
  whole = pa.concat_tables([stored(part) for part in splitting.PARTS])
  assert whole.schema.field('price').type == pa.float64()
  assert whole['price'].null_count == 67 and whole['brand'].null_count == 20
  prices = [line.split(',')[2] for line in shop()[1:]]
  assert sorted(map(float, filter(None, prices))) == sorted(
      x for x in whole['price'].to_pylist() if x is not None)


@pytest.mark.slow
def test_csv_files_are_read_where_they_are(folder, command):
  (folder / 'valid.csv').write_text('\n'.join(shop(200, 2)) + '\n')
  said = init(command, 'shop.csv', '--validation', 'valid.csv', '--labels',
              'like', '--out', 'my/shop.gin')
  assert not (folder / 'my' / 'shop_data').exists()
  assert '--gin_file=my/shop.gin --mode=evaluate' in said
  text = (folder / 'my' / 'shop.gin').read_text()
  for line in ['  header = True', "  null_values = ('NULL',)",
               'Experiment.test_input = None']:
    assert line in text
  assert trained('my/shop.gin')['like/auc'] > 0.7


def test_texts_with_blanks_around_them_are_copied(folder, command):
  (folder / 'x.csv').write_text('like,brand\n' + '\n'.join(
      '%d, b%d' % (i % 3 == 0, i % 3) for i in range(300)) + '\n')
  init(command, 'x.csv', '--validation', 'x.csv', '--labels', 'like', '--out',
       'x.gin')
  text = (folder / 'x.gin').read_text()
  assert "'values': ('b0', 'b1', 'b2'), 'num_oov_buckets': 1}" in ' '.join(
      text.split())
  assert set(stored('validation', 'x_data')['brand'].to_pylist()) == {
      'b0', 'b1', 'b2'}
  assert trained('x.gin')['like/auc'] > 0.99


@pytest.mark.slow
def test_parquet_files_are_read_where_they_are(folder, command):
  rng = np.random.RandomState(1)
  for name in ('a', 'b'):
    like = rng.randint(0, 2, 300)
    pa.parquet.write_table(pa.table({
        'like': pa.array(like > 0), 'n': pa.array(rng.normal(like, 1)),
        'day': pa.array(rng.randint(0, 9, 300).astype('i4'), pa.int32()).cast(
            pa.date32()),
        'items': pa.array([['i%d' % (j % 7) for j in range(k)]
                           for k in rng.randint(0, 4, 300)]),
        'ragged': pa.array([[0.25, 1.0]] * 299 + [[0.5]]),
        'empty': pa.array([[0.25, 1.0]] * 299 + [[]]),
        'vector': pa.array([[0.25, None], None] * 149 + [[0.5, np.inf],
                                                         [np.nan, 3e-7]]),
        'fixed': pa.array([[1, 2, 3], [2, 3, 4]] * 150,
                          pa.list_(pa.int8(), 3)),
        'weights': pa.array(
            [[('a', 0.5), ('b:|'[:1 + i % 2], 1.0)] for i in range(299)] + [
                None], pa.map_(pa.string(), pa.float32())),
        'below': pa.array([[(1, -0.5), (7, 1)], [(1, 2)]] * 150,
                          pa.map_(pa.int64(), pa.float64())),
        'bars': pa.array([[('a|b', 0.5)], [('c', 0.25)]] * 150,
                         pa.map_(pa.string(), pa.float32())),
        'deep': pa.array([{'x': 1}] * 300)}), name + '.parquet')
  said = init(command, 'a.parquet', '--validation', 'b.parquet', '--test',
              'b.parquet', '--labels', 'like', '--out', 'x.gin')
  text = (folder / 'x.gin').read_text()
  assert 'deep is left out' in text and '(none)' in said
  assert "{'name': 'items', 'kind': 'hashed_list'" in text
  for name in ('day', 'ragged', 'empty', 'bars'):
    assert "{'name': '%s', 'kind': 'ignored'}" % name in text
  entries = {c['name']: c for c in columns_of('x.gin')}
  assert {k: entries['vector'][k] for k in ('kind', 'width', 'clip')} == {
      'kind': 'vector', 'width': 2, 'clip': (3e-7, 0.5)}
  assert entries['fixed'] == dict(
      name='fixed', kind='vector', width=3, mean=2.5, std=0.9574, default=2.5,
      clip=(1.0, 4.0))
  assert entries['weights'] == dict(
      name='weights', kind='hashed_list', weights=':',
      num_buckets=choosing.buckets(3)[0])
  assert entries['below']['combiner'] == 'sqrtn'
  assert trained('x.gin')['like/auc'] > 0.7


def columns_of(path):
  """FeatureSpec.columns of a .gin file, a list of dicts."""
  config.load(path)
  return gin.query_parameter('FeatureSpec.columns')


@pytest.mark.slow
def test_lists_of_text_are_vectors_and_items_with_weights(folder, command):
  rng = np.random.RandomState(1)
  lines = ['like;vector;tags;svm;day']
  for i in range(400):
    like = rng.randint(2)
    lines.append('%d;%s;%s;%s;1%d:30' % (
        like, '|'.join('%.3f' % x for x in rng.normal(like, 1, 5))
        if i % 9 else '', '|'.join('t%d=%.2f' % (t, rng.rand()) for t in
                                   rng.randint(0, 9, rng.randint(4))),
        ' '.join('%d:%d' % (t, rng.randint(-5, 5)) for t in
                 rng.randint(0, 9, 3)), i % 7))
  (folder / 'x.csv').write_text('\n'.join(lines) + '\n')
  init(command, 'x.csv', '--labels', 'like', '--out', 'x.gin')
  numbers = [[float(x) for x in line.split(';')[1].split('|')]
             for line in lines[1:] if line.split(';')[1]]
  _, vector, tags, svm, day = columns_of('x.gin')
  assert (vector['kind'], vector['width']) == ('vector', 5)
  assert vector['mean'] == pytest.approx(np.mean(numbers), rel=1e-3)
  assert vector['std'] == pytest.approx(np.std(numbers), rel=1e-3)
  assert vector['default'] == pytest.approx(np.median(numbers), rel=1e-3)
  assert vector['clip'] == (np.min(numbers), np.max(numbers))
  size, _ = choosing.buckets(9)
  assert tags == {'name': 'tags', 'kind': 'hashed_list', 'num_buckets': size,
                  'weights': '='}
  assert svm == {'name': 'svm', 'kind': 'hashed_list', 'num_buckets': size,
                 'separator': ' ', 'weights': ':', 'combiner': 'sqrtn'}
  assert day['kind'] == 'vocabulary'  # a time of day is no item with a weight
  # One row in nine has none of the numbers that tell.
  assert trained('x.gin')['like/auc'] > 0.7


@pytest.mark.slow
def test_wide_vectors_have_no_vectors_for_each_number(folder, command):
  pa.parquet.write_table(pa.table({
      'like': pa.array([0, 1] * 150), 'x': pa.array(
          [[like + 0.5] * 120 for like in (0, 1)] * 150)}), 'x.parquet')
  init(command, 'x.parquet', '--labels', 'like', '--out', 'x.gin')
  text = (folder / 'x.gin').read_text()
  assert 'Model.interactions = [@Wide(), @FwFM()]' in text
  assert trained('x.gin')['like/auc'] > 0.99


def test_an_awkward_file(tmp_path, monkeypatch, command):
  monkeypatch.chdir(tmp_path)
  rng = np.random.RandomState(1)
  lines = [u'Kunden-Nr;Größe (m);Preis;Ort;Datum;leer;fest;Preis;gut;Notiz']
  for i in range(400):
    size = rng.normal(1.7, 0.1)
    lines.append(u';'.join([
        '%05d' % rng.randint(90),
        'NA' if i % 9 == 0 else ('%.2f' % size).replace('.', ','),
        '"%d"' % rng.randint(5, 5000),
        u'"%s"' % rng.choice([u'Köln', u'Gießen', 'Bonn; Stadt']),
        '%02d.%02d.2024' % (i % 28 + 1, i % 12 + 1), '', 'x',
        '%d' % rng.randint(100), 'ja' if size > 1.7 else 'nein',
        u'"sagt ""ja"",\r\nnicht %d"' % i]))
  with open('x.csv', 'wb') as f:
    f.write((u'\r\n'.join(lines) + u'\r\n').encode('cp1252'))
  said = init(command, 'x.csv', '--labels', 'gut', '--out', 'x.gin')
  assert "CP1252, ';' between fields, with a header, CRLF" in said
  assert trained('x.gin')['gut/auc'] > 0.7
  spec = gin.get_configurable(feature_spec.FeatureSpec)()
  assert [type(column).__name__ for column in spec.columns[:9]] == [
      'Hashed', 'Number', 'Number', 'Vocabulary', 'Ignored', 'Ignored',
      'Ignored',
      'Number', 'Label']
  assert spec.columns[1].name == u'Größe (m)'
  assert spec.columns[7].name == 'Preis_2'
  places = set(stored('train', 'x_data')['Ort'].to_pylist())
  assert places == {u'Köln', u'Gießen', 'Bonn; Stadt'}


@pytest.mark.slow
@pytest.mark.parametrize('text, task', [
    ('brand=b3', 'brand'), ('stars>3.5', 'stars')])
def test_one_value_of_several_is_a_label(folder, command, text, task):
  init(command, 'shop.csv', '--labels', text, '--out', 'shop.gin')
  found = trained('shop.gin')
  wanted = [line.split(',') for line in shop()[1:]]
  kept = set(stored('validation')['user_id'].to_pylist())
  share = np.mean([row[3] == 'b3' if task == 'brand' else float(row[6]) > 3.5
                   for row in wanted if row[0] in kept and row[3] != 'NULL' or
                   row[0] in kept and task == 'stars'])
  assert found[task + '/label/mean'] == pytest.approx(share, abs=1e-5)


def test_only_the_first_rows_are_read(folder, command):
  said = init(command, 'shop.csv', '--labels', 'like', '--rows', 250,
              '--random', '--out', 'shop.gin')
  assert said.startswith('The first 250 rows of shop.csv')
  assert sum(stored(part).num_rows for part in splitting.PARTS) == 250


def test_rows_without_a_label_are_left_out(folder, command):
  lines = shop()
  lines[5] = lines[5].rsplit(',', 1)[0] + ','
  (folder / 'shop.csv').write_text('\n'.join(lines) + '\n')
  said = init(command, 'shop.csv', '--labels', 'stars', '--out', 'shop.gin')
  assert 'left out: 1 rows without a label.' in said
  assert sum(stored(part).num_rows for part in splitting.PARTS) == 599


@pytest.mark.slow
def test_amounts_have_losses_of_their_own(folder, command):
  rng = np.random.RandomState(1)
  lines = ['spent,secs,brand'] + ['%.2f,%.2f,b%d' % (
      max(0, rng.normal(0, 1)) ** 4, np.exp(rng.normal(3, 2)), i % 5)
                                  for i in range(400)]
  (folder / 'x.csv').write_text('\n'.join(lines) + '\n')
  init(command, 'x.csv', '--labels', 'spent,secs', '--out', 'x.gin')
  text = (folder / 'x.gin').read_text()
  assert 'loss = @Tweedie()' in text and "loss = 'lognormal'" in text
  assert "EarlyStopping.metric = 'loss'" in text
  found = trained('x.gin')
  assert found['spent/deviance'] > 0 and np.isfinite(found['secs/nll'])


@pytest.mark.slow
def test_classes_and_counts_train(folder, command):
  rng = np.random.RandomState(1)
  brand = rng.randint(5, size=600)
  grade = np.where(rng.random_sample(600) < 0.8, brand % 3, 2)
  (folder / 'x.csv').write_text('\n'.join(
      ['grade,kind,visits,brand'] + ['%s,%d,%d,b%d' % (
          'low mid top'.split()[g], b + 1, rng.poisson(1 + 3 * b), b)
                                     for g, b in zip(grade, brand)]) + '\n')
  init(command, 'x.csv', '--labels', 'grade,kind,visits', '--out', 'x.gin')
  text = (folder / 'x.gin').read_text()
  for line in ['  loss = @grade/MultiClass()',
               'grade/MultiClass.num_classes = 3',
               'kind/MultiClass.num_classes = 5', "  loss = 'poisson'",
               "EarlyStopping.metric = 'loss'"]:
    assert line + '\n' in text
  found = trained('x.gin')
  # As much as is known without the brand is -sum p log p.
  assert found['grade/log_loss'] < 0.95 and found['kind/accuracy'] > 0.9
  assert found['visits/deviance'] < 2
  init(command, 'x.csv', '--labels', 'grade', '--out', 'y.gin')
  assert "EarlyStopping.metric = 'grade/log_loss'" in (
      folder / 'y.gin').read_text()


@pytest.mark.slow
def test_like_columns_are_one_line(folder, command):
  rng = np.random.RandomState(1)
  likes = rng.randint(0, 2, 400)
  numbers = rng.normal(size=(400, 12)) * 2 + likes[:, np.newaxis]
  numbers[:, 3] += 9  # unlike the others
  flags = rng.randint(0, 2, (400, 4))
  lines = ['like,' + ','.join('I%d' % i for i in range(5, 17)) + ',' +
           ','.join('f%02d_x' % i for i in range(8, 12)) + ',last']
  for like, row, bits in zip(likes, numbers, flags):
    lines.append(','.join(map(str, [like] + list(np.round(row, 4)) +
                              list(bits) + ['b%d' % bits[0]])))
  (folder / 'x.csv').write_text('\n'.join(lines) + '\n')
  init(command, 'x.csv', '--labels', 'like', '--out', 'x.gin')
  entries = columns_of('x.gin')
  assert [entry.get('name', entry.get('names')) for entry in entries] == [
      'like', 'I5:I7', 'I8', 'I9:I16', 'f08_x:f11_x', 'last']
  of = np.round(numbers[:, 4:], 4)
  assert entries[3]['mean'] == pytest.approx(of.mean(), abs=1e-3)
  assert entries[3]['std'] == pytest.approx(of.std(), rel=1e-3)
  assert entries[3]['clip'] == (of.min(), of.max())
  assert entries[4]['num_buckets'] == choosing.buckets(['0', '1'])[0]
  assert trained('x.gin')['like/auc'] > 0.7
  spec = gin.get_configurable(feature_spec.FeatureSpec)()
  assert [column.name for column in spec.columns] == lines[0].split(',')


@pytest.mark.parametrize('names, groups', [
    (['a1', 'a2', 'a3'], ['a1:a3']), (['a1', 'a2'], ['a1', 'a2']),
    (['a1', 'a3', 'a4'], ['a1', 'a3', 'a4']),
    (['a9', 'a010', 'a11'], ['a9', 'a010', 'a11']),
    (['a', 'a1', 'a2', 'a3', 'b4'], ['a', 'a1:a3', 'b4'])])
def test_ranges_of_columns(names, groups):
  found = like_columns.grouped([chosen(['a', 'b'] * 9, n) for n in names])
  assert [group.choice.name for group in found] == groups
  assert [m.name for group in found for m in group.members] == names


@pytest.mark.slow
def test_numbers_become_categories(folder, command):
  init(command, 'shop.csv', '--labels', 'like', '--random', '--bucketise',
       'price,stars', '--out', 'shop.gin')
  assert '--bucketise price,stars' in (folder / 'shop.gin').read_text()
  entries = {c['name']: c for c in columns_of('shop.gin')}
  for name in ('price', 'stars'):
    assert entries[name]['kind'] == 'bucketised'
    assert len(entries[name]['boundaries']) == 19
  assert trained('shop.gin')['like/auc'] > 0.9  # stars depend on like


def test_a_rare_label_does_not_decide(folder, command):
  lines = [line + ',%d' % (i % 150 == 7) for i, line in enumerate(shop())]
  (folder / 'shop.csv').write_text('\n'.join(
      [shop()[0] + ',buy'] + lines[1:]) + '\n')
  init(command, 'shop.csv', '--labels', 'like,buy', '--out', 'shop.gin')
  text = (folder / 'shop.gin').read_text()
  assert "EarlyStopping.metric = 'like/auc'" in text
  assert "Exports.best_metric = 'like/auc'" in text


@pytest.mark.slow
def test_large_tables_have_a_row_per_value(folder, command, monkeypatch):
  monkeypatch.setattr(writing, '_MOST_BUCKETS', 100)
  init(command, 'shop.csv', '--labels', 'like', '--out', 'shop.gin')
  assert "include 'gin/ev.gin'" in (folder / 'shop.gin').read_text()
  assert trained('shop.gin')['like/auc'] > 0.7


@pytest.mark.parametrize('args, message', [
    (['--labels', 'lik'], "--labels must name columns of shop.csv, got 'lik': "
     'did you mean like?'),
    (['--labels', 'like,like'], '--labels must name each column once'),
    (['--labels', ','], '--labels must name the columns to predict, got none'),
    (['--labels', 'like', '--time', 'now'], '--time must be a column'),
    (['--labels', 'like', '--time', 'brand'], '--time must be a column of num'),
    (['--labels', 'like', '--user', 'like'], '--user must be a column that is'),
    (['--labels', 'like', '--user', 'brand', '--time', 'at'], '--user and --t'),
    (['--labels', 'like', '--columns', 'a,b'], '--columns must name the 7 col'),
    (['--labels', 'like', '--encoding', 'utf-99'], '--encoding must be one'),
    (['--labels', 'like', '--delimiter', '#'], 'must have a delimiter'),
    (['--labels', 'like', '--test', 'no.csv'], '--test must name existing'),
    (['--labels', 'like', '--test', 'ftp://bucket/x.csv'],
     '--test must be a path or a URI that begins with s3://, gs://, hdfs:// or '
     "file://, got 'ftp://bucket/x.csv'"),
    (['--labels', 'like', '--out', 's3://bucket/x.gin'],
     "--out must be a path, got the URL 's3://bucket/x.gin'"),
    (['--labels', 'brand=b77'], '--labels brand=b77 must name a value of'),
    (['--labels', 'price>1e9'], '--labels price>1e9 must have rows on both'),
    (['--labels', 'like', '--bucketise', 'price,like'],
     '--bucketise must name columns of numbers that are no labels (at, price, '
     "stars), got 'like'"),
    (['--labels', 'like', '--rows', '1'], '--rows must be at least 2'),
])
def test_refuses(folder, command, args, message):
  status, _, error = command('init', 'shop.csv', '--out', 'x.gin', *args)
  assert status == 1 and error.count('\n') == 1
  assert error.startswith('ple-estimator init: ') and message in error
  assert not (folder / 'x.gin').exists()
  assert not [name for name in os.listdir(str(folder)) if 'x_data' in name]


@pytest.mark.parametrize('text, message', [
    ('y,x\n1,a\n1,b\n', "'y' is 1 in all rows, so that there is nothing"),
    ('y,x\n,a\n,b\n', "'y' is empty in all rows"),
    ('y,x\n0,a\n1,a\n', 'A column besides the labels must be a feature'),
    ('0,a\n1,b\n1,a\n', 'has no header, its first row is'),
    ('y,x\n0,a\n1,b,c\n', 'x.csv row 3 must have 2 columns, got 3'),
    ('y\n0\n1\n', 'must have a delimiter'),
    ('', 'x.csv is empty'),
    ('\x1f\x8b', 'compressed by gzip'),
])
def test_refuses_files(folder, command, text, message):
  (folder / 'x.csv').write_bytes(text.encode('latin-1'))
  status, _, error = command(
      'init', 'x.csv', '--labels', 'y', '--out', 'x.gin')
  assert status == 1 and error.count('\n') == 1 and message in error


def test_does_not_overwrite(folder, command):
  args = ['shop.csv', '--labels', 'like', '--random', '--out', 'shop.gin']
  init(command, *args)
  status, _, error = command('init', *args)
  assert status == 1 and 'shop.gin exists' in error
  os.remove('shop.gin')
  assert 'shop_data exists' in command('init', *args)[2]
  init(command, *(args + ['--force']))


def test_bad_rows_can_be_left_out(folder, command):
  with open('shop.csv', 'a') as f:
    f.write('too,few\n')
  args = ['shop.csv', '--labels', 'like', '--out', 'shop.gin']
  assert '--skip-bad-rows leaves' in command('init', *args)[2]
  assert '1 rows with another number of columns' in init(
      command, *(args + ['--skip-bad-rows']))


def test_a_file_of_another_format_is_refused(folder, command):
  pa.parquet.write_table(pa.table({'like': [0, 1]}), 'x.parquet')
  with pytest.raises(errors.UserError, match='x.parquet must be CSV as the'):
    options = collections.namedtuple(
        'Options', 'labels columns encoding delimiter rows skip_bad_rows')
    files = rows.Files(['shop.csv'], options([], None, None, None, None, False))
    list(files.read(['x.parquet']))


# --------------------------------------------------------------- remote files


def copies(folder):
  """What the Parquet files of a folder hold, a dict by their names."""
  return {name: stored(os.path.splitext(name)[0], folder).to_pydict()
          for name in os.listdir(folder)}


def shop_of(kind, store):
  """Writes shop.csv as a file of a kind, here and to a store: (name, URI)."""
  with open('shop.csv', 'rb') as f:
    data = f.read()
  if kind == 'shop.parquet':
    pa.parquet.write_table(pa.csv.read_csv('shop.csv'), kind,
                           row_group_size=100)
  elif kind == 'shop.csv.gz':
    with gzip.open(kind, 'wb') as f:
      f.write(data)
  with open(kind, 'rb') as f:
    return kind, store.put('rows/init/' + kind, f.read())


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['shop.csv', 'shop.csv.gz', 'shop.parquet'])
def test_files_of_a_store_are_read_as_of_a_disk(folder, command, store, kind):
  for i, path in enumerate(shop_of(kind, store)):
    init(command, path, '--labels', 'like', '--out', '%d.gin' % i)
  assert copies('0_data') == copies('1_data')
  here, there = [(folder / name).read_text().partition('FeatureSpec')[2]
                 for name in ('0.gin', '1.gin')]
  assert here == there


@pytest.mark.slow
def test_files_of_a_store_are_trained_where_they_are(folder, command, store):
  name, uri = shop_of('shop.csv', store)
  init(command, uri, '--validation', 'file://%s' % (folder / name), '--labels',
       'like', '--out', 'x.gin')
  assert "train/CsvInput.files = 's3://rows/init/shop.csv'" in (
      folder / 'x.gin').read_text()
  assert trained('x.gin')['like/auc'] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['shop.csv', 'shop.parquet'])
def test_rows_behind_a_broken_connection_are_read_once(
    folder, command, store, kind, monkeypatch, caplog):
  (folder / 'shop.csv').write_text('\n'.join(shop(6000)) + '\n')
  name, uri = shop_of(kind, store)
  init(command, name, '--labels', 'like', '--out', '0.gin')
  monkeypatch.setattr(rows, '_BLOCK_BYTES', 1 << 15)
  monkeypatch.setattr(rows, '_BATCH_ROWS', 1000)
  monkeypatch.setattr(remote, '_FIRST_WAIT_SECS', 0)
  proxy = object_store.Proxy(store.address)
  monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://' + proxy.address)
  read = rows.Files.read

  def cut(files, paths):  # each time that all rows are read
    proxy.cuts, proxy.after = 2, 50000
    return read(files, paths)

  monkeypatch.setattr(rows.Files, 'read', cut)
  init(command, uri, '--labels', 'like', '--out', '1.gin')
  proxy.close()
  assert proxy.cuts == 0
  assert sum('NETWORK_CONNECTION' in line for line in caplog.messages) >= 2
  assert copies('0_data') == copies('1_data')


# -------------------------------------------------------------- from end to end


def walk():
  """The section of README.md: its commands, and what it shows of them."""
  with open(os.path.join(conftest.ROOT, 'README.md')) as f:
    section = f.read().partition('\n## Your own data\n')[2]
  section = section.partition('\n## ')[0].replace('\\\n', '')
  return section, re.findall(
      r'^    ((?:python tools/|ple-estimator ).*)$', section, re.M)


def test_the_walk_of_the_readme(tmp_path, monkeypatch, capfd, run_here):
  section, commands = walk()
  words = [shlex.split(line) for line in commands]
  assert [line[:2] for line in words] == [
      ['python', 'tools/make_mtl_data.py'], ['ple-estimator', 'init'],
      ['ple-estimator', '--gin_file=my/shop.gin'],
      ['ple-estimator', '--gin_file=my/shop.gin']]
  monkeypatch.chdir(tmp_path)
  made = conftest.tool('make_mtl_data', *(words[0][2:] + [
      '--train', 3000, '--validation', 100, '--test', 100]), cwd='.')
  assert made.returncode == 0, made.stderr
  assert words_lib.run('init', words[1][2:]) == 0
  said = capfd.readouterr().out
  # The table, but for what depends on the number of rows.
  table = [line.split()[:2] for line in re.search(
      r'^    (column .*?)\n\n', section, re.M | re.S).group(1).splitlines()]
  _, head, rest = said.partition('column ')
  assert table == [line.split()[:2] for line in (
      head + rest.partition('\n\n')[0]).splitlines()]
  assert '\n'.join(commands[2:]) in said.replace('\n  ', '\n')
  for line in words[2:]:
    done = run_here(*(line[1:] + [
        '--gin_bindings=' + binding for binding in SMALL + [
            'EPOCHS = 1']]))
    assert done.returncode == 0, done.stderr
  with open('result/shop/test.json') as f:
    assert 0 < json.load(f)['click/auc'] < 1


def of_the_test(path, cwd, run_cli):
  """Trains and tests a .gin file as a user does; returns test.json."""
  env = dict(os.environ, PYTHONPATH=conftest.ROOT)
  for mode in ('train', 'test'):
    done = run_cli('--gin_file=' + path, '--mode=' + mode, cwd=str(cwd),
                   env=env)
    assert done.returncode == 0, done.stderr
  name = os.path.splitext(path)[0]
  with open(os.path.join(str(cwd), 'result', name, 'test.json')) as f:
    return json.load(f)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists(ADULT), reason='needs the Adult rows')
def test_adult_census(tmp_path, monkeypatch, command, run_cli):
  # Logistic regression reaches 0.8594 and 0.8692, gradient boosting 0.8967 and
  # 0.8840 (scikit-learn).
  monkeypatch.chdir(tmp_path)
  init(command, os.path.join(ADULT, 'adult_train.csv'), '--test',
       os.path.join(ADULT, 'adult_test.csv'), '--labels',
       'income_50k,never_married', '--out', 'adult.gin')
  found = of_the_test('adult.gin', tmp_path, run_cli)
  assert found['income_50k/auc'] > 0.885 and found['never_married/auc'] > 0.875


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists(conftest.REAL_ROWS),
                    reason='needs the rows of Taobao')
def test_rows_of_taobao(tmp_path, monkeypatch, command, run_cli):
  monkeypatch.chdir(tmp_path)
  names = [c['name'] for c in taobao_columns()]
  init(command, conftest.REAL_ROWS, '--columns', ','.join(names), '--labels',
       'clk,buy', '--out', 'taobao.gin')
  found = of_the_test('taobao.gin', tmp_path, run_cli)
  # 55 clicks say little of an AUC.
  assert found['clk/log_loss'] < 0.35 and found['global_step'] > 50


@pytest.mark.slow
def test_generated_rows(made, tmp_path, monkeypatch, command, run_cli):
  # The true probabilities have 0.925 and 0.969.
  monkeypatch.chdir(tmp_path)
  names = [c['name'] for c in taobao_columns()]
  init(command, made / 'taobao_train_data', '--validation',
       made / 'taobao_validation_data', '--test', made / 'taobao_test_data',
       '--columns', ','.join(names), '--labels', 'clk,buy', '--out', 'x.gin')
  found = of_the_test('x.gin', tmp_path, run_cli)
  assert found['clk/auc'] > 0.9 and found['buy/auc'] > 0.94


def taobao_columns():
  """The columns of gin/taobao.gin, a list of dicts."""
  config.load('gin/base.gin')
  return gin.query_parameter('FeatureSpec.columns')
