"""`ple-estimator report` and `compare`: what runs did, from what they wrote.

`runs` reads result folders, with `configs`, `events`, `importances` (which also
draws them) and `rows`; `measures`, `resampling`, `comparisons` and `curves`
compute; `overview`, `learning`, `quality`, `inside`, `costs` and `summaries`
make a `document` of sections, tables and figures (`charts`), which `page`
writes as HTML and `terminal` as text; `command` and `compare` are the two
commands. TensorFlow is imported only to read a checkpoint.
"""
