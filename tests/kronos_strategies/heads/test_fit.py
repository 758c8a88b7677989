"""Labels use no later bar than their horizon; a fitted head finds what was planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.head import ReturnHead
from kronos.training.bar_array import MIN_INSTRUMENTS
from kronos_strategies.heads.fit import FitSettings, Split, date_correlation, fit_head, return_labels

from .markets import DAYS, keys_of, panel_of

SETTINGS = FitSettings(DAYS[90], DAYS[125])
AFTER = DAYS[126]


def states(panel: dict[str, pd.DataFrame], keys: pd.MultiIndex, seed: int = 0) -> np.ndarray:
    """Hidden states as a network may have them: the last returns, mixed into 8 noisy units."""
    steps = pd.concat({name: np.log(bars.close).diff() for name, bars in panel.items()}, names=["instrument"])
    steps = steps.swaplevel()
    now = steps.reindex(keys).to_numpy()
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(len(keys), 8))
    hidden[:, 3] += 50 * now
    return hidden.astype(np.float32)


def fitted(panel: dict[str, pd.DataFrame], **changes: object) -> tuple[ReturnHead, np.ndarray, pd.MultiIndex]:
    keys = keys_of(panel)
    hidden = states(panel, keys)
    settings = FitSettings(SETTINGS.train_until, SETTINGS.valid_until, **changes)
    head = fit_head(hidden, keys, panel, settings, lookback=30, markets=("made",))
    return head, hidden, keys


def later_correlation(panel: dict[str, pd.DataFrame], **changes: object) -> float:
    """Correlation on dates after all training dates, one bar ahead."""
    head, hidden, keys = fitted(panel, **changes)
    late = keys.get_level_values("datetime") >= AFTER
    label = return_labels(panel, keys[late], (1,), DAYS[-1])[1]
    return date_correlation(head(hidden[late])[:, 0], label)


@pytest.mark.parametrize("kind", ["ridge", "lightgbm"])
def test_a_planted_effect_is_found_on_later_dates(kind: str) -> None:
    if kind == "lightgbm":
        pytest.importorskip("lightgbm")
    # The label's return at t is that of t + 2, which gives back a part of the return of t.
    assert later_correlation(panel_of(reversal=0.5), kind=kind, seeds=1) > 0.2


def test_without_an_effect_nothing_is_found() -> None:
    # 33 dates of 30 names: a correlation of nothing has a deviation of .03.
    assert abs(later_correlation(panel_of())) < 3 * 30**-0.5 * 33**-0.5


@pytest.mark.parametrize("h", [1, 5, 10])
def test_training_and_validation_share_no_return(h: int) -> None:
    panel = panel_of()
    keys = keys_of(panel)
    split = Split.of(panel, keys, FitSettings(DAYS[90], DAYS[125], horizons=(1, 5, 10)))
    train, valid = (
        part[h].dropna().index.get_level_values("datetime") for part in (split.train, split.valid)
    )
    assert DAYS.get_loc(train.max()) + 1 + h == 90  # the last label ends with the training
    assert DAYS.get_loc(valid.min()) == 90 + 1 + 10 + 1  # embargo: the longest horizon + 1
    assert DAYS.get_loc(valid.max()) + 1 + h == 125


def test_bars_after_the_validation_change_nothing() -> None:
    panel = panel_of(reversal=0.3)
    head, hidden, _ = fitted(panel)
    for bars in panel.values():
        bars.loc[bars.index > SETTINGS.valid_until, "close"] = 1.0
    again, _, _ = fitted(panel)
    np.testing.assert_allclose(again(hidden[:50]), head(hidden[:50]), rtol=1e-5, atol=1e-6)


def test_a_head_states_its_training_data() -> None:
    head, _, _ = fitted(panel_of(reversal=0.3), horizons=(1, 5))
    info = head.info
    assert (info.kind, info.horizons, info.lookback, info.markets) == ("ridge", (1, 5), 30, ("made",))
    assert info.trained_until == f"{SETTINGS.valid_until:%Y-%m-%d}"
    assert set(info.figures) == {
        "validation_correlation_1",
        "validation_correlation_5",
        "validation_dates",
    }


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        ((DAYS[10], DAYS[125]), "No training date has 20 instruments"),
        ((DAYS[90], DAYS[100]), "No validation date has 20 instruments.*validation from 11 bars later"),
    ],
)
def test_spans_without_labels_are_refused(dates: tuple[pd.Timestamp, ...], message: str) -> None:
    panel = panel_of()
    keys = keys_of(panel)
    with pytest.raises(ValueError, match=message):
        fit_head(states(panel, keys), keys, panel, FitSettings(*dates), lookback=30, markets=())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "linear"}, "kind='linear' cannot be fitted"),
        ({"horizons": ()}, "are not valid"),
        ({"seeds": 0}, "seeds=0"),
        ({"valid_until": DAYS[80]}, "Validate on later dates"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitSettings(**{"train_until": DAYS[90], "valid_until": DAYS[125]} | change)


UNTIL = DAYS[100]


@pytest.fixture(scope="module")
def panel() -> dict[str, pd.DataFrame]:
    return panel_of()


def test_a_label_is_the_residual_rank_of_the_return_from_the_next_close(panel) -> None:
    keys = keys_of(panel)
    label = return_labels(panel, keys, (1, 5), UNTIL)
    date = DAYS[60]
    returns = {name: bars.close.iloc[66] / bars.close.iloc[61] - 1 for name, bars in panel.items()}
    volatility = {name: np.log(bars.close).diff().iloc[41:61].std(ddof=0) for name, bars in panel.items()}
    rank, style = (
        (pd.Series(values).rank() - 1) / (len(panel) - 1) - 0.5 for values in (returns, volatility)
    )
    expected = 12**0.5 * (rank - (rank @ style) / (style @ style) * style)
    np.testing.assert_allclose(label.loc[date][5].sort_index(), expected.sort_index(), atol=1e-12)


def test_a_label_uses_no_bar_after_the_last_date(panel) -> None:
    keys = keys_of(panel)
    before = return_labels(panel, keys, (1, 5, 10), UNTIL)
    later = {name: bars.copy() for name, bars in panel.items()}
    for bars in later.values():
        bars.loc[bars.index > UNTIL, "close"] = 1.0
    pd.testing.assert_frame_equal(return_labels(later, keys, (1, 5, 10), UNTIL), before)
    last = {h: before[h].dropna().index.get_level_values("datetime").max() for h in (1, 5, 10)}
    assert last == {h: DAYS[100 - 1 - h] for h in (1, 5, 10)}


def test_a_date_with_few_instruments_has_no_label(panel) -> None:
    few = dict(list(panel.items())[: MIN_INSTRUMENTS - 1])
    assert return_labels(few, keys_of(few), (1,), UNTIL).isna().all().all()


def test_bars_are_counted_by_what_an_instrument_traded(panel) -> None:
    gaps = {**panel, "N00": panel["N00"].drop(DAYS[[62, 63]])}
    keys = keys_of(panel)
    moved, plain = (return_labels(p, keys, (1,), UNTIL)[1] for p in (gaps, panel))
    own = gaps["N00"].close
    at = own.index.get_loc(DAYS[61])
    returns = {n: b.close.iloc[62] / b.close.iloc[61] - 1 for n, b in panel.items()}
    returns["N00"] = own.iloc[at + 1] / own.iloc[at] - 1
    assert own.index[at + 1] == DAYS[64]
    position = pd.Series(returns).rank()["N00"]
    assert np.isfinite(moved.loc[DAYS[60], "N00"])
    others = [n for n in panel if n != "N00"]
    # The other names' returns are as before; ranks move by one at most.
    assert (moved.loc[DAYS[60]][others] - plain.loc[DAYS[60]][others]).abs().max() < 12**0.5 * 3 / 29
    assert 1 <= position <= 30
    assert np.isnan(moved.loc[DAYS[62], "N00"])  # a date that it did not trade on


def test_labels_are_those_of_joint_training(panel) -> None:
    from kronos.bars import FEATURES
    from kronos.training import bar_array as joint
    from tests.kronos.training.builders import make_market

    mapped = make_market(24, 60)
    frames = {}
    for i in range(24):
        rows = slice(60 * i, 60 * (i + 1))
        index = pd.DatetimeIndex(mapped.dates[rows], name="datetime")
        frames[f"N{i:02d}"] = pd.DataFrame(mapped.values[rows], index=index, columns=list(FEATURES))
    dates = next(iter(frames.values())).index
    keys = pd.MultiIndex.from_product([dates, sorted(frames)], names=["datetime", "instrument"])
    until = dates[45]
    ours = return_labels(frames, keys, joint.HORIZONS, until).unstack("instrument")
    theirs = joint.return_labels(mapped, f"{until:%Y-%m-%d}").reshape(24, 60, len(joint.HORIZONS))
    for column, horizon in enumerate(joint.HORIZONS):
        np.testing.assert_allclose(ours[horizon].to_numpy().T, theirs[:, :, column], atol=1e-5)
