"""Turns files into batches, and writes predictions.

Imports network, cluster, engine and below.
"""
