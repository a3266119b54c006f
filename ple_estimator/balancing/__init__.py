"""Balancing: how much the loss of each task counts in a step of training.

Each class here is bound to `Model.balancing` and finds the weights of the
losses, or changes the gradients of the tasks, while a model is trained. `batch`
differentiates the losses, together or each for itself, and finds the weights
that several tasks share. Imports embeddings and below.
"""
