"""Bars of a Qlib data directory for training; `kronos train` passes this reader. Needs no Qlib."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from kronos.bars import FEATURES, PRICES, adjust_bars
from kronos.training.config import Source
from kronos.training.sources import InstrumentBars, match_instruments
from kronos_strategies.data.qlib_bins import bin_folder, read_bars, read_market, store_freq
from kronos_strategies.data.simulate import default_store, ensure_store


class QlibBars:
    """All bars of the members of a market of a Qlib data directory, including those from before they joined.

    Instruments that joined after the source's `end` or `validate_until` are left out, because selecting them would
    be look-ahead.

    Args:
        source: data directory with its market, instruments, fields and span; None for the simulated market,
            created on first use.

    Raises:
        ValueError: the data directory has no such market or instruments, or it had no members by the end.
    """

    def __init__(self, source: Source | None) -> None:
        self.store = ensure_store(default_store()) if source is None else source.path.expanduser()
        self.fields = dict(source.fields) if source else {}
        market = source.market if source else "csi300"
        if not (self.store / "instruments" / f"{market}.txt").is_file():
            known = sorted(path.stem for path in (self.store / "instruments").glob("*.txt"))
            raise ValueError(f"{self.store} has no market '{market}'. It has {known}.")
        spans = read_market(self.store, market)
        wanted = set(source.instruments) if source else set()
        found = match_instruments(sorted(set(spans["instrument"])), sorted(wanted))
        if absent := sorted(pattern for pattern in wanted if not match_instruments(sorted(found), [pattern])):
            raise ValueError(f"Market '{market}' of {self.store} never had {absent}. Check the instruments.")
        if wanted:
            spans = spans[spans["instrument"].isin(found)]
        ends = [end for end in (source.end, source.validate_until) if end is not None] if source else []
        if ends:
            spans = spans[spans["start"] <= min(map(pd.Timestamp, ends))]
        if spans.empty:
            when = f" by {min(ends)}. Set a later date" if ends else ". Choose another"
            raise ValueError(f"Market '{market}' of {self.store} has no members{when}.")
        self.instruments = sorted(spans["instrument"].unique())

    def files(self) -> list[Path]:
        """The calendar and the bins of all instruments."""
        names = [self.fields.get(name, name) for name in FEATURES] + ["factor"]
        freq = store_freq(self.store)
        bins = [
            file
            for symbol in self.instruments
            for name in names
            if (file := bin_folder(self.store, symbol) / f"{name}.{freq}.bin").is_file()
        ]
        return [self.store / "calendars" / f"{freq}.txt", *bins]

    def series(self) -> Iterator[InstrumentBars]:
        """Instrument by instrument, adjusted; days without a price or without volume are not bars."""
        for symbol in self.instruments:
            bars = (
                read_bars(self.store, [symbol], self.fields).set_index("datetime").drop(columns="instrument")
            )
            traded = bars[list(PRICES)].notna().all(axis=1) & ~bars["volume"].eq(0)
            if bars["volume"].isna().all():  # the store has no volume, which does not mean no trade
                bars = bars.drop(columns="volume")
            yield InstrumentBars(symbol, adjust_bars(bars[traded]))

    def notes(self) -> list[str]:
        """Empty, because a store has one layout."""
        return []
