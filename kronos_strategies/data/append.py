"""Append days to a data directory, rescaling its older prices if they were readjusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos_strategies.data.qlib_bins import read_bars, read_market
from kronos_strategies.data.qlib_store import CHECKSUMS, StoreSummary, check_intact, read_summary
from kronos_strategies.data.validation import KEYS, LISTING, listing_spans

SAME = 2e-3  # tolerance of equal price ratios, for rounding
JUMP = 0.3  # without a common day, a larger move may be a split
ALL = "all"


@dataclass(frozen=True)
class Appended:
    """A store's history with new days.

    Attributes:
        bars: tidy bars of the instruments.
        benchmarks: tidy; None without any.
        membership: a frame of SPAN by market.
        source: combined provenance, for the manifest.
        notes: remarks for the user.
    """

    bars: pd.DataFrame
    benchmarks: pd.DataFrame | None
    membership: Mapping[str, pd.DataFrame]
    source: Mapping[str, object]
    notes: tuple[str, ...]


def append_days(
    store: Path,
    bars: pd.DataFrame,
    benchmarks: pd.DataFrame | None,
    source: Mapping[str, object],
    spans: tuple[str, pd.DataFrame] | None = None,
) -> Appended:
    """Append new bars to those of a data directory; new bars replace stored ones of the same day.

    If prices of the common days differ by one ratio, as after a dividend or a split, the store's older bars are
    multiplied by it. If there are several ratios, appending fails.

    Args:
        store: store written by `write_store`.
        bars: new bars of the instruments, tidy.
        benchmarks: new bars of its benchmarks.
        source: provenance of the new files.
        spans: a market and its dated membership, which replaces the stored one.

    Raises:
        FileNotFoundError: no such data directory.
        ValueError: the data directory is damaged, the bars do not continue its own, or its benchmark is missing.
    """
    known = read_summary(store)
    if (store / CHECKSUMS).is_file():  # earlier versions wrote none
        check_intact(store)
    _check_benchmarks(known, benchmarks)
    before = read_bars(store)
    whole, notes = join_bars(before, bars)
    indices = None
    if known.benchmarks:
        assert benchmarks is not None  # just checked
        indices, more = join_bars(read_bars(store, known.benchmarks), benchmarks, "benchmark")
        notes += more
    membership, more = _membership(store, known, before, whole, spans)
    appended = [*_list(known.source.get("appended")), dict(source)]
    return Appended(whole, indices, membership, {**known.source, "appended": appended}, (*notes, *more))


def join_bars(old: pd.DataFrame, new: pd.DataFrame, what: str = "bars") -> tuple[pd.DataFrame, list[str]]:
    """Old bars, rescaled if needed, with those of common days replaced by the new ones.

    Raises:
        ValueError: their columns differ, or they have no single ratio.
    """
    _check_columns(old, new, what)
    parts: list[pd.DataFrame] = []
    rebased: list[str] = []
    unjoined: list[str] = []
    unfinished: list[str] = []
    olds = dict(iter(old.groupby("instrument")))
    for name, after in new.groupby("instrument"):
        before = olds.pop(str(name), None)
        if before is None:
            parts.append(after)
            continue
        ratios = _ratios(str(name), before, after)
        if ratios is None:
            unjoined.append(str(name))
        else:
            before = _scaled(before, *ratios[:3])
            rebased += [str(name)] if max(abs(ratio - 1) for ratio in ratios[:3]) > SAME else []
            unfinished += [str(name)] if ratios.unfinished else []
        parts += [before[~before["datetime"].isin(after["datetime"])], after]
    whole = pd.concat([*olds.values(), *parts], ignore_index=True)
    notes = []
    if rebased:
        notes.append(
            f"prices before the new {what} were readjusted (a split or dividend) and the stored ones rescaled: "
            f"{_some(rebased)}."
        )
    if unfinished:
        notes.append(
            f"the last {what} of the data directory were incomplete and are replaced: {_some(unfinished)}."
        )
    if unjoined:
        notes.append(
            f"new {what} have no common day with the data directory, so that a split or dividend is not detected: "
            f"{_some(unjoined)}. Pass files that repeat the last day there."
        )
    return whole.sort_values(list(KEYS), ignore_index=True), notes


class _Ratios(NamedTuple):
    """Ratios new / old, and whether the store's last bar was incomplete."""

    price: float
    volume: float
    factor: float
    unfinished: bool


