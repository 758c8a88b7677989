"""Inputs of rules from feeds in addition to signals: past closes, and sampled paths of the latest forecasts."""

from __future__ import annotations

from collections.abc import Mapping

import backtrader as bt
import numpy as np
import pandas as pd

from kronos.calibration import checkpoint_calibration
from kronos.postprocessing import PathOptions
from kronos_strategies.backtrader.feed_bars import to_local, to_utc
from kronos_strategies.backtrader.indicators import KronosIndicator, settings_of
from kronos_strategies.backtrader.scheduler import ForecastCoordinator, ForecastGroup
from kronos_strategies.portfolio import (
    MarketInputs,
    PortfolioRules,
    SampledPaths,
    UnsolvedError,
    check_history,
    past_bars,
)
from kronos_strategies.signal import sampled_paths
from kronos_strategies.store import ForecastSet


class FeedMarket:
    """Past closes and sampled paths of feeds, as far as rules read them.

    Paths are those of a feed's `KronosIndicator`. A feed with lines of its own has none; its paths are read from a
    forecast store, those of the latest date up to the feed's last bar.

    Args:
        rules: the rules.
        signals: lines by feed; those of a `KronosIndicator`, or the feed itself.
        store: folder or URL of the store with the forecasts of feeds with lines of their own.
        options: postprocessing of the stored paths.

    Raises:
        FileNotFoundError: the store has no forecasts.
        ValueError: the rules need paths, and a feed has neither an indicator nor a store.
    """

    def __init__(
        self,
        rules: PortfolioRules,
        signals: Mapping[bt.AbstractDataBase, bt.LineSeries],
        store: str | None,
        options: PathOptions,
    ) -> None:
        self.rules, self.feeds = rules, list(signals)
        self._groups: dict[bt.AbstractDataBase, tuple[KronosIndicator, ForecastGroup]] = {}
        self._stored: ForecastSet | None = None
        if not rules.uses_scenarios:
            return
        for data, own in signals.items():
            if isinstance(own, KronosIndicator) and own.p.samples:
                settings = settings_of(own)
                group = ForecastCoordinator.of(own).group(settings)
                group.path_bars = settings.horizon
                self._groups[data] = own, group
        others = len(self._groups) < len(self.feeds)
        check_history(rules, closes=True, paths=not others or bool(store))
        if others and store:
            self._stored = ForecastSet.find(store)
            provenance = self._stored.settings.provenance
            first = self._stored.read(self._stored.dates[0])
            own_calibration = checkpoint_calibration(provenance.model)
            self._post = options.resolve(own_calibration, provenance, first.horizon, first.spacing)

    def inputs(self) -> MarketInputs:
        """Inputs of the rules at the current bar.

        Raises:
            UnsolvedError: no feed has paths.
        """
        bars = past_bars(self.rules)
        if not bars:
            return MarketInputs()
        return MarketInputs(closes=past_closes(self.feeds, bars), paths=self._paths())

    def _paths(self) -> SampledPaths | None:
        if not self.rules.uses_scenarios:
            return None
        found: dict[str, np.ndarray] = {}
        for data, (indicator, group) in self._groups.items():
            if len(indicator) and np.isfinite(indicator.age[0]):
                date = bar_date(data, int(indicator.age[0]))
                name = data._name
                paths = group.path_returns.get((date, name), group.path_returns.get((date.normalize(), name)))
                if paths is not None:
                    found[name] = paths
        if self._stored is not None:
            found |= self._stored_paths(
                self._stored, [data for data in self.feeds if data not in self._groups]
            )
        if not found:
            raise UnsolvedError("no feed has sampled paths at this bar")
        return SampledPaths(pd.Index(list(found)), np.stack(list(found.values())))

    def _stored_paths(self, stored: ForecastSet, feeds: list[bt.AbstractDataBase]) -> dict[str, np.ndarray]:
        now = max((bar_date(data) for data in feeds if len(data)), default=pd.Timestamp.min)
        dates = stored.dates[stored.dates <= now]
        if not len(dates):
            return {}
        paths = sampled_paths(self._post(stored.read(dates[-1])))
        names = {data._name for data in feeds}
        pairs = zip(paths.instruments, paths.returns, strict=True)
        return {str(name): returns for name, returns in pairs if name in names}


def past_closes(feeds: list[bt.AbstractDataBase], bars: int) -> pd.DataFrame:
    """Closes of `bars` bars before the current one, and its own: dates x names of the feeds, NaN without a bar.

    Bars of a day or longer are dated with the day in the time zone of their feed, so that exchanges that close at
    different times share dates.
    """
    columns = {}
    for data in feeds:
        count = min(len(data), bars + 1)
        if count:
            times = to_local(to_utc(np.array(data.datetime.get(size=count))), data)
            if data._timeframe >= bt.TimeFrame.Days:
                times = times.astype("datetime64[D]").astype("datetime64[ns]")
            closes = pd.Series(np.array(data.close.get(size=count)), pd.DatetimeIndex(times))
            columns[data._name] = closes[~closes.index.duplicated(keep="last")]
    table = pd.DataFrame(columns).sort_index()
    return table.where(np.isfinite(table)).iloc[-bars - 1 :]


def bar_date(data: bt.AbstractDataBase, ago: int = 0) -> pd.Timestamp:
    """Time of the bar of a feed `ago` bars before its current one, in the time zone of the feed."""
    return pd.Timestamp(to_local(to_utc(np.array([data.datetime[-ago]])), data)[0])
