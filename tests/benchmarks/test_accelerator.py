"""The benchmarks of a device, run on the CPU: what they need, what they keep, and what they would report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks.accelerator import shapes
from tests.benchmarks.accelerator.checks import Question, compare
from tests.benchmarks.accelerator.output import Output
from tests.benchmarks.accelerator.run import main
from tests.benchmarks.accelerator.times import Bench, Clock, Plain, new_timings

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TINY = shapes.make_case("6 assets", "tiny", shapes.TINY_SHAPES["6 assets"])

# Hides every installed package but those of a plain image for accelerators, and what they themselves need.
PLAIN_IMAGE = """
import re, runpy, sys
from importlib import metadata

def needs(name, found):
    name = re.sub("[-_.]+", "-", name).lower()
    if name in found:
        return found
    found.add(name)
    try:
        requires = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return found
    for one in requires:
        if "extra ==" not in one:
            needs(re.match("[A-Za-z0-9._-]+", one)[0], found)
    return found

image = set()
for name in ("torch", "numpy", "pandas", "pyarrow", "safetensors", "rich", "pyyaml"):
    needs(name, image)
there = {
    module
    for module, owners in metadata.packages_distributions().items()
    if any(re.sub("[-_.]+", "-", owner).lower() in image for owner in owners)
}
installed = set(metadata.packages_distributions()) - {"kronos", "kronos_strategies", "tests"}

class PlainImage:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in installed and top not in there:
            raise ModuleNotFoundError(f"a plain image has no {name}", name=name)

sys.meta_path.insert(0, PlainImage())
for gone in ("cyclopts", "huggingface_hub", "plotly", "pytest"):
    try:
        __import__(gone)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{gone} is still there")
sys.argv = ["tests.benchmarks", *sys.argv[1:]]
runpy.run_module("tests.benchmarks", run_name="__main__")
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # networks this small only wait for a second one


