"""Run the benchmarks: `python -m tests.benchmarks`; with `--device`, those of one device (see `accelerator`)."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if any(argument.split("=")[0] == "--device" for argument in sys.argv[1:]):
        from tests.benchmarks.accelerator.run import main

        sys.exit(main(sys.argv[1:]))
    # Imported here: an image for accelerators has neither Cyclopts nor what the other benchmarks compare with.
    from kronos.utils import run_command
    from tests.benchmarks.processor import app

    run_command(app)
