"""The network: experts, gates, towers, and the loss and metrics of tasks.

`ple` is PLE and its ablations (shared-bottom, MMoE, CGC). `mlp` has the dense
layers that experts, gates and towers consist of, and `transfer` hands what a
task has found out to the next one. `losses` has what a task may predict,
`tasks` the tasks, `objective` the losses and metrics of all tasks together, and
`gradients` differentiates them in slices of a batch. Imports engine and below.
"""
