"""The command `ple-estimator sweep`: trains many experiments and compares them.

A trial is one combination of what is swept. It is trained once per seed, each
time as a process and in a folder of its own; such a training is a run.
"""
