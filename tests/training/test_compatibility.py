"""What a checkpoint is compared with: files of vocabularies, long bindings."""

import pytest
import tensorflow.compat.v1 as tf

from ple_estimator import errors
from ple_estimator.data import column_kinds
from ple_estimator.training import compatibility


def listed(path, name='word'):
  return [column_kinds.Vocabulary(name, str(path), 4),
          column_kinds.Vocabulary('other', ['a', 'b'], 4)]


def checkpoint(folder):
  """Writes a checkpoint of one variable; returns its path."""
  tf.get_variable('x', [], initializer=tf.zeros_initializer())
  with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    return tf.train.Saver().save(sess, str(folder / 'model.ckpt'), 1)


def test_a_file_with_other_values_is_another_model(tmp_path):
  words, model_dir = tmp_path / 'words.txt', tmp_path / 'model'
  model_dir.mkdir()
  words.write_text('a\nb\n')
  check = compatibility.check_vocabularies
  check(str(model_dir), listed(words), write=True)
  words.write_text('b\na\n')
  check(str(model_dir), listed(words), write=True)  # nothing is trained yet
  path = checkpoint(model_dir)
  check(str(model_dir), listed(words))
  moved = tmp_path / 'moved.txt'
  moved.write_text('b\r\na')
  check(str(model_dir), listed(moved))  # the values count, not the file
  words.write_text('a\nb\n')
  for of in (None, path):
    with pytest.raises(errors.UserError, match="trained with other values of "
                       "the column 'word', whose vocabulary was .*words.txt"
                       ) as raised:
      check(str(model_dir), listed(words), of, write=True)
    assert '\n' not in str(raised.value)
  check(str(model_dir), listed(words, 'new'))  # another column


def test_damaged_digests_are_told_and_made_again(tmp_path, caplog):
  words, model_dir = tmp_path / 'words.txt', tmp_path / 'model'
  model_dir.mkdir()
  words.write_text('a\nb\n')
  checkpoint(model_dir)
  noted = model_dir / 'vocabularies.json'
  for cut in ('{"columns": {"wo', '[1]'):
    noted.write_text(cut)
    caplog.clear()
    compatibility.check_vocabularies(str(model_dir), listed(words), write=True)
    assert 'vocabularies.json' in caplog.text and 'as missing' in caplog.text
    assert '"word"' in noted.read_text()


def test_a_checkpoint_elsewhere_is_not_compared(tmp_path):
  words, model_dir = tmp_path / 'words.txt', tmp_path / 'model'
  model_dir.mkdir()
  words.write_text('a\nb\n')
  compatibility.check_vocabularies(
      str(model_dir), listed(words), write=True)
  words.write_text('b\na\n')
  compatibility.check_vocabularies(
      str(model_dir), listed(words), checkpoint(tmp_path))


def test_of_long_lists_only_what_differs_is_shown():
  same = "{'name': 'a', 'kind': 'hashed', 'num_buckets': 10, 'dim': 16}"
  then = "[%s,\\\n {'name': 'b', 'boundaries': (0, 1)}]" % same
  now = "[%s,\\\n {'name': 'b', 'boundaries': (0, 2)}]" % same
  assert compatibility._differing(then, now) == (
      "[{'name': 'b', 'boundaries': (0, 1)}]",
      "[{'name': 'b', 'boundaries': (0, 2)}]")
  for pair in [('1', '2'), (then, '[%%MACRO, %s]' % same), ('x ' * 50, now)]:
    assert compatibility._differing(*pair) == pair
