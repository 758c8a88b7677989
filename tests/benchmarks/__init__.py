"""How fast forecasts are compared with upstream's algorithm: `python -m tests.benchmarks`.

`cases` has what is forecast, `plain` is upstream's algorithm, `flops` counts what either has to compute, `rates`
measures how fast the machine multiplies matrices, `measure` and `memory` measure times and peaks, `growth` varies
one size at a time, `results` keeps it all as JSON and `table` prints it. `training` compares optimizer steps with
those of `plain_training`; `processor` runs all of that. `accelerator` checks and times forecasts on one device.
Nothing here asserts a time.
"""
