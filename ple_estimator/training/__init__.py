"""Training, evaluation, checkpoints and exports of one run.

`trainer` runs the loop that the role of a process asks for, and ends the run.
`estimator` builds the tf.estimator.Estimator, and `hooks` are called at its
steps. `saver`, `incremental` and `compatibility` write and read checkpoints,
`evaluation` evaluates and exports them, at the `intervals` and by the
`comparison` that early stopping and the best checkpoint go by. `model_dir` and
`disk` see to the folder that a run writes to. Imports optimizers and below.
"""
