"""ForecastData: a feed with stored forecasts as lines, for runs that load no model."""

from __future__ import annotations

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.bars import PRICES, check_timestamps
from kronos.calibration import checkpoint_calibration
from kronos.postprocessing import PathOptions
from kronos_strategies.backtrader.feed_bars import EARLIEST, disambiguate_dst
from kronos_strategies.backtrader.forecasts import ALL_LINES, LINES, indicator_lines, path_statistics
from kronos_strategies.store import ForecastSet

DEFAULT_OPTIONS = PathOptions()


class ForecastData(bt.feeds.PandasData):
    """Bars with the lines of a `KronosIndicator`, from a DataFrame returned by `join_forecasts`.

        forecasts = read_forecasts(ForecastStore("forecasts").forecast_sets()[0])
        cerebro.adddata(ForecastData(dataname=join_forecasts(bars, forecasts, "AAA"), name="AAA"))

    The feed itself then has expected_return, volatility and so on, in place of a `KronosIndicator(data)`.
    Parameters are those of `bt.feeds.PandasData`.
    """

    lines = ALL_LINES
    params = tuple((name, -1) for name in ALL_LINES)  # columns are found by name


def read_forecasts(
    stored: ForecastSet, level: float = 0.9, options: PathOptions = DEFAULT_OPTIONS
) -> pd.DataFrame:
    """Read the lines of every stored forecast. Reads all paths, so call it once per process.

    Args:
        stored: forecasts of one model with one set of settings.
        level: share of the paths between lower and upper.
        options: postprocessing of the paths.

    Returns:
        DataFrame indexed (datetime, instrument), columns LINES as in `KronosIndicator`, known at the close of the
        bar of that date.

    Raises:
        ValueError: nothing is stored, or the named calibration does not fit.
        CorruptFileError: a file is corrupt.
    """
    provenance, parts, post = stored.settings.provenance, [], None
    for sampled in stored:
        if post is None:
            own = checkpoint_calibration(provenance.model)
            post = options.resolve(own, provenance, sampled.horizon, sampled.spacing)
        forecast = post(sampled)
        table = indicator_lines(path_statistics(forecast), level, forecast.band_factors(level)[:, -1])
        parts.append(pd.DataFrame(table, index=forecast.index, columns=list(LINES)))
    if not parts:
        raise ValueError(
            f"{stored.folder} has no forecasts. Compute them first, e.g. with `kronos store fill`."
        )
    return pd.concat(parts)


def join_forecasts(bars: pd.DataFrame, forecasts: pd.DataFrame, instrument: str) -> pd.DataFrame:
    """Join bars of one instrument with its forecasts.

    A forecast joins the bar of exactly its date and is valid until the next one, like the lines of a
    `KronosIndicator`; bars before the first forecast have NaN, as have bars without four finite, positive prices.

    Args:
        bars: indexed by time, ascending; with a time zone, forecasts are matched by local time.
        forecasts: as returned by `read_forecasts`.
        instrument: its name there.

    Returns:
        `bars` with the columns LINES and age, the bars since the forecast.

    Raises:
        ValueError: bars are out of order, the instrument is unknown, or no bar is on the date of a forecast.
    """
    if not isinstance(bars.index, pd.DatetimeIndex):
        raise ValueError(f"bars of {instrument} have no DatetimeIndex. Use bars.set_index('datetime').")
    check_timestamps(bars.index.tz_convert(None) if bars.index.tz else bars.index, f"bars of {instrument}")
    local = bars.index.tz_localize(None).to_numpy("datetime64[ns]")
    times = pd.DatetimeIndex(disambiguate_dst(local, EARLIEST))
    known = forecasts.index.get_level_values("instrument")
    if instrument not in known:
        raise ValueError(
            f"There are no forecasts of '{instrument}', only of {sorted(known.unique())[:10]}. Pass one of these."
        )
    own = forecasts.xs(instrument, level="instrument")
    joined = own.reindex(times).to_numpy()
    made = times.isin(own.index)
    if not made.any():
        raise ValueError(
            f"No bar of {instrument} is on the date of a forecast: bars {times[0]} to {times[-1]}, forecasts "
            f"{own.index[0]} to {own.index[-1]}. Daily bars are dated at midnight: bars.index.normalize()."
        )
    latest = np.maximum.accumulate(np.where(made, np.arange(len(times)), -1))
    table = np.column_stack([joined[latest], np.arange(len(times)) - latest])
    prices = bars[[name for name in bars.columns if str(name).lower() in PRICES]].to_numpy(float)
    traded = (np.isfinite(prices) & (prices > 0)).all(axis=1)
    table[(latest < 0) | ~traded] = np.nan
    return pd.concat([bars, pd.DataFrame(table, index=bars.index, columns=list(ALL_LINES))], axis=1)
