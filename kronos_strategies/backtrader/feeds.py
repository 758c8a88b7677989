"""ForecastData: a feed that brings stored forecasts along, for runs that load no model."""

from __future__ import annotations

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import PRICES, check_timestamps
from kronos.calibration import checkpoint_calibration
from kronos.postprocessing import PathOptions
from kronos_strategies.backtrader.bars import EARLIEST, told_apart
from kronos_strategies.backtrader.outlook import COLUMNS, LINES, lines, outlooks
from kronos_strategies.store import StoredForecasts


class ForecastData(bt.feeds.PandasData):
    """Bars with the lines of a `KronosIndicator`, from a frame that `join_forecasts` has made.

        forecasts = read_forecasts(ForecastStore("forecasts").runs()[0])
        cerebro.adddata(ForecastData(dataname=join_forecasts(bars, forecasts, "AAA"), name="AAA"))

    In a strategy the feed itself then has expected_return, volatility and so on, where `KronosIndicator(data)` has
    them otherwise. Parameters are those of `bt.feeds.PandasData`.
    """

    lines = COLUMNS
    params = tuple((name, -1) for name in COLUMNS)  # found by name


READ = PathOptions()


def read_forecasts(stored: StoredForecasts, level: float = 0.9, options: PathOptions = READ) -> pd.DataFrame:
    """The lines of every stored forecast; reads each path, so once a process will do.

    Args:
        stored: forecasts of one model and one set of settings.
        level: share of the paths between lower and upper.
        options: what is done to the paths when they are read.

    Returns:
        Frame indexed (datetime, instrument), columns LINES as `KronosIndicator` defines them, known at the close
        of the bar of that date.

    Raises:
        ValueError: nothing is stored, or the calibration that was named does not fit.
        DamagedFileError: a file is not what was written.
    """
    known, parts, post = stored.recipe.provenance, [], None
    for sampled in stored:
        if post is None:
            own = checkpoint_calibration(known.model)
            post = options.resolve(own, known, sampled.horizon, sampled.spacing)
        forecast = post(sampled)
        table = lines(outlooks(forecast), level, forecast.band_factors(level)[:, -1])
        parts.append(pd.DataFrame(table, index=forecast.index, columns=list(LINES)))
    if not parts:
        raise ValueError(f"{stored.folder} holds no forecast. Fill it first, e.g. with `kronos forecast`.")
    return pd.concat(parts)


def join_forecasts(bars: pd.DataFrame, forecasts: pd.DataFrame, instrument: str) -> pd.DataFrame:
    """Bars of one instrument with its forecasts beside them.

    A forecast joins the bar of exactly its date and holds until the next one, as the lines of a `KronosIndicator`
    do; bars before the first have NaN, and so have bars without four finite, positive prices.

    Args:
        bars: indexed by time, ascending; in a time zone, forecasts are matched with the wall time there.
        forecasts: of `read_forecasts`.
        instrument: its name there.

    Returns:
        `bars` and the columns LINES and age: bars since the forecast.

    Raises:
        ValueError: bars out of order, an unknown instrument, or no bar on the date of any forecast.
    """
    if not isinstance(bars.index, pd.DatetimeIndex):
        raise ValueError(f"bars of {instrument} have no DatetimeIndex. Use bars.set_index('datetime').")
    check_timestamps(bars.index.tz_convert(None) if bars.index.tz else bars.index, f"bars of {instrument}")
    times = pd.DatetimeIndex(told_apart(bars.index.tz_localize(None).to_numpy("datetime64[ns]"), EARLIEST))
    known = forecasts.index.get_level_values("instrument")
    if instrument not in known:
        raise ValueError(f"No forecast is of '{instrument}'; they are of {sorted(known.unique())[:10]}.")
    own = forecasts.xs(instrument, level="instrument")
    joined = own.reindex(times).to_numpy()
    made = times.isin(own.index)
    if not made.any():
        raise ValueError(
            f"No bar of {instrument} is on the date of a forecast: bars {times[0]} to {times[-1]}, forecasts "
            f"{own.index[0]} to {own.index[-1]}. Bars of a day are dated at midnight: bars.index.normalize()."
        )
    latest = np.maximum.accumulate(np.where(made, np.arange(len(times)), -1))
    table = np.column_stack([joined[latest], np.arange(len(times)) - latest])
    prices = bars[[name for name in bars.columns if str(name).lower() in PRICES]].to_numpy(float)
    traded = (np.isfinite(prices) & (prices > 0)).all(axis=1)
    table[(latest < 0) | ~traded] = np.nan
    return pd.concat([bars, pd.DataFrame(table, index=bars.index, columns=list(COLUMNS))], axis=1)
