"""The TensorFlow that a run is on, and the C++ kernels beside it.

`compat` holds every call that differs between TensorFlow 1.15, 2.15 and
DeepRec, and every use of what TensorFlow keeps private. `native` builds, loads
and calls the kernels of `kernels/`. `forms` has the Engine of a run, which says
what of DeepRec is used. `purpose` says what one graph is built for, and
`collector` keeps Python's garbage collector from searching graphs while they
are built. Imports errors and files only.
"""
