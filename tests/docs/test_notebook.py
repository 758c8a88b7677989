"""docs/quickstart.ipynb runs from start to end, and what the page shows is what it gives."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")
pytest.importorskip("nbclient")

import nbformat
from nbclient import NotebookClient

from .pages import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
LARGEST = 300_000  # bytes


def outputs(notebook: object) -> list[list[str]]:
    """Types of the outputs of each cell of code; what goes to stderr is not shown."""
    return [
        sorted(
            kind
            for output in cell.outputs
            for kind in output.get("data", {output.get("name", ""): ""})
            if kind != "stderr"
        )
        for cell in notebook.cells  # type: ignore[attr-defined]
        if cell.cell_type == "code"
    ]


def texts(notebook: object) -> dict[str, str]:
    """Output of the last line of each cell, by the start of its source."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]  # type: ignore[attr-defined]
    return {cell.source.split(" ")[0]: cell.outputs[-1].data["text/plain"] for cell in cells}


def test_the_notebook_is_small_and_has_its_outputs() -> None:
    assert NOTEBOOK.stat().st_size < LARGEST
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    kinds = outputs(notebook)
    assert all(kinds)
    assert sum("image/png" in each for each in kinds) == 1
    assert not any("http" in cell.source for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.slow
@pytest.mark.integration
def test_the_notebook_runs_from_start_to_end_and_gives_the_outputs_that_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shown = nbformat.read(NOTEBOOK, as_version=4)
    run = nbformat.read(NOTEBOOK, as_version=4)
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    client = NotebookClient(
        run, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert outputs(run) == outputs(shown)
    pictures = [
        out.data["image/png"]
        for cell in run.cells
        for out in cell.get("outputs", [])
        if "image/png" in out.get("data", {})
    ]
    assert base64.b64decode(pictures[0]) == (tmp_path / "forecast.png").read_bytes()
    assert texts(run)["forecast.paths.shape"] == texts(shown)["forecast.paths.shape"] == "(1, 32, 10, 6)"
