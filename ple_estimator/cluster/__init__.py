"""How the processes of a cluster share a run.

`roles` reads TF_CONFIG; `watch` ends a process that makes no progress;
`parameter_servers` starts and ends them; `marker` is the file that says that
training is over; `work_queue` hands out slices of the rows. Imports engine and
below.
"""
