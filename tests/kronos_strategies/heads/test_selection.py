from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.heads.selection import ScoreUse, choose_score
from tests.kronos.builders import make_head

USE = {"hold": 5, "lookback": 90, "market": "csi300"}
HEAD = make_head(4, lookback=90, markets=("CSI 300", "S&P 500"), trained_until="2019-12-31")


@pytest.mark.parametrize(
    ("score", "change", "horizons", "why"),
    [
        ("auto", {}, (5,), "the head was trained for this use"),
        ("auto", {"hold": 1}, (1,), "the head was trained for this use"),
        ("auto", {"hold": 10}, (10,), "the head was trained for this use"),
        ("auto", {"hold": None}, (5, 10), "the head was trained for this use"),
        ("auto", {"price": None}, (5,), "the head was trained for this use"),
        ("auto", {"hold": 3}, (), "a holding period of 3 bars is not one of 1, 5 and 10"),
        ("auto", {"lookback": 60}, (), "lookback is 60 bars, that of head 0 90"),
        ("auto", {"price": "open"}, (), "trades happen at the open"),
        ("auto", {"frequency": "5min"}, (), "bars are of 5min, those of head 0 of 1day"),
        ("head", {}, (5,), "score='head'"),
        ("head", {"hold": 3}, (5, 10), "score='head'"),
        ("head", {"lookback": 60, "hold": 1}, (1,), "score='head'"),
        ("paths", {}, (), "score='paths' was requested"),
    ],
)
def test_each_combination_of_head_and_setting_gives_its_score(
    score: str, change: dict[str, object], horizons: tuple[int, ...], why: str
) -> None:
    choice = choose_score(score, [HEAD], ScoreUse(**USE | change))
    assert choice.horizons == horizons
    assert bool(choice.heads) == bool(horizons)
    assert why in choice.why
    assert why in choice.described


def test_a_checkpoint_without_a_head_has_paths() -> None:
    choice = choose_score("auto", [], ScoreUse(**USE))
    assert choice.described == "sampled paths: the checkpoint has no return head"
    assert choice.identity == "paths"
    with pytest.raises(ValueError, match=r"score='head' needs a return head.*kronos train head"):
        choose_score("head", [], ScoreUse(**USE))


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(ValueError, match="score='best' is unknown"):
        choose_score("best", [HEAD], ScoreUse(**USE))


def test_what_made_a_score_is_described_by_name_hash_and_horizon() -> None:
    choice = choose_score("auto", [HEAD], ScoreUse(**USE))
    assert choice.described.startswith(f"return head head 0 (sha256 {HEAD.sha256[:16]}), 5 bars")
    assert choice.identity == f"head {HEAD.sha256[:16]} 5"


@pytest.mark.parametrize(
    ("market", "warned"), [("csi300", False), ("S&P 500", False), ("nifty50", True), (None, False)]
)
def test_a_market_outside_of_the_training_of_a_head_is_a_warning(market: str | None, warned: bool) -> None:
    choice = choose_score("auto", [HEAD], ScoreUse(**USE | {"market": market}))
    assert bool(choice.warnings) == warned
    if warned:
        assert "not trained on the market 'nifty50' but on CSI 300, S&P 500" in choice.warnings[0]


def test_a_head_used_for_what_it_was_not_trained_for_is_a_warning() -> None:
    choice = choose_score("head", [HEAD], ScoreUse(**USE | {"frequency": "5min"}))
    assert "outside of what it was trained for: bars are of 5min" in choice.warnings[0]


def test_dates_that_a_head_may_have_learned_from_are_a_warning() -> None:
    choice = choose_score("auto", [HEAD], ScoreUse(**USE))
    assert choice.training_overlap_warnings(pd.Timestamp("2020-01-02")) == []
    assert "trained until 2019-12-31" in choice.training_overlap_warnings(pd.Timestamp("2019-12-31"))[0]


KEYS = pd.MultiIndex.from_product(
    [pd.to_datetime(["2024-01-02", "2024-01-03"]), list("ABC")], names=["datetime", "instrument"]
)


def test_a_single_output_is_the_score_itself() -> None:
    choice = choose_score("auto", [HEAD], ScoreUse(**USE))
    outputs = np.arange(18, dtype=np.float32).reshape(6, 3)
    score = choice.combine([outputs], KEYS)
    np.testing.assert_array_equal(score, outputs[:, 1])
    np.testing.assert_array_equal(choice.average([outputs]), outputs[:, 1])


def test_several_outputs_are_averaged_as_ranks_of_each_date() -> None:
    other = make_head(4, lookback=90, seed=1)
    choice = choose_score("auto", [HEAD, other], ScoreUse(**USE))
    one, two = np.zeros((6, 3), np.float32), np.zeros((6, 3), np.float32)
    one[:, 1] = [3, 1, 2, 0.1, 0.2, 0.3]
    two[:, 1] = [100, 300, 200, 1, 2, 3]  # another spread weighs no more
    score = choice.combine([one, two], KEYS)
    np.testing.assert_allclose(score, np.array([0, 0, 0, -0.5, 0, 0.5]) * 12**0.5, atol=1e-12)


def test_heads_without_a_common_horizon_are_refused() -> None:
    from kronos.head import HeadInfo, ReturnHead

    alone = ReturnHead(
        HeadInfo(4, (3,), "rank", 90), np.zeros((1, 4), np.float32), np.zeros(1, np.float32), name="alone"
    )
    with pytest.raises(ValueError, match="have no common horizon"):
        choose_score("head", [HEAD, alone], ScoreUse(**USE))
