"""What is computed from a batch: experts, gates, towers, tasks, metrics.

`ple` is PLE and its ablations (shared-bottom, MMoE, CGC); `mlp` what experts,
gates and towers are made of; `tasks` losses and metrics per task. Imports
engine and below.
"""
