"""How the ids of a batch become vectors.

`hashed` are tables of a fixed height; `keyed` are tables with a row per value,
which grow (`keyed_table`), with filters and evictions (`admission`); `deeprec`
puts DeepRec's own forms in their place. Imports data and below.
"""
