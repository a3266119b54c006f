"""From files to batches: columns, readers, shuffling, input_fns, predictions.

Imports network, cluster, engine and below.
"""
