"""The commands that ask whether a model can be trusted.

`check` compares a SavedModel with predictions.
"""
