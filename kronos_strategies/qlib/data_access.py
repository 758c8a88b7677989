"""Read bars, members, calendars and windows from Qlib data directories."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import qlib
from qlib.config import C
from qlib.data import D
from qlib.data import filter as filters
from qlib.log import set_global_logger_level

from kronos.bars import FEATURES, PRICES, repair_bars
from kronos.panels import KEYS
from kronos.windows import Windows
from kronos_strategies.backtest_result import QLIB_BARS_PER_YEAR
from kronos_strategies.backtest_result import bars_per_year as annual_bars
from kronos_strategies.data.qlib_bins import DAY, bin_folder, later_sessions
from kronos_strategies.data.qlib_store import region_of_store
from kronos_strategies.data.simulate import data_warnings, default_store, ensure_store
from kronos_strategies.qlib.experiment import TRACKING, KronosExpManager
from kronos_strategies.store import WindowSpec


@dataclass(frozen=True)
class StoreBars:
    """All bars that a store has of some instruments, read once for everything that is computed from them.

    Attributes:
        frame: indexed (instrument, datetime), columns FEATURES, adjusted; NaN on suspended bars.
    """

    frame: pd.DataFrame

    @classmethod
    def read(
        cls,
        instruments: Sequence[str],
        end: pd.Timestamp | None = None,
        freq: str = DAY,
        start: pd.Timestamp | None = None,
    ) -> StoreBars:
        """Bars from `start` up to and with `end`; all of them when omitted."""
        fields = [f"${name}" for name in FEATURES]
        found = D.features(sorted(set(instruments)), fields, start, end, freq=freq)
        return cls(found.set_axis(list(FEATURES), axis=1))

    def traded(self, instruments: Iterable[str] | None = None) -> dict[str, pd.DataFrame]:
        """Bars by instrument, suspended ones left out; of all instruments when omitted. See `traded_rows`."""
        by_name = self.traded_rows(instruments).groupby(level="instrument")
        return {str(name): bars.droplevel("instrument") for name, bars in by_name}

    def traded_rows(self, instruments: Iterable[str] | None = None) -> pd.DataFrame:
        """Traded bars by (instrument, datetime); of all instruments when omitted.

        A bar counts as traded if it has four prices and its volume is not 0. Amount, where the store has none, is
        completed from volume and prices; both are 0 where there is no volume either. A high or low that adjustment
        has rounded past open or close is stretched to it.
        """
        frame = self.frame
        if instruments is not None:
            frame = frame[frame.index.isin(list(instruments), level="instrument")]
        frame = frame[frame[list(PRICES)].notna().all(axis=1) & ~frame["volume"].eq(0)].astype(float)
        typical = frame[list(PRICES)].mean(axis=1)
        frame["amount"] = frame["amount"].fillna(frame["volume"] * typical).fillna(0.0)
        frame["volume"] = frame["volume"].fillna(0.0)
        return repair_bars(frame)

    def closes(self, instruments: Iterable[str]) -> pd.DataFrame:
        """Dates x instruments; on a suspended bar the last known close, which was known then."""
        names = sorted(set(instruments))
        rows = self.frame.index.isin(names, level="instrument")
        return self.frame.loc[rows, "close"].unstack("instrument").ffill()

    def equal_weight(self, members: pd.MultiIndex, dates: pd.Index) -> pd.Series:
        """Return by bar of all members at equal weights, rebalanced on each of `dates`, without costs.

        A suspended member earns 0 until it trades again, and then its whole return since the last close.
        """
        closes = self.closes(members.get_level_values("instrument"))
        moves = pd.Series(closes.pct_change(fill_method=None).stack())
        return moves.reindex(members).groupby(level="datetime").mean().reindex(dates)


def traded_bars(
    instruments: Sequence[str], end: pd.Timestamp | None, freq: str = DAY
) -> dict[str, pd.DataFrame]:
    """Adjusted bars up to and with `end` by instrument, see `StoreBars.traded`."""
    return StoreBars.read(instruments, end, freq).traded()


def member_windows(
    spec: WindowSpec,
    start: pd.Timestamp,
    end: pd.Timestamp,
    instruments: Instruments | None = None,
    freq: str = DAY,
    every: int = 1,
) -> Windows:
    """The windows of every member that traded, on every bar from `start` to `end`.

    An instrument has a window on the dates on which it is a member and trades. A window has the last *traded* bars,
    including those from before it was a member. Future timestamps are those of the trading calendar, extrapolated
    after its end at the same frequency.

    Args:
        spec: specification of the windows.
        start: first bar.
        end: last bar.
        instruments: instruments that may have a window; the market `spec.universe` when omitted.
        freq: Qlib's name of the bar frequency.
        every: bars from one forecast to the next, see `Windows.rolling`.

    Raises:
        ValueError: no member has enough bars.
    """
    members = member_rows(spec.universe if instruments is None else instruments, start, end, freq)
    names = sorted(members.get_level_values("instrument").unique())
    return Windows.rolling(
        traded_bars(names, end, freq),
        spec.lookback,
        spec.horizon,
        trading_calendar(freq, spec.horizon),
        start=start,
        end=end,
        index=members,
        min_bars=spec.min_bars,
        every=every,
    )


def member_rows(
    instruments: Instruments, start: pd.Timestamp | None, end: pd.Timestamp | None, freq: str = DAY
) -> pd.MultiIndex:
    """(datetime, instrument) of each bar of each stay in the market, with or without a trade."""
    frame = D.features(instruments_of(instruments), ["$close"], start_time=start, end_time=end, freq=freq)
    return frame.index.reorder_levels(KEYS)


def scored_rows(
    spec: WindowSpec,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None,
    instruments: Instruments,
    freq: str = DAY,
) -> pd.MultiIndex:
    """The (datetime, instrument) of `member_windows`, without creating windows; may be empty."""
    members = member_rows(instruments, start, end, freq)
    names = sorted(members.get_level_values("instrument").unique())
    traded = StoreBars.read(names, end, freq).traded_rows()
    enough = traded.groupby(level="instrument").cumcount() >= spec.min_bars - 1
    return members[members.isin(traded[enough].reorder_levels([*KEYS]).index)].sort_values()


def trading_calendar(freq: str, ahead: int) -> pd.DatetimeIndex:
    """Qlib's calendar with `ahead` times after the last bar; an intraday one is continued with its own sessions."""
    calendar = pd.DatetimeIndex(D.calendar(future=True, freq=freq))
    last = pd.Timestamp(D.calendar(freq=freq)[-1])
    if freq == DAY or (calendar > last).sum() >= ahead:
        return calendar
    return pd.DatetimeIndex(calendar.append(later_sessions(calendar, ahead + 1)))


