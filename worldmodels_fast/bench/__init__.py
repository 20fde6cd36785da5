"""`worldmodels-fast bench`: our kernels beside their rivals, each checked before it is timed.

`cases` says what is measured, a file for each rival and `ours` who takes part, `check` what a right
answer is, `processes` and `timing` how times are taken, `dreams`, `limits`, `growth` and
`single_ops` the sections, `tables` and `figures` what is written. `command.bench` runs it all.

This is the only part of the package, beside the tests, that imports `reference`. Nothing else of
the package imports this.
"""
