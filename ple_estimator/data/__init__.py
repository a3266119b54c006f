"""From files to batches: columns, readers, shuffling, inputs; predictions.

Imports network, cluster, engine and below.
"""
