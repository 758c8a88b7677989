"""Inputs of backtests on stored forecasts: their settings, the signals of each date, and prices.

Prices are those of a Qlib data directory, read without Qlib, or of files of bars.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, cast

import pandas as pd

from kronos.bars import PRICES, adjust_bars
from kronos.calibration import checkpoint_calibration
from kronos.io import read_bars as read_files
from kronos.postprocessing import PathOptions, Postprocessing
from kronos.training.sources import is_qlib_directory
from kronos_strategies.backtest.run import PathSource, backtest_rules, equal_weight_returns
from kronos_strategies.backtest.trading import Price, TradingRules
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.data.qlib_bins import bin_folder, read_bars
from kronos_strategies.data.qlib_store import guess_region, region_of_store
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.path_signals import PathSignalSettings
from kronos_strategies.portfolio import PortfolioRules, SampledPaths
from kronos_strategies.progress import track
from kronos_strategies.signal import sampled_paths, signals
from kronos_strategies.store import ForecastSet
from kronos_strategies.store.head_scores import HeadScores, find_head_scores

HISTORY = 300  # bars before the first forecast that the simulation may look back on
LOTS = {"cn": 100, "tw": 1000, "us": 1}  # shares, by region


@dataclass(frozen=True)
class BacktestSettings:
    """Settings of a backtest on stored forecasts.

    Attributes:
        rules: rules of selection and weighting.
        trading: execution and costs.
        hold: bars that a position is held, which the score and the label span.
        every: bars between rebalances.
        levels: levels that some signals refer to.
        trials: number of settings tried so far, including this one; deflates the Sharpe ratio.
        trials_deviation: standard deviation of the Sharpe ratios per bar of all trials; None if unknown.
    """

    rules: PortfolioRules
    trading: TradingRules
    hold: int
    every: int
    levels: PathSignalSettings = field(default_factory=PathSignalSettings)
    trials: int = 1
    trials_deviation: float | None = None

    @property
    def signals(self) -> SignalSettings:
        """The settings that signals depend on."""
        return SignalSettings(self.hold, self.trading.price, self.levels)


class SignalSettings(NamedTuple):
    """Settings that signals depend on, see `kronos_strategies.signal.signals`."""

    hold: int
    price: Price
    levels: PathSignalSettings


@dataclass(frozen=True)
class BacktestInputs:
    """Inputs that all settings of rules and execution on the same signals share.

    Attributes:
        signals: indexed (datetime, instrument), known at the close of the date.
        prices: bars up to the last date, and some before the first one.
        benchmarks: returns of benchmarks by datetime.
        industries: industry by instrument; None if unknown.
        paths: sampled paths of a date, for weightings over scenarios; None if unknown.
    """

    signals: pd.DataFrame
    prices: BacktestPrices
    benchmarks: pd.DataFrame
    industries: Mapping[str, str] | None = None
    paths: PathSource | None = None

    @classmethod
    def of(
        cls,
        signals: pd.DataFrame,
        prices: BacktestPrices,
        industries: pd.Series | None = None,
        benchmark: pd.Series | None = None,
        paths: PathSource | None = None,
        history: int = HISTORY,
    ) -> BacktestInputs:
        """Inputs with the bars of the dates of the signals, and the equal-weight benchmark after the one given.

        Args:
            signals: indexed (datetime, instrument), known at the close of the date.
            prices: bars.
            industries: industry by instrument.
            benchmark: returns of a benchmark.
            paths: sampled paths of a date.
            history: bars before the first date that decisions may look back on.
        """
        dates = pd.DatetimeIndex(signals.index.get_level_values("datetime"))
        prices = cut_to_dates(prices, dates.min(), dates.max(), history)
        benchmarks = equal_weight_returns(prices.panel, cast(pd.MultiIndex, signals.index)).to_frame()
        if benchmark is not None:
            benchmarks.insert(0, str(benchmark.name), benchmark.reindex(benchmarks.index))
        known = None if industries is None else {str(name): str(own) for name, own in industries.items()}
        return cls(signals, prices, benchmarks, known, paths)

    def run(self, settings: BacktestSettings) -> BacktestResult:
        """Trade rules on these signals."""
        return backtest_rules(
            self.signals,
            settings.rules,
            self.prices.panel,
            settings.trading,
            settings.every,
            self.prices.factors,
            self.industries,
            self.benchmarks,
            self.paths,
        )


def cut_to_dates(
    prices: BacktestPrices, first: pd.Timestamp, last: pd.Timestamp, history: int = HISTORY
) -> BacktestPrices:
    """Prices of the dates on which signals trade, and of the bars before that a decision may look back on."""
    calendar = prices.panel.calendar
    start = max(0, int(calendar.searchsorted(first)) - history)
    return replace(prices, panel=cut_prices(prices.panel, calendar[min(start, len(calendar) - 1)], last))


@dataclass(frozen=True)
class StoredPaths:
    """Reads the sampled paths of a date, for weightings over scenarios.

    Attributes:
        forecast_set: stored forecasts.
        post: postprocessing of the paths.
    """

    forecast_set: ForecastSet
    post: Postprocessing

    def __call__(self, date: pd.Timestamp) -> SampledPaths:
        """The paths of all instruments of a date."""
        return sampled_paths(self.post(self.forecast_set.read(date)))


def read_signals(
    forecast_set: ForecastSet,
    dates: pd.DatetimeIndex,
    wanted: Collection[SignalSettings],
    post: Postprocessing,
    heads: Mapping[int, HeadScores | None],
) -> dict[SignalSettings, pd.DataFrame]:
    """Signals of some dates by their settings; each forecast is read once.

    Args:
        forecast_set: stored forecasts.
        dates: dates to read.
        wanted: settings of the signals.
        post: postprocessing of the paths.
        heads: scores of a return head by holding period; None for the paths' own.
    """
    frames: dict[SignalSettings, list[pd.DataFrame]] = {each: [] for each in wanted}
    for date in track(dates, "read", "dates"):
        made = post(forecast_set.read(date))
        for each, found in frames.items():
            head = heads.get(each.hold)
            score = None if head is None else head.read(made.index)
            found.append(signals(made, each.hold, each.price, score, each.levels))
    return {each: pd.concat(found).sort_index() for each, found in frames.items()}


def find_postprocessing(
    forecast_set: ForecastSet, first: pd.Timestamp, options: PathOptions
) -> Postprocessing:
    """The postprocessing of stored paths, by a calibration of the model that made them.

    Raises:
        FileNotFoundError: no such calibration.
        ValueError: the given calibration does not fit the forecasts.
    """
    provenance, raw = forecast_set.settings.provenance, forecast_set.read(first)
    own = checkpoint_calibration(provenance.model)
    return options.resolve(own, provenance, raw.horizon, raw.spacing)


def find_dates(
    forecast_set: ForecastSet, start: datetime | None = None, end: datetime | None = None
) -> pd.DatetimeIndex:
    """The stored dates of a span; all when omitted.

    Raises:
        ValueError: there are fewer than two.
    """
    known = forecast_set.dates
    first = known[0] if start is None else pd.Timestamp(start)
    last = known[-1] if end is None else pd.Timestamp(end)
    if last == last.normalize():  # a date without a time ends with its last bar
        last += pd.Timedelta(days=1) - pd.Timedelta(1)
    dates = known[(known >= first) & (known <= last)]
    if len(dates) < 2:
        raise ValueError(
            f"{forecast_set.folder} has {len(dates)} forecast dates from {first:%Y-%m-%d} to {last:%Y-%m-%d}, "
            f"and a backtest needs 2. It has {known[0]:%Y-%m-%d} to {known[-1]:%Y-%m-%d}."
        )
    return dates


def find_scores(forecast_set: ForecastSet, score: str, head: str | None, hold: int) -> HeadScores | None:
    """The stored scores of a return head, None to score by the paths.

    Args:
        forecast_set: stored forecasts.
        score: "head", "paths", or "auto" for the head where one has scores at `hold` bars.
        head: name of the head, if there are several.
        hold: bars that the score spans.

    Raises:
        ValueError: there are none, or several.
    """
    if score == "paths":
        return None
    model = forecast_set.folder.parent
    found = find_head_scores(model, forecast_set.settings.spec, hold, head)
    if found is None and score == "head":
        raise ValueError(
            f"{model} has no scores of a return head at {hold} bars for these windows. Add them with `kronos store "
            "fill`, or choose --score paths."
        )
    return found


@dataclass(frozen=True)
class BacktestPrices:
    """Prices of a backtest.

    Attributes:
        panel: adjusted prices of the instruments.
        factors: bars x instruments, adjusted / unadjusted price; None where they are unknown.
        trading: usual execution and costs of the region, by `kronos_strategies.data.qlib_store`.
    """

    panel: PricePanel
    factors: pd.DataFrame | None
    trading: TradingRules


def read_prices(path: Path, instruments: Sequence[str], freq: str | None = None) -> BacktestPrices:
    """Read the bars of instruments; bars without four prices or with a volume of 0 are left out.

    Args:
        path: a Qlib data directory, a CSV or parquet file of bars, or a folder of such files.
        instruments: instruments to read.
        freq: Qlib's name of the bar frequency of a data directory; its own when omitted.

    Raises:
        FileNotFoundError: there is nothing at the path.
        ValueError: an instrument has no bars, or a file cannot be read.
    """
    path = path.expanduser()
    region = region_of_store(path) if is_qlib_directory(path) else guess_region(instruments)
    raw = _of_qlib(path, instruments, freq) if is_qlib_directory(path) else _of_files(path, instruments)
    traded = raw[list(PRICES)].notna().all(axis=1)
    if raw["volume"].notna().any():  # otherwise the data have no volume, which does not mean no trade
        traded &= ~raw["volume"].eq(0)
    raw = raw[traded].set_index(["datetime", "instrument"]).sort_index()
    factors = raw["factor"].unstack("instrument") if "factor" in raw else None
    trading = TradingRules(
        open_cost=region.open_cost,
        close_cost=region.close_cost,
        min_cost=region.min_cost,
        limit=region.limit or 0.0,
        lot=LOTS[region.name] if factors is not None else 0,
    )
    bars = raw if factors is None else adjust_bars(raw)
    return BacktestPrices(PricePanel.from_bars(bars), factors, trading)


def read_benchmark(path: Path, instrument: str, freq: str | None = None) -> pd.Series:
    """Returns of an instrument from close to close, by datetime.

    Raises:
        ValueError: the data do not have it.
    """
    path = path.expanduser()
    if is_qlib_directory(path) and not bin_folder(path, instrument).is_dir():
        raise ValueError(f"{path} has no bars of '{instrument}'. Name a benchmark that it has.")
    closes = read_prices(path, [instrument], freq).panel.closes[instrument]
    return closes.pct_change(fill_method=None).rename(instrument)


def cut_prices(panel: PricePanel, start: pd.Timestamp, end: pd.Timestamp) -> PricePanel:
    """The bars of a panel from `start` to `end`."""
    frames = {name: frame.loc[start:end] for name, frame in vars(panel).items() if name in _FRAMES}
    return replace(panel, **frames)


_FRAMES = ("opens", "closes", "amounts", "range_variance")


def _of_qlib(path: Path, instruments: Sequence[str], freq: str | None) -> pd.DataFrame:
    return read_bars(path, list(instruments), freq=freq)


def _of_files(path: Path, instruments: Sequence[str]) -> pd.DataFrame:
    found = read_files(path, instruments=tuple(instruments)).bars
    frames = [
        bars.rename_axis("datetime").reset_index().assign(instrument=name) for name, bars in found.items()
    ]
    table = pd.concat(frames, ignore_index=True)
    if "volume" not in table:
        table["volume"] = float("nan")
    return table
