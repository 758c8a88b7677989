from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.head import ReturnHead
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
    """On dates after all training dates, one bar ahead."""
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


def test_a_head_says_what_it_was_fitted_on() -> None:
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
