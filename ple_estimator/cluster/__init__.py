"""How the processes of a cluster share a run.

`roles` reads TF_CONFIG; `watch` ends a process that waits for others in vain;
`parameter_servers` start and end; `marker` is the file that says that training
is over; `work_queue` hands out slices of the rows. Imports engine and below.
"""
