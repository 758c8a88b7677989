"""New days for a store: its bars and the new ones as one history, re-based where prices were adjusted anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kronos.bars import PRICES
from kronos_strategies.data.qlib_bins import read_bars, read_market
from kronos_strategies.data.qlib_store import StoreSummary, read_summary
from kronos_strategies.data.tidy import KEYS, LISTING, listing_spans

SAME = 2e-3  # ratios of prices that vendors round to cents
JUMP = 0.3  # between days that no file joins, a larger move may be a split
ALL = "all"


@dataclass(frozen=True)
class Appended:
    """A store's history with new days.

    Attributes:
        bars: tidy, of shares.
        benchmarks: tidy; None without any.
        membership: by market, a frame of SPAN.
        source: how the whole came about, for the manifest.
        notes: what a reader must know.
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
    """Join new bars to those of a store; where both have a day, the new one counts.

    Where prices of the days that both have differ by one ratio, as after a dividend or a split, the store's older
    bars are multiplied by it. Where they differ by more than one, nothing is joined.

    Args:
        store: that `write_store` wrote.
        bars: new bars of shares, tidy.
        benchmarks: new bars of its benchmarks.
        source: of the new files.
        spans: a market and its dated membership, in the place of what the store knows of it.

    Raises:
        FileNotFoundError: no such store.
        ValueError: bars that do not go on from those of the store, or lack its benchmark.
    """
    known = read_summary(store)
    _check_benchmarks(known, benchmarks)
    before = read_bars(store)
    whole, notes = join_bars(before, bars)
    indices = None
    if known.benchmarks:
        assert benchmarks is not None  # just checked
        indices, more = join_bars(read_bars(store, known.benchmarks), benchmarks, "benchmark")
        notes += more
    membership, told = _membership(store, known, before, whole, spans)
    appended = [*_list(known.source.get("appended")), dict(source)]
    return Appended(whole, indices, membership, {**known.source, "appended": appended}, (*notes, *told))


def join_bars(old: pd.DataFrame, new: pd.DataFrame, what: str = "bars") -> tuple[pd.DataFrame, list[str]]:
    """Old bars, re-based where it takes that, and new ones in the place of those of the same day.

    Raises:
        ValueError: they are of different columns, or no single ratio joins them.
    """
    _check_columns(old, new, what)
    parts, rebased, unjoined = [], [], []
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
            before = _scaled(before, *ratios)
            rebased += [str(name)] if max(abs(ratio - 1) for ratio in ratios) > SAME else []
        parts += [before[~before["datetime"].isin(after["datetime"])], after]
    whole = pd.concat([*olds.values(), *parts], ignore_index=True)
    notes = []
    if rebased:
        notes.append(
            f"prices before the new {what} were adjusted anew and are re-based: {_some(rebased)} (splits and "
            "dividends since)."
        )
    if unjoined:
        notes.append(
            f"new {what} share no day with the store, so that nobody can tell whether they were adjusted anew: "
            f"{_some(unjoined)}. Files that repeat the last day of the store tell."
        )
    return whole.sort_values(list(KEYS), ignore_index=True), notes


def _ratios(name: str, old: pd.DataFrame, new: pd.DataFrame) -> tuple[float, float, float] | None:
    """New over old of raw prices, of volumes and of factors; None where they share no day.

    Raises:
        ValueError: the shared days have several ratios, or bars without one jump.
    """
    left, right = old.set_index("datetime"), new.set_index("datetime")
    shared = left.index.intersection(right.index)
    if shared.empty:
        _check_jump(name, left, right)
        return None
    left, right = left.loc[shared], right.loc[shared]
    raw, factor = right["close"] / left["close"], right["factor"] / left["factor"]
    adjusted = raw * factor
    middle = float(adjusted.median())
    odd = (adjusted / middle - 1).abs() > SAME
    if odd.any():
        day = shared[int(np.argmax(odd))]
        raise ValueError(
            f"{name} has other prices in the new files than in the store, by {middle:.4g} on most common days "
            f"and by {adjusted[day]:.4g} on {day:%Y-%m-%d}, so no ratio joins them. Import its whole history with "
            "--overwrite."
        )
    price = float(raw.median())
    volume = (right["volume"] / left["volume"]).replace([np.inf, -np.inf], np.nan).median()
    return price, 1.0 if pd.isna(volume) else float(volume), middle / price


def _check_jump(name: str, old: pd.DataFrame, new: pd.DataFrame) -> None:
    if new.index[0] < old.index[-1]:
        return
    last = old["close"].iloc[-1] * old["factor"].iloc[-1]
    move = new["open"].iloc[0] * new["factor"].iloc[0] / last - 1
    if abs(move) > JUMP:
        raise ValueError(
            f"{name} opens {move:+.0%} from its last close in the store, {old.index[-1]:%Y-%m-%d} to "
            f"{new.index[0]:%Y-%m-%d}, and no common day tells if it is a split. Give files that repeat the last "
            "day of the store, or import the whole history with --overwrite."
        )


def _scaled(bars: pd.DataFrame, price: float, volume: float, factor: float) -> pd.DataFrame:
    near = [1.0 if abs(ratio - 1) <= 1e-6 else ratio for ratio in (price, volume, factor)]
    scaled = bars.assign(volume=bars["volume"] * near[1], factor=bars["factor"] * near[2])
    scaled[list(PRICES)] = bars[list(PRICES)] * near[0]
    return scaled


def _check_columns(old: pd.DataFrame, new: pd.DataFrame, what: str) -> None:
    has = ["amount" in frame and frame["amount"].notna().any() for frame in (old, new)]
    if has[0] != has[1]:
        lacking = "new files" if has[0] else "store"
        raise ValueError(
            f"The {what} of the {lacking} have no amount and the others do. Import like with like, or the whole "
            "history with --overwrite."
        )


def _check_benchmarks(known: StoreSummary, benchmarks: pd.DataFrame | None) -> None:
    given = set() if benchmarks is None else set(benchmarks["instrument"])
    if lacking := sorted(set(known.benchmarks) - given):
        raise ValueError(
            f"The store {known.path} has the benchmark {lacking[0]}, which lacks the new days. Give them with "
            "--benchmark."
        )


def _membership(
    store: Path,
    known: StoreSummary,
    before: pd.DataFrame,
    whole: pd.DataFrame,
    given: tuple[str, pd.DataFrame] | None,
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Of every market but `all`: as given, from first to last bar, or with the stays of the last day going on."""
    end, last = whole["datetime"].max(), before["datetime"].max()
    found: dict[str, pd.DataFrame] = {}
    told = []
    for market in sorted(set(known.markets) - {ALL} | ({given[0]} if given else set())):
        if given is not None and market == given[0]:
            found[market] = given[1]
        elif known.source.get("membership") == LISTING:
            found[market] = listing_spans(whole)
        else:
            spans = read_market(store, market)
            found[market] = spans.assign(end=spans["end"].where(spans["end"] < last, end))
            if end > last:
                told.append(
                    f"members of {market} on {last:%Y-%m-%d} stay until {end:%Y-%m-%d} (see --membership)."
                )
    return found, told


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _some(names: list[str], most: int = 5) -> str:
    text = ", ".join(names[:most])
    return f"{text}, ... ({len(names)})" if len(names) > most else text
