"""A simulated stock market, so that every command runs without real data.

It obeys the rules of an A-share exchange (ticks, lots, 10 % limits, suspensions, splits, index reviews) and is
fully determined by its configuration. It contains one planted effect, a reversal of each instrument's own returns
over five days, which is several times as strong as effects in real markets: a head fitted on the first years
should find it in the last. An information coefficient measured here shows that the pipeline finds the planted
effect; it is not evidence of alpha. `planted.py` simulates markets with a known optimum.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kronos_strategies.data._simulator import Life, Sessions, latent_returns, trade
from kronos_strategies.data.qlib_store import MANIFEST, StoreSummary, read_summary, write_store
from kronos_strategies.data.validation import LISTING

SIMULATION_VERSION = 2  # raise it whenever the same configuration gives other numbers
BENCHMARK = "SH000300"

_HOLIDAYS = ("01-01", "01-02", "05-01", "05-02", "05-03", "10-01", "10-02", "10-03", "10-04", "10-05")
_REVIEW_DAYS = 42  # sessions between two index reviews
_SPLIT_DAYS = 110  # sessions between two splits
_INDEX_SHARE = 0.75  # share of the instruments, by capital


@dataclass(frozen=True)
class MarketConfig:
    """Configuration of a simulated market.

    Attributes:
        seed: seed of the Philox generator.
        instruments: number of instruments.
        sectors: number of sectors they belong to.
        start: first possible day.
        end: last possible day.
        reversal: strength of the planted effect: the part of the mean own return of the last five days that is
            expected to be given back on the next day. 0 for no effect. The default gives the plain signal
            "minus the last five-day return" a mean RankIC of about .11 against the next close-to-close return.
    """

    seed: int = 0
    instruments: int = 80
    sectors: int = 8
    start: str = "2021-01-04"
    end: str = "2023-12-29"
    reversal: float = 0.3

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} is negative. Pass 0 or more.")
        if self.instruments < 2:
            raise ValueError(f"instruments={self.instruments} is too small. Pass at least 2.")
        if self.sectors < 1:
            raise ValueError(f"sectors={self.sectors} is too small. Pass at least 1.")
        if not 0 <= self.reversal < 1:
            raise ValueError(f"reversal={self.reversal} is out of range. Pass a number in [0, 1).")
        if len(trading_days(self.start, self.end)) < 2:
            raise ValueError(f"{self.start} to {self.end} has fewer than 2 trading days. Widen the span.")


@dataclass(frozen=True)
class SimulatedMarket:
    """A market as an exchange would publish it.

    Attributes:
        bars: one row per (instrument, datetime) that traded: open, high, low, close (raw), volume (shares),
            amount, and factor (adjusted price = raw price * factor).
        membership: instrument, start, end: spans of index members, both ends included. A review
            uses the closes of the day before it takes effect.
        benchmark: bars of the capital-weighted index BENCHMARK of the members.
        sectors: sector name of each instrument.
        config: its configuration.
    """

    bars: pd.DataFrame
    membership: pd.DataFrame
    benchmark: pd.DataFrame
    sectors: pd.Series
    config: MarketConfig


def simulate_market(config: MarketConfig) -> SimulatedMarket:
    """Simulate the market of `config`; equal configurations give equal markets."""
    days = trading_days(config.start, config.end)
    returns_rng, life_rng, session_rng = (
        np.random.Generator(np.random.Philox(stream))
        for stream in np.random.SeedSequence(config.seed).spawn(3)
    )
    latent = latent_returns(len(days), config.instruments, config.sectors, config.reversal, returns_rng)
    life = _life(len(days), config.instruments, life_rng)
    split_days = np.arange(1, len(days) + 1) % _SPLIT_DAYS == 0
    sessions = trade(latent, life, split_days, session_rng)
    members = _review(sessions.capital, life.listed)
    symbols = _symbols(config.instruments)
    return SimulatedMarket(
        bars=_bars(sessions, life.traded, days, symbols),
        membership=_spans(members, days, symbols),
        benchmark=_benchmark(sessions, members, days),
        sectors=pd.Series([f"sector {number}" for number in latent.sector], index=symbols, name="sector"),
        config=config,
    )


def trading_days(start: str, end: str) -> pd.DatetimeIndex:
    """Business days from `start` to `end` without the fixed holidays."""
    days = pd.bdate_range(start, end)
    return days[~days.strftime("%m-%d").isin(_HOLIDAYS)]


def _symbols(instruments: int) -> pd.Index:
    """Half Shanghai, half Shenzhen, in number ranges that no listed company has."""
    shanghai = (instruments + 1) // 2
    codes = [f"SH{609001 + i}" for i in range(shanghai)]
    return pd.Index(codes + [f"SZ{9001 + i:06d}" for i in range(instruments - shanghai)], name="instrument")


def _life(days: int, instruments: int, rng: np.random.Generator) -> Life:
    """Listings, delistings and suspensions, drawn independently of returns."""
    day = np.arange(days)[:, None]
    order = rng.permutation(instruments)
    late, early = order[: instruments // 10], order[instruments // 10 : instruments // 10 + instruments // 16]
    first, last = np.zeros(instruments, int), np.full(instruments, days - 1)
    first[late] = rng.integers(days // 10, days * 6 // 10 + 1, len(late))
    last[early] = rng.integers(days // 2, days * 9 // 10 + 1, len(early))
    listed = (day >= first) & (day <= last)

    halted = np.zeros((days, instruments), bool)
    halts = rng.poisson(1.5 * days / 750, instruments)
    name = np.repeat(np.arange(instruments), halts)
    begin = rng.integers(1, days, len(name))
    length = np.minimum(rng.geometric(0.15, len(name)), 30)
    for column, since, duration in zip(name, begin, length, strict=True):
        halted[since : since + duration, column] = True
    return Life(listed, listed & ~halted)


def _review(capital: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """(T, N) bool, in the index: the largest instruments by capital before the session, reviewed periodically."""
    days, instruments = capital.shape
    size = round(_INDEX_SHARE * instruments)
    members = np.zeros((days, instruments), bool)
    for day in range(0, days, _REVIEW_DAYS):
        eligible = listed[day] & listed[max(day - 1, 0)]
        ranking = np.argsort(np.where(eligible, -capital[day], np.inf), kind="stable")[:size]
        members[day : day + _REVIEW_DAYS, ranking] = True
        members[day : day + _REVIEW_DAYS] &= eligible
    return members & listed


def _spans(members: np.ndarray, days: pd.DatetimeIndex, symbols: pd.Index) -> pd.DataFrame:
    """(T, N) membership as rows of instrument, start, end, one row per stay."""
    edge = np.zeros((1, members.shape[1]), np.int8)
    steps = np.diff(np.concatenate([edge, members.astype(np.int8), edge]), axis=0)
    name, start = np.nonzero(steps.T == 1)
    _, stop = np.nonzero(steps.T == -1)
    return pd.DataFrame({"instrument": symbols[name], "start": days[start], "end": days[stop - 1]})


def _bars(sessions: Sessions, traded: np.ndarray, days: pd.DatetimeIndex, symbols: pd.Index) -> pd.DataFrame:
    """The tidy frame of all sessions with a trade, by instrument and then by time."""
    paths = sessions.paths
    columns = {
        "open": paths[:, :, 0],
        "high": paths.max(axis=2),
        "low": paths.min(axis=2),
        "close": paths[:, :, -1],
        "volume": sessions.volume,
        "amount": sessions.amount,
        "factor": sessions.factor,
    }
    name, day = np.nonzero(traded.T)
    keys = {"instrument": symbols[name], "datetime": days[day]}
    return pd.DataFrame(keys | {column: values[day, name] for column, values in columns.items()})


def _benchmark(sessions: Sessions, members: np.ndarray, days: pd.DatetimeIndex) -> pd.DataFrame:
    """The index of the members, weighted by capital at the previous close, from 4000 points on."""
    weight = np.where(members, sessions.capital, 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    growth = np.einsum("tn,tnk->tk", weight / sessions.reference, sessions.paths)
    before = 4000.0 * np.concatenate([[1.0], growth[:-1, -1].cumprod()])
    level = (before[:, None] * growth).round(2)
    return pd.DataFrame(
        {
            "instrument": BENCHMARK,
            "datetime": days,
            "open": level[:, 0],
            "high": level.max(axis=1),
            "low": level.min(axis=1),
            "close": level[:, -1],
            "volume": np.where(members, sessions.volume, 0.0).sum(axis=1),
        }
    )


log = logging.getLogger(__name__)


def default_store() -> Path:
    """Path of the default data directory: in $XDG_CACHE_HOME or ~/.cache, under the version of the simulation."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return cache / "kronos-strategies" / f"simulated-v{SIMULATION_VERSION}"


