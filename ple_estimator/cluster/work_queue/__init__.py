"""The work queue: slices of the training rows for whichever process is free.

Imports the roles of the cluster, engine and below.
"""
