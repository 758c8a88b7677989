"""backtests/score_head.py from start to end, on a small simulated market."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("qlib")

from kronos_strategies.evaluation.signal.metrics import information_coefficients
from kronos_strategies.qlib.artifacts import read_price_panel
from tests.kronos_strategies.warm import run_warm

from .conftest import use_store

SCRIPT = Path(__file__).parents[3] / "backtests" / "score_head.py"
NAIVE = ["12-1 momentum", "5-day reversal", "20-day reversal", "low 20-day volatility"]
HEAD, DEFAULT_HORIZONS = "head, output of that horizon", "head, mean of ranks"
PATHS, BOTH = "mean of the paths", "head and paths, mean of ranks"


@pytest.fixture(scope="module")
def written(small_store, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("score_head")
    span = (
        "--start",
        "2023-05-04",
        "--end",
        "2023-05-24",
        "--every",
        "2",
        "--samples",
        "2",
        "--paths-every",
        "3",
    )
    words = [
        SCRIPT, "--data", small_store, "--store", output / "store", "--market", "all", *span,
        "--device", "cpu", "--output", output,
    ]  # fmt: skip
    done = run_warm(words, output, os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def test_each_horizon_has_every_score_and_every_naive_signal(written):
    blocks = json.loads((written / "head_scores.json").read_text())["blocks"]
    assert list(blocks) == ["", "on the dates of the paths"]
    for own, block in zip(
        ([HEAD, DEFAULT_HORIZONS], [HEAD, DEFAULT_HORIZONS, PATHS, BOTH]), blocks.values(), strict=True
    ):
        found = [(row["bars"], row["score"]) for row in block["RankIC"]]
        assert found == [(h, name) for h in ("1", "5", "10") for name in (*own, *NAIVE)]
        leads = block["RankIC less that of"]
        assert [row["score"] for row in leads] == 3 * own
        assert list(leads[0]) == ["bars", "score", *NAIVE, *[PATHS] * (PATHS in own)]
    assert {row["dates"] for row in blocks[""]["RankIC"] if row["score"] == HEAD} == {"8"}
    assert {
        row["dates"] for row in blocks["on the dates of the paths"]["RankIC"] if row["score"] == PATHS
    } == {"3"}
    assert "**RankIC**" in (written / "head_scores.md").read_text()


def test_metrics_are_those_of_the_written_scores(written, small_store):
    use_store(small_store)
    scores = pd.read_parquet(written / "scores.parquet")
    market = read_price_panel(scores.index)
    label = market.lookup(market.forward_return(5), scores.index)
    rows = json.loads((written / "head_scores.json").read_text())["blocks"][""]["RankIC"]
    for name in (HEAD, DEFAULT_HORIZONS):
        by_date = information_coefficients(scores[f"{name}, 5 bars"], label)["rank_ic"]
        (cell,) = (row["RankIC"] for row in rows if (row["bars"], row["score"]) == ("5", name))
        assert float(cell.strip("*").split()[0]) == pytest.approx(by_date.mean(), abs=6e-5)
    assert np.isfinite(scores[f"{HEAD}, 10 bars"]).all()