def ensure_store(path: Path) -> Path:
    """Return `path`, after simulating a market there if it contains no data directory yet.

    Several processes may call this at once: each builds a temporary copy, and the first to finish wins.
    """
    if not (path / MANIFEST).is_file():
        log.info("Simulating a market in %s ...", path)
        try:
            write_simulated(path, MarketConfig(), "csi300")
        except FileExistsError:
            if not (path / MANIFEST).is_file():
                raise
    return path


def data_warnings(path: Path) -> list[str]:
    """Warnings about results from the data directory at `path`, based on its manifest."""
    if not (path / MANIFEST).is_file():
        return []
    source = read_summary(path).source
    if source.get("kind") == "simulation":
        return [
            f"The market in {path} is SIMULATED: results are not evidence about a real market. For real bars: "
            "`kronos data import FILE... --to DIR`, then KRONOS_QLIB_DATA=DIR."
        ]
    if source.get("membership") == LISTING:
        return [
            "Instruments are members from their first to their last bar: if they were chosen with hindsight, "
            "results have survivorship bias (`kronos data import --membership FILE` gives dated membership)."
        ]
    return []


def write_simulated(
    to: Path,
    config: MarketConfig,
    market: str,
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> StoreSummary:
    """Simulate a market and write it as a Qlib data directory, its index members as `market`."""
    simulated = simulate_market(config)
    return write_store(
        simulated.bars,
        to,
        membership={market: simulated.membership},
        benchmarks=simulated.benchmark,
        source={"kind": "simulation", "version": SIMULATION_VERSION, "config": asdict(config)},
        overwrite=overwrite,
        progress=progress,
    )
