"""How fast forecasts are compared with upstream's algorithm: `python -m tests.benchmarks`.

`cases` says what is forecast, `plain` is upstream's algorithm, `flops` counts what either has to compute, `rates` asks
the machine how fast it multiplies matrices, `measure` and `memory` take the times and the peaks, `growth` varies
one size at a time, `results` keeps it all as JSON and `table` prints it. `training` sets optimizer steps against
those of `plain_training`; `processor` runs all of that. `accelerator` checks and times forecasts on one device.
Nothing here asserts a time.
"""
