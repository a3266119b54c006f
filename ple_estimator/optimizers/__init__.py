"""Optimizers, learning-rate schedules, and the training op.

A .gin file names what is in `factories`. `update_rules` has the optimizers that
TensorFlow lacks, `deeprec_optimizers` puts DeepRec's own in their place, and
`train_op` clips and applies gradients. Imports embeddings and below.
"""
