"""The commands that ask whether a model can be trusted.

`check` compares a SavedModel with predictions, `importance` says what each task
needs of the columns, and `explain` why single rows are predicted as they are.
"""