@pytest.mark.slow
def test_one_command_checks_and_times_with_the_packages_of_a_plain_image(tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--tiny", "--rounds", "1", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_IMAGE, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert len(found["checks"]) == 6
    assert all(check["holds"] for check in found["checks"])
    timed = {(one["case"], one["variant"]): one for one in found["timings"]}
    assert timed.keys() == {(case, way) for case in shapes.TINY_SHAPES for way in ("float32", "bfloat16")}
    for one in timed.values():
        assert one["seconds"] > 0
        assert one["ratio"] == pytest.approx(one["plain_seconds"] / one["seconds"])
    assert timed["6 assets", "float32"]["scale"] == 2  # half of the paths by upstream's algorithm
    assert "(from 1/2)" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.md").read_text() in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sizes", "huge"], "There is no size 'huge'. Pass some of mini, small, base."),
        (["--cases", "no assets"], "There is no case 'no assets'. Pass some of 50 assets, 300 assets"),
        (
            ["--variants", "bfloat16 compiled"],
            "There is no variant 'bfloat16 compiled'. Pass some of float32",
        ),
        (["--rounds", "0"], "--rounds 0 measures nothing. Pass at least 1."),
        (["--device", "abacus"], "device 'abacus' is not available here"),
    ],
)
def test_unknown_sizes_cases_and_variants_are_refused_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--device", "cpu", "--output", str(tmp_path / "out"), *arguments]) == 2
    shown = capsys.readouterr().out
    assert sentence in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_beyond_the_time_limit_nothing_is_started_and_what_was_left_out_is_named(tmp_path: Path) -> None:
    assert main(["--device", "cpu", "--tiny", "--time-limit", "0", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["checks"] == found["timings"] == []
    assert "several chunks and one" in found["left_out"]
    assert "tiny, 1 asset, bfloat16" in found["left_out"]
    assert "Not measured within the time limit: CPU and device" in (tmp_path / "results.md").read_text()


def test_a_run_cut_short_anywhere_leaves_all_that_was_measured(tmp_path: Path) -> None:
    class Cut(Exception):
        pass

    for saves in (1, 2, 3, 4):  # two first forecasts, upstream's algorithm, the first of ours
        output = Output(tmp_path, {"device": "a card", "date": "today", "commit": "", "torch": "2"})
        output.timings = new_timings(TINY, ["float32", "bfloat16"])

        done: list[int] = []

        def save(output: Output = output, done: list[int] = done, last: int = saves) -> None:
            output.save()
            done.append(1)
            if len(done) == last:
                raise Cut

        with pytest.raises(Cut):
            Bench(CPU, 1, Clock(None), save, plain_rows=2).measure(TINY, output.timings)
        first, second = json.loads((tmp_path / "results.json").read_text())["timings"]
        assert first["first"] > 0
        assert (second["first"] is not None) == (saves > 1)
        assert (first["plain_seconds"] is not None) == (saves > 2)
        assert (first["seconds"] is not None) == (saves > 3)
        assert second["seconds"] is None
        assert "6 assets, 12+3, 2 paths" in (tmp_path / "results.md").read_text()
        assert not list(tmp_path.glob("*.part"))


def test_turns_end_with_the_time_limit_but_what_was_started_has_one() -> None:
    timings = new_timings(TINY, ["float32"])
    Bench(CPU, 5, Clock(0), lambda: None, plain_rows=2).measure(TINY, timings)
    assert len(timings[0].runs) == len(timings[0].plain_runs) == 1


def test_the_clock_is_read_when_the_device_has_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def noted(name: str, value: object = None) -> Callable[..., object]:
        return lambda *_: events.append(name) or value

    monkeypatch.setattr("torch.cuda.synchronize", noted("synchronize"))
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", noted("reset"))
    monkeypatch.setattr("torch.cuda.memory_allocated", noted("before", 100))
    monkeypatch.setattr("torch.cuda.max_memory_allocated", noted("peak", 350))
    monkeypatch.setattr("time.perf_counter", noted("clock", 1.0))
    bench = Bench(torch.device("cuda"), 1, Clock(None), lambda: None)
    assert bench._timed(noted("call")) == (0.0, 250)
    assert events == ["synchronize", "reset", "before", "clock", "call", "synchronize", "clock", "peak"]


def test_upstreams_algorithm_takes_fewer_assets_until_memory_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def forecast(self: Plain, case: shapes.Case) -> None:
        if case.name == "warm-up":
            return
        tried.append(case.rows)
        if case.rows > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Plain, "_forecast", forecast)
    timings = new_timings(TINY, ["float32"])
    Bench(CPU, 2, Clock(None), lambda: None).measure(TINY, timings)
    assert tried == [12, 6, 4, 4]
    assert timings[0].plain_rows == 4
    assert timings[0].scale == 3
    assert len(timings[0].plain_runs) == len(timings[0].runs) == 2


def test_a_variant_that_fails_is_noted_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make = shapes.make_predictor

    def refuses(size: str, device: torch.device, variant: str = "float32") -> object:
        if variant == "bfloat16":
            raise RuntimeError("Failed to find a C compiler.\nhints")
        return make(size, device, variant)

    monkeypatch.setattr("tests.benchmarks.accelerator.times.make_predictor", refuses)
    output = Output(tmp_path, {"device": "a card", "date": "today", "commit": "abc", "torch": "2"})
    output.timings = new_timings(TINY, ["float32", "bfloat16"])
    Bench(CPU, 1, Clock(None), output.save, plain_rows=2).measure(TINY, output.timings)
    row = next(line for line in (tmp_path / "results.md").read_text().splitlines() if "6 assets" in line)
    assert "failed: Failed to find a C compiler. |" in row
    assert "(from 1/6)" in row
    assert output.timings[0].ratio is not None


def paths(*factors: float) -> np.ndarray:
    """1,000 paths of three bars; `factors` multiply the last bars of the first paths."""
    made = np.random.default_rng(0).uniform(5, 50, (10, 100, 3, 6)).astype(np.float32)
    made.reshape(-1, 3, 6)[: len(factors), -1] *= np.array(factors)[:, None]
    return made


@pytest.mark.parametrize(
    ("demand", "factors", "holds"),
    [
        ("equal bits", (), True),
        ("equal bits", (1 + 2e-7,), False),
        ("close", (1 + 5e-5,) * 900, True),
        ("close", (1.01,) * 5, True),  # other tokens where a draw met a boundary
        ("close", (1.01,) * 6, False),
        ("close", (np.nan,), False),
        ("close", (np.inf,), False),
    ],
)
def test_a_check_passes_if_its_requirement_is_met(
    demand: str, factors: tuple[float, ...], holds: bool
) -> None:
    check = compare("some paths", demand, paths(*factors), paths())
    assert check.holds == holds
    assert check.paths == 1000
    assert check.record()["holds"] == holds


def test_a_check_that_fails_to_run_is_part_of_the_table_and_does_not_hold(tmp_path: Path) -> None:
    def ask() -> tuple[np.ndarray, np.ndarray]:
        raise RuntimeError("CUDA error: no kernel image\nhints")

    check = Question("compiled and eager", "close", ask).answer()
    assert not check.holds
    output = Output(tmp_path, {"device": "a card", "date": "today", "commit": "abc", "torch": "2"})
    output.checks.append(check)
    assert "| compiled and eager | | | | to 0.0001 | **FAILS** CUDA error: no kernel image |" in (
        output.markdown().replace("|  |", "| |").replace("|  |", "| |")
    )


def test_more_assets_than_are_simulated_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "DISTINCT", 3)
    windows = shapes.make_windows.__wrapped__(8, 5, 2)
    assert len(windows) == windows.index.nunique() == 8
    assert windows.index.get_level_values("datetime").nunique() == 1
    np.testing.assert_array_equal(windows.values[:3], windows.values[3:6])
