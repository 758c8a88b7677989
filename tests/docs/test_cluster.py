"""docs/cluster.md: its script starts processes, so that it runs as a user runs it, from a file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT, blocks_of

PAGE = ROOT / "docs" / "cluster.md"


@pytest.mark.integration
def test_the_script_of_the_page_fills_a_store_with_two_processes(tmp_path: Path) -> None:
    (code,) = (block.code for block in blocks_of(PAGE) if block.language == "python")
    (tmp_path / "script.py").write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "43 dates by 2 processes\n"
    assert len(list(tmp_path.glob("forecasts/*/*/date=*/*.parquet"))) == 43
