"""Metrics of predictions, their intervals, and comparisons of two models.

All of it works on numpy arrays of whole files or evaluations, exactly and
without TensorFlow: `ranking` asks how well scores order rows, `probabilities`
whether they are right as numbers, `intervals` how far chance reaches, `paired`
whether two models differ on the same rows, and `seeds` whether two
configurations differ by more than their seeds. The metrics of every evaluation
that a graph sums up batch by batch are in network.metrics. Imports errors.
"""
