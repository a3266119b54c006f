"""Asks a SavedModel, knowing nothing of the package that has written it.

python serving_client.py SAVED_MODEL ROWS prints the answers as JSON; ROWS is a
file of JSON with a list of values by column.
"""

import json
import sys

import tensorflow.compat.v1 as tf


def answers(path, rows):
  """What a SavedModel says of rows as columns, and as Examples.

  Args:
    path: str, the folder of the SavedModel.
    rows: dict of column name to list of str or int.

  Returns:
    [columns, parsed]: two dicts of name to list.
  """
  with tf.Session(graph=tf.Graph()) as sess:
    made = tf.saved_model.loader.load(sess, ['serve'], path)
    # It is to load where the ops of the package are not known.
    assert not [node.name for node in sess.graph_def.node
                if node.op.startswith('Ple')]

    def ask(name, feeds):
      signature = made.signature_def[name]
      found = sess.run(
          {k: v.name for k, v in signature.outputs.items()},
          {signature.inputs[k].name: v for k, v in feeds.items()})
      return {k: v.tolist() for k, v in found.items()}

    columns = ask('serving_default', rows)
    name, = [n for n in made.signature_def if n.startswith('examples')
             and n.endswith('serving_default')]
    examples = _examples(rows)
    return [columns, ask(name, {
        made_input: examples for made_input in made.signature_def[name].inputs
    })]


def _examples(rows):
  """Rows as serialized Examples, which leave out what is missing."""
  return [tf.train.Example(features=tf.train.Features(feature={
      k: _feature(v[i]) for k, v in rows.items() if v[i] != ''
  })).SerializeToString() for i in range(len(next(iter(rows.values()))))]


def _feature(value):
  if isinstance(value, int):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
  return tf.train.Feature(
      bytes_list=tf.train.BytesList(value=[value.encode()]))


if __name__ == '__main__':
  with open(sys.argv[2]) as rows_file:
    json.dump(answers(sys.argv[1], json.load(rows_file)), sys.stdout)
