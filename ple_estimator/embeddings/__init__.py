"""Embeddings: the vectors of the ids of a batch.

`hashed` has tables of a fixed height. `keyed` has tables that get a row for
each value as training goes on; `keyed_table` is the training step of these and
names the other modules that they consist of, `admission` has their filters and
evictions. `deeprec` has DeepRec's own tables, which can take their place.
`attention` combines the items of a list by how they go with another column.
Imports data and below.
"""
