"""What `ple-estimator <word>` does beside training.

One module per word, each with `main(arguments)`; `words` finds the module.
Imports everything but run, which calls it.
"""
