from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kronos.training.bar_array import MIN_INSTRUMENTS
from kronos_strategies.heads.fit import return_labels

from .markets import DAYS, keys_of, panel_of

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