def bars_per_year(freq: str) -> tuple[int, float]:
    """Bars per year, used to annualize figures, and those that Qlib uses."""
    minutes = 240 if freq == DAY else pd.Timedelta(freq).total_seconds() / 60
    return annual_bars(D.calendar(freq=freq)), QLIB_BARS_PER_YEAR * 240 / minutes


def future_returns(
    keys: pd.MultiIndex, price: str, horizons: Sequence[int], freq: str = DAY
) -> dict[int, pd.Series]:
    """Returns that signals of these (datetime, instrument) rows can trade at a price of the store, by bars held."""
    names = sorted(keys.get_level_values("instrument").unique())
    fields = [f"Ref(${price},-{1 + h})/Ref(${price},-1)-1" for h in horizons]
    frame = D.features(names, fields, freq=freq).reorder_levels(KEYS)
    return {h: frame[field].reindex(keys) for h, field in zip(horizons, fields, strict=True)}


Instruments = str | Sequence[str] | Mapping[str, Any]
Config = list[str] | dict[str, Any]  # as in Qlib's D.features


def instruments_of(instruments: Instruments, filter_pipe: Sequence[object] | None = None) -> Config:
    """Instruments in the form that Qlib reads features of.

    Args:
        instruments: the name of a market, symbols, or a dict of a market and its filters, as `D.instruments` has
            it, or of symbols and their spans.
        filter_pipe: Qlib's filters or their configurations, of a market by name.

    Raises:
        ValueError: no symbol, or filters without a market.
    """
    if isinstance(instruments, str):
        try:
            config = dict(D.instruments(instruments, list(filter_pipe or ())))
            for each in config["filter_pipe"]:
                getattr(filters, each["filter_type"]).from_config(
                    each
                )  # Qlib creates them when it reads bars
            return config
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"filter_pipe cannot be read ({error}). Pass filters of qlib.data.filter, or their settings as "
                "returned by `to_config()`."
            ) from error
    if filter_pipe:
        raise ValueError(
            "filter_pipe applies only to a market given by its name. Remove it, or name a market."
        )
    if isinstance(instruments, Mapping):
        return dict(D.instruments(**instruments)) if "market" in instruments else dict(instruments)
    symbols = [str(each) for each in instruments]
    if not symbols:
        raise ValueError("The list of instruments is empty. Name at least one, or a market.")
    return symbols


