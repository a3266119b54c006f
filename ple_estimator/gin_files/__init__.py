"""Reading .gin files: parsed by gin's own parser, each once, put together.

`reader` walks through files and what they include, `applying` has gin bind,
`checks` refuses what gin lets pass, `messages` says what is wrong on one line,
`operative` reads what a run was bound to. config.py is the way in. Imports
errors and files only.
"""
