"""Optimizers and learning-rate schedules, and the training op made of them.

`factories` are what a .gin file names; `update_rules` what TensorFlow does not
have; `train_op` clips and applies gradients. Imports embeddings and below.
"""