def universe_name(config: Config, freq: str = DAY) -> str:
    """A short name: that of the market, with a hash where filters or a list select members, and the frequency."""
    suffix = "" if freq == DAY else f"-{freq}"
    if isinstance(config, dict) and "market" in config and not config.get("filter_pipe"):
        return f"{config['market']}{suffix}"
    base = str(config["market"]) if isinstance(config, dict) and "market" in config else "list"
    text = json.dumps(sorted(config) if isinstance(config, list) else config, sort_keys=True, default=str)
    return f"{base}-{hashlib.sha256(text.encode()).hexdigest()[:8]}{suffix}"


def check_instruments(config: Config, store: Path) -> None:
    """Check that a store has the market or the instruments.

    Raises:
        ValueError: it does not; names the markets that it has, or an instrument that it lacks.
    """
    if isinstance(config, dict) and "market" in config:
        market, known = config["market"], sorted(path.stem for path in (store / "instruments").glob("*.txt"))
        if market not in known:
            raise ValueError(f"{store} has no market '{market}'. It has {known}.")
        return
    if absent := [symbol for symbol in config if not bin_folder(store, symbol).is_dir()]:
        raise ValueError(
            f"{store} lacks bars of {len(absent)} of {len(config)} instruments, the first '{absent[0]}'. "
            "Write them as the data directory does, e.g. SH600000."
        )


def init_qlib(
    folder: Path, tracking: str = TRACKING, region: str | None = "cn", freq: str = DAY
) -> list[str]:
    """Initialize Qlib with the data directory `folder`, quietly; return warnings about the data.

    Args:
        folder: Qlib data directory.
        tracking: URI of the MLflow tracking store; nothing is written to it here.
        region: Qlib's region, which sets trading rules and not what is read; that of the data when None.
        freq: Qlib's name of the frequency of the bars that are read.

    Raises:
        FileNotFoundError: it is not a Qlib data directory, or has no bars of that frequency.
    """
    folder = folder.expanduser().resolve()
    _check_there(folder, freq)
    manager = {
        "class": KronosExpManager.__name__,
        "module_path": KronosExpManager.__module__,
        "kwargs": {"uri": tracking, "default_exp_name": "kronos"},
    }
    region = region or region_of_store(folder).name
    qlib.init(
        provider_uri=str(folder), region=region, kernels=1, logging_level=logging.WARNING, exp_manager=manager
    )
    set_global_logger_level(logging.ERROR)  # its recorder warns that a new experiment is new
    return data_warnings(folder)


def store_folder(freq: str = DAY) -> Path:
    """The folder that Qlib reads bars of a frequency from.

    Raises:
        ValueError: Qlib is not initialized, or not for this frequency.
    """
    if not C.registered:
        raise ValueError(
            'Qlib is not initialized. Call qlib.init(provider_uri="~/csi300", region="cn") first.'
        )
    try:
        return Path(C.dpm.get_data_uri(freq))
    except KeyError:
        known = sorted(str(each) for each in C.dpm.provider_uri)
        raise ValueError(
            f"Qlib has no data of freq='{freq}', only of {known}. Add it to provider_uri in qlib.init."
        ) from None


def qlib_warnings(freq: str = DAY) -> list[str]:
    """Check the store that Qlib reads; return warnings about it for the report.

    Raises:
        ValueError: Qlib is not initialized.
        FileNotFoundError: no Qlib data directory there, or none of this frequency.
    """
    folder = store_folder(freq)
    _check_there(folder, freq)
    return [*data_warnings(folder), *_region_warnings(folder)]


def _region_warnings(folder: Path) -> list[str]:
    """A warning if Qlib's region differs from that of the store."""
    expected = region_of_store(folder)
    if C.region == expected.name:
        return []
    return [
        f"Qlib uses the trading rules of region '{C.region}', but instruments of {folder} have symbols of region "
        f"'{expected.name}' ({expected}). Set KRONOS_REGION={expected.name}, or region in qlib_init, unless this "
        "is intended."
    ]


def _check_there(folder: Path, freq: str = DAY) -> None:
    """Create the default store on first use; check that any other one exists."""
    if folder.resolve() == default_store().resolve():  # Qlib has resolved its own path
        ensure_store(folder)
    calendar = folder / "calendars" / f"{freq}.txt"
    if calendar.is_file():
        return
    others = sorted(path.stem for path in folder.glob("calendars/*.txt") if "future" not in path.stem)
    if others:
        raise FileNotFoundError(
            f"{folder} has bars of {others}, not of freq='{freq}' (no calendars/{freq}.txt). Choose one, or "
            "import bars of that frequency."
        )
    raise FileNotFoundError(
        f"{folder} is not a Qlib data directory (no calendars/{freq}.txt). Create one with `kronos data import "
        f"FILE... --to {folder}`, or unset KRONOS_QLIB_DATA to run on a simulated market."
    )
