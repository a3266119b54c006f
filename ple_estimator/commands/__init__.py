"""The commands `ple-estimator <word>`, for everything beside training.

One module per word, each with `main(arguments)`; `words` finds the module.
Imports everything but run, which calls it.
"""
