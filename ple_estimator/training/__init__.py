"""A run in time: loops, checkpoints, evaluations, exports.

Imports optimizers and below.
"""
