"""The network: experts, gates, towers, and the loss and metrics of tasks.

`ple` is PLE and its ablations (shared-bottom, MMoE, CGC). `mlp` has the dense
layers that experts, gates and towers consist of. `tasks` has the loss and the
metrics of one task, `objective` those of all tasks together, and `gradients`
differentiates them in slices of a batch. Imports engine and below.
"""