def _ratios(name: str, old: pd.DataFrame, new: pd.DataFrame) -> _Ratios | None:
    """Ratios new / old of raw prices, volumes and factors; None if there is no common day.

    The last bar of the store may be incomplete. It then has the open of the new one and a narrower range; it is
    replaced, and only the ratio of the opens is used.

    Raises:
        ValueError: the common days have several ratios, or there is no common day and prices jump.
    """
    left, right = old.set_index("datetime"), new.set_index("datetime")
    shared = left.index.intersection(right.index)
    if shared.empty:
        _check_jump(name, left, right)
        return None
    left, right = left.loc[shared], right.loc[shared]
    raw, factor = right[list(PRICES)] / left[list(PRICES)], right["factor"] / left["factor"]
    adjusted = raw.mul(factor, axis=0)
    middle = float(adjusted["open"].median())
    relative = adjusted / middle
    same = (relative - 1).abs() <= _tolerance(left[list(PRICES)], right[list(PRICES)])
    odd = ~same.all(axis=1)
    last = old["datetime"].iloc[-1]
    unfinished = bool(odd.get(last, False)) and _grew(relative.loc[last], bool(same.loc[last, "open"]))
    odd &= ~(unfinished & (shared == last))
    if odd.any():
        day = shared[int(np.argmax(odd))]
        ratio = adjusted.loc[day, (relative.loc[day] - 1).abs().idxmax()]
        raise ValueError(
            f"{name} has other prices in the new files than in the data directory, by {middle:.4g} on most common "
            f"days and by {ratio:.4g} on {day:%Y-%m-%d}, so they cannot be rescaled by one ratio. Import its whole "
            "history with --overwrite."
        )
    price = float(raw["open"].median())
    whole = shared[shared != last] if unfinished else shared
    volumes = (right["volume"] / left["volume"])[whole].replace([np.inf, -np.inf], np.nan)
    volume = 1.0 if volumes.isna().all() else float(volumes.median())
    return _Ratios(price, volume, middle / price, unfinished)


def _tolerance(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Tolerance of price ratios; rounding to cents matters for low prices."""
    rounded = all(np.allclose(prices, prices.round(2), rtol=1e-6, atol=0) for prices in (left, right))
    return SAME + 0.005 * (1 / left + 1 / right) * rounded


def _grew(relative: pd.Series, same_open: bool) -> bool:
    """Whether a bar may be the complete version of an incomplete one."""
    return same_open and relative["high"] >= 1 - SAME and relative["low"] <= 1 + SAME


def _check_jump(name: str, old: pd.DataFrame, new: pd.DataFrame) -> None:
    if new.index[0] < old.index[-1]:
        return
    last = old["close"].iloc[-1] * old["factor"].iloc[-1]
    move = new["open"].iloc[0] * new["factor"].iloc[0] / last - 1
    if abs(move) > JUMP:
        raise ValueError(
            f"{name} opens {move:+.0%} from its last close in the data directory, {old.index[-1]:%Y-%m-%d} to "
            f"{new.index[0]:%Y-%m-%d}, and no common day shows whether it is a split. Pass files that repeat "
            "the last day there, or import the whole history with --overwrite."
        )


def _scaled(bars: pd.DataFrame, price: float, volume: float, factor: float) -> pd.DataFrame:
    near = [1.0 if abs(ratio - 1) <= 1e-6 else ratio for ratio in (price, volume, factor)]
    scaled = bars.assign(volume=bars["volume"] * near[1], factor=bars["factor"] * near[2])
    scaled[list(PRICES)] = bars[list(PRICES)] * near[0]
    return scaled


def _check_columns(old: pd.DataFrame, new: pd.DataFrame, what: str) -> None:
    has = ["amount" in frame and frame["amount"].notna().any() for frame in (old, new)]
    if has[0] != has[1]:
        lacking = "new files" if has[0] else "data directory"
        raise ValueError(
            f"The {what} of the {lacking} have no amount and the others do. Import files with the same columns, "
            "or the whole history with --overwrite."
        )


def _check_benchmarks(known: StoreSummary, benchmarks: pd.DataFrame | None) -> None:
    given = set() if benchmarks is None else set(benchmarks["instrument"])
    if lacking := sorted(set(known.benchmarks) - given):
        raise ValueError(
            f"{known.path} has the benchmark {lacking[0]}, which lacks the new days. Pass them with "
            "--benchmark."
        )


def _membership(
    store: Path,
    known: StoreSummary,
    before: pd.DataFrame,
    whole: pd.DataFrame,
    given: tuple[str, pd.DataFrame] | None,
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Membership of every market but `all`: as given, from first to last bar, or with current members continued."""
    end, last = whole["datetime"].max(), before["datetime"].max()
    found: dict[str, pd.DataFrame] = {}
    notes = []
    for market in sorted(set(known.markets) - {ALL} | ({given[0]} if given else set())):
        if given is not None and market == given[0]:
            found[market] = given[1]
        elif known.source.get("membership") == LISTING:
            found[market] = listing_spans(whole)
        else:
            spans = read_market(store, market)
            found[market] = spans.assign(end=spans["end"].where(spans["end"] < last, end))
            if end > last:
                notes.append(
                    f"members of {market} on {last:%Y-%m-%d} stay until {end:%Y-%m-%d} (see --membership)."
                )
    return found, notes


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _some(names: list[str], most: int = 5) -> str:
    text = ", ".join(names[:most])
    return f"{text}, ... ({len(names)})" if len(names) > most else text
