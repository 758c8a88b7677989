"""KronosBand: what it draws, and that it is drawn."""

from pathlib import Path

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from kronos_strategies.backtrader import KronosBand, save_plot
from kronos_strategies.backtrader.band import BAND
from tests.kronos.builders import make_bars
from tests.kronos_strategies.backtrader.builders import (
    MODES,
    SETTINGS,
    awkward_panel,
    cerebro_of,
    kronos,
    pandas_feeds,
    run,
)


def band(data: bt.AbstractDataBase) -> bt.Indicator:
    return KronosBand(data, **SETTINGS)


@pytest.mark.parametrize("mode", [{}, *MODES.values()], ids=["runonce", *MODES])
def test_a_bar_shows_what_was_forecast_a_horizon_of_its_feed_before(mode):
    shown = run(awkward_panel(), band, **mode)
    known = run(awkward_panel())[list(BAND)]
    for name in awkward_panel():
        own, later = (table.xs(name, level="instrument").to_numpy() for table in (known, shown))
        np.testing.assert_array_equal(later[3:], own[:-3])
        assert np.isnan(later[:3]).all()


def test_it_shares_the_forecasts_of_the_indicator(asked):
    class Both(bt.Strategy):
        def __init__(self):
            self.k, self.b = kronos()(self.data), KronosBand(self.data, **SETTINGS | {"level": 0.5})

    cerebro = cerebro_of(pandas_feeds({"A": make_bars(42)}))
    cerebro.addstrategy(Both)
    cerebro.run()
    assert sum(len(windows) for windows in asked) <= 5


def test_it_does_not_delay_the_strategy():
    started = []

    class Plotted(bt.Strategy):
        def __init__(self):
            KronosBand(self.data, **SETTINGS)

        def nextstart(self):
            started.append(len(self))

    cerebro = cerebro_of(pandas_feeds({"A": make_bars(42)}))
    cerebro.addstrategy(Plotted)
    cerebro.run()
    assert started == [SETTINGS["lookback"]]


def filled(path: Path) -> int:
    """How many pixels of a picture have the colour of the band, 12 % of #0072B2 on white."""
    image = pytest.importorskip("matplotlib.image").imread(path)[..., :3]
    return int((np.abs(image * 255 - (224, 238, 246)) <= 1.5).all(axis=-1).sum())


@pytest.mark.parametrize("mode", [{}, {"exactbars": -2}])
def test_a_picture_shows_the_filled_band_without_a_screen(tmp_path, mode):
    class Plotted(bt.Strategy):
        params = (("band", True),)

        def __init__(self):
            if self.p.band:
                KronosBand(self.data, **SETTINGS | {"every": 1})
            kronos()(self.data)

    found = []
    for drawn in (True, False):
        cerebro = cerebro_of(pandas_feeds({"A": make_bars(60)}))
        cerebro.addstrategy(Plotted, band=drawn)
        found.append(filled(save_plot(cerebro.run(**mode)[0], tmp_path / "new" / f"{drawn}.png")))
    assert found[0] > 20_000
    assert found[1] < found[0] / 100  # what edges of other blue lines have in common with it


def test_a_strategy_that_saw_no_bar_is_not_drawn():
    cerebro = cerebro_of(pandas_feeds({"A": make_bars(10)}, fromdate=pd.Timestamp("2030-01-01")))
    cerebro.addstrategy(bt.Strategy)
    with pytest.raises(ValueError, match="has seen no bar"):
        save_plot(cerebro.run()[0], "unused.png")
