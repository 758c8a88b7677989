"""Does the machine learn? `backtests/planted_effect.py` measures it, here in small."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

pytest.importorskip("lightgbm")

from kronos.predictor import KronosPredictor
from kronos_strategies.data.planted import PlantedConfig
from kronos_strategies.heads.sources import bar_features

BACKTESTS = Path(__file__).parents[2] / "backtests"
HEAD, TREES = "ridge head on frozen states", "LightGBM on bar features"
NAMES, LEARN_DAYS, TEST_DAYS = 40, 60, 30
STRENGTH = 0.4


@pytest.fixture(scope="module")
def study() -> ModuleType:
    """The backtest as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BACKTESTS), *sys.path])
        import planted_effect
    return planted_effect


@pytest.fixture(scope="module")
def predictor() -> KronosPredictor:
    return KronosPredictor.from_pretrained("kronos-nano", device="cpu")


def plant(study: ModuleType, effect: str, strength: float, seed: int = 0):
    """A market of 40 names: 60 days to learn from, then 30 dates to rank."""
    settings = study.Study(learn_days=(LEARN_DAYS,), test_days=TEST_DAYS, samples=4)
    config = PlantedConfig(effect, strength, NAMES, settings.days, seed)
    return settings, study.StudyMarket.of(config, settings)


@pytest.fixture(scope="module")
def found(study: ModuleType, predictor: KronosPredictor) -> pd.DataFrame:
    """Results of each way of ranking on a strong reversal."""
    settings, market = plant(study, "reversal", STRENGTH)
    rows = study.evaluate(market, study.scores_of(market, settings, predictor))
    return rows.set_index("ranked_by")


def test_nothing_is_learned_from_what_follows_the_embargo(study: ModuleType) -> None:
    _, market = plant(study, "reversal", STRENGTH)
    dates = market.windows.index.get_level_values("datetime")
    days = market.calendar
    settings = market.settings(LEARN_DAYS, "ridge")
    split = market.split(market.windows.index, settings)
    train, valid = (
        part[1].dropna().index.get_level_values("datetime") for part in (split.train, split.valid)
    )
    # A label of date t ends with the close of t + 2; two days lie between it and the next part.
    assert days.get_loc(train.max()) + 2 == days.get_loc(settings.train_until)
    assert days.get_loc(valid.min()) == days.get_loc(settings.train_until) + 2 + 1
    assert days.get_loc(valid.max()) + 2 == days.get_loc(settings.valid_until)
    assert days.get_loc(dates[market.test].min()) == days.get_loc(settings.valid_until) + 2 + 1
    assert dates[market.learned(LEARN_DAYS)].nunique() == LEARN_DAYS
    assert dates[market.test].nunique() == TEST_DAYS
    assert dates[market.learned(LEARN_DAYS)].max() == settings.valid_until


# A RankIC of 30 dates of 40 names has a deviation of .030 at most. At an optimum of .4 a head on so few bars finds
# three fifths of it, eight deviations, and LightGBM more; a bound of zero within the 95 % interval, two deviations,
# would take an outcome six deviations low, and one of a quarter of the optimum four and a half: power > .99999.
@pytest.mark.slow
@pytest.mark.parametrize("ranked_by", [HEAD, TREES])
def test_fitted_models_find_a_strong_effect_on_later_dates(found: pd.DataFrame, ranked_by: str) -> None:
    row = found.loc[ranked_by]
    assert row["low"] > 0
    assert row["share"] > 0.25


# The optimum lies 13 deviations above zero, and a zero-shot model has learned nothing of a simulated market.
@pytest.mark.slow
def test_zero_shot_paths_stay_far_below_the_optimum(found: pd.DataFrame) -> None:
    assert found.loc["paths", "high"] < found.loc["optimum", "low"]
    assert found.loc["paths", "share"] < 0.5


@pytest.mark.slow
def test_nothing_beats_the_optimum(found: pd.DataFrame) -> None:
    others = found.drop(index="optimum")
    # The same returns decide over both, so that their difference varies less than either.
    assert (others["rank_ic"] < found.loc["optimum", "rank_ic"] + 2 * 0.03).all()


# Of K tests of nothing the smallest p falls below .001 / K in one of a thousand such sets.
@pytest.mark.slow
def test_without_an_effect_nothing_is_found(study: ModuleType, predictor: KronosPredictor) -> None:
    rows = []
    for seed in range(3):
        settings, market = plant(study, "none", 0.0, seed)
        rows.append(study.evaluate(market, study.scores_of(market, settings, predictor)))
    tests = pd.concat(rows)
    assert len(tests) == 3 * 4  # own head, paths, LightGBM, ridge
    assert tests["p"].min() > 0.001 / len(tests)
    assert tests["share"].isna().all()


# No window of a single name shows its leader: what reads one name at a time finds nothing in ten such markets.
def test_trees_on_the_bars_of_one_instrument_do_not_find_the_effect_of_a_leader(study: ModuleType) -> None:
    rows = []
    for seed in range(10):
        _, market = plant(study, "lead-lag", STRENGTH, seed)
        features = bar_features(market.planted.panel, market.windows.index).to_numpy("float32")
        score = study.fitted(market, features, LEARN_DAYS, "lightgbm")
        rows.append(study.evaluate(market, {(TREES, NAMES * LEARN_DAYS): score}))
    tests = pd.concat(rows).set_index("ranked_by")
    assert tests.loc[TREES, "p"].min() > 0.001 / 10
    assert tests.loc["optimum", "low"].min() > 0


def test_the_tables_hold_every_row(study: ModuleType, tmp_path: Path) -> None:
    _, market = plant(study, "volume", STRENGTH)
    rows = study.evaluate(market, {})
    csv, js, page = study.save(rows, {"seed": 0}, tmp_path)
    assert pd.read_csv(csv)["rank_ic"].tolist() == pytest.approx(rows["rank_ic"].tolist())
    assert '"seed": 0' in js.read_text()
    assert "| 0.4 | optimum | - |" in page.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learn_days": (20,)}, r"learn_days=\[20\]"),
        ({"test_days": 5}, "test_days=5"),
        ({"samples": -1}, "must be at least 0"),
        ({"steps": 5, "learn_days": (60,)}, "at least 72 days, or steps=0"),
    ],
)
def test_a_study_that_measures_nothing_is_refused(
    study: ModuleType, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        study.Study(**change)
