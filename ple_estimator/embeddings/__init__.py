"""How the ids of a batch become vectors.

`hashed` has tables of a fixed height. `keyed` has tables that grow by one row
per value (`keyed_table`), with filters and evictions (`admission`). `deeprec`
puts DeepRec's embedding variables in their place. Imports data and below.
"""
