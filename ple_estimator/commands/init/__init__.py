"""What `ple-estimator init` consists of: from files to a first .gin file.

The files are looked at (sniffing, rows), each column is described and gets a
kind (describing, choosing), labels get tasks, rows are cut into parts, and all
of it is written as a .gin file with the reasons as comments.
"""
