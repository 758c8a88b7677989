"""backtests/head_after_costs.py from start to end, on a small simulated market."""

import os
from pathlib import Path

import pytest

pytest.importorskip("qlib")

from tests.kronos_strategies.warm import run_warm

pytestmark = pytest.mark.integration
SCRIPT = Path(__file__).parents[3] / "backtests" / "head_after_costs.py"


@pytest.fixture(scope="module")
def blocks(small_store, tmp_path_factory) -> dict[str, dict[str, list[str]]]:
    """The tables of the script: title -> setting -> cells."""
    output = tmp_path_factory.mktemp("head_after_costs")
    span = ("--start", "2023-03-01", "--end", "2023-06-16", "--market", "all", "--every", "5")
    grid = ("--hold", "5", "10", "--topk", "4", "8", "--rank-buffer", "0", "3", "--qlib", "5:4:0", "10:8:3")
    words = [
        SCRIPT, "--data", small_store, "--store", output / "store", *span, *grid, "--device", "cpu",
        "--output", output,
    ]  # fmt: skip
    done = run_warm(words, output, {**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Best of 8 settings" in done.stdout
    found: dict[str, dict[str, list[str]]] = {}
    for line in (output / "head_after_costs.md").read_text().splitlines():
        cells = [cell.strip(" *") for cell in line.split("|")[1:-1]]
        if cells and cells[0].endswith("holding, instruments, buffer"):
            title = cells[0].partition(":")[0]
        elif cells and cells[0] != "---":
            found.setdefault(title, {})[cells[0]] = cells[1:]
    return found


def test_every_setting_is_traded_and_the_thirds_as_well(blocks):
    assert len(blocks["all"]) == 8
    thirds = [name for name in blocks if "third" in name]
    assert thirds == ["least traded third", "middle third", "most traded third"]
    assert len({tuple(next(iter(blocks[name].values()))) for name in thirds}) == 3


def test_more_names_and_a_longer_holding_trade_less(blocks):
    traded = {name: float(cells[5].rstrip("%")) for name, cells in blocks["all"].items()}
    assert traded["10 days, 4, 0"] < traded["5 days, 4, 0"]
    assert traded["5 days, 4, 3"] < traded["5 days, 4, 0"]


def test_qlib_s_engine_and_the_tester_agree_on_a_setting(blocks):
    rows = blocks["Qlib's engine"]
    for setting in ("5 days, 4, 0", "10 days, 8, 3"):
        qlib, tester = (
            [float(rows[f"{setting}, {engine}"][place].rstrip("%")) for place in (0, 3, 4, 5)]
            for engine in ("Qlib", "tester")
        )
        assert qlib == pytest.approx(tester, abs=0.35), "per cent a year, Sharpe, drawdown, traded a day"
