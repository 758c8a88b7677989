"""One device: does it compute the right paths, and how fast: `python -m tests.benchmarks --device cuda`.

`checks` compares paths with those of the CPU, of upstream's algorithm and of other ways to ask for them; `times`
takes seconds and peak memory, interleaved with upstream's algorithm; `output` keeps both as JSON and Markdown,
written again after each measurement; `run` is the command. Needs torch, numpy, pandas, pyarrow, safetensors, rich
and PyYAML only.
"""
