"""KronosDataset: a Qlib market as windows of traded bars, and the label of their forecasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from qlib.data import D
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import QlibDataLoader
from qlib.log import get_module_logger

from kronos.config import as_integer
from kronos.windows import Windows
from kronos_strategies.data.qlib_bins import end_of
from kronos_strategies.qlib.checks import as_date, check_benchmark, check_segments, has_field
from kronos_strategies.qlib.data_access import (
    DAY,
    Config,
    Instruments,
    check_instruments,
    instruments_of,
    member_windows,
    qlib_warnings,
    scored_rows,
    store_folder,
    universe_name,
)
from kronos_strategies.store import WindowSpec

logger = get_module_logger(__name__)

COLUMN_SETS = ("label", DataHandlerLP.CS_ALL, DataHandlerLP.CS_RAW)
DEAL_PRICES = ("close", "open", "vwap")
Span = tuple[pd.Timestamp | None, pd.Timestamp | None]


class LabelLoader(QlibDataLoader):
    """Labels of the rows that have a window, so that predictions and labels have the same rows.

    Qlib's SignalMseRecord matches them by position.
    """

    def __init__(self, label: str, spec: WindowSpec, freq: str = DAY) -> None:
        super().__init__(config={"label": ([label], ["LABEL0"])}, freq=freq)
        self.spec = spec
        self.bars = freq

    def load(
        self,
        instruments: Config,
        start_time: pd.Timestamp | None = None,
        end_time: pd.Timestamp | None = None,
    ) -> pd.DataFrame:
        """Frame indexed (datetime, instrument), column ("label", "LABEL0")."""
        labels = super().load(instruments, start_time, end_time)
        rows = scored_rows(self.spec, start_time, end_time, instruments, self.bars)
        return labels[labels.index.isin(rows)]


class KronosDataset(DatasetH):
    """Windows for `KronosModel` and labels for Qlib's records, for the same trade.

    A signal dated t trades on t+1 at `deal_price` and is held `hold` bars, so label and forecast both
    measure price[t+1+hold] / price[t+1] - 1.

    Args:
        segments: segments of dates, e.g. {"test": ("2023-01-03", "2023-12-29")}. An end of None is the last bar of
            the data directory; a segment that ends later is scored up to the last bar.
        market: name of an instruments file, whose members on each date are scored.
        lookback: traded bars that the model reads.
        min_bars: traded bars that an instrument needs to be scored, `lookback` when omitted.
        hold: bars that a position is held.
        horizon: bars to forecast, hold + 1 when omitted: one to enter, `hold` to earn. A longer one
            scores the same trade and can reuse stored forecasts.
        deal_price: "close", "open", or "vwap" where the data has it, the same as in the backtest's
            `exchange_kwargs`. Sampled paths have no volume-weighted price: the mean of their open, high, low and
            close is used instead.
        benchmark: benchmark of the backtest; only checked, so that a missing one fails before forecasting.
        instruments: in place of `market`, as Qlib's handlers take them: also a list of symbols, or a dict.
        filter_pipe: Qlib filters of the market.
        freq: Qlib's name of the bar frequency: "day", "60min", "5min", ...

    Attributes:
        market: name of the instruments; of a list or of filters, with a hash.
        instruments: as Qlib reads them.
        spec: specification of the windows.
        store_warnings: warnings about the data directory, for the report.

    Raises:
        ValueError: settings do not fit each other or the data directory, or Qlib is not initialized.
        FileNotFoundError: no data directory.
    """

    def __init__(
        self,
        segments: Mapping[str, Sequence[object]],
        market: Instruments = "csi300",
        lookback: int = 90,
        min_bars: int | None = None,
        hold: int = 1,
        horizon: int | None = None,
        deal_price: str = "close",
        benchmark: Instruments | None = None,
        instruments: Instruments | None = None,
        filter_pipe: Sequence[object] | None = None,
        freq: str = DAY,
    ) -> None:
        hold, spec = trade_spec(lookback, min_bars, hold, horizon, deal_price)
        if not segments:
            raise ValueError('There is no segment. Pass one, e.g. {"test": ("2023-01-03", "2023-12-29")}.')
        spans = {name: _span(name, span, freq) for name, span in segments.items()}
        self.store_warnings = qlib_warnings(freq)
        for warning in self.store_warnings:
            logger.info(warning)
        self.instruments = instruments_of(market if instruments is None else instruments, filter_pipe)
        self.market, self.freq = universe_name(self.instruments), freq
        self.spec = replace(spec, universe=universe_name(self.instruments, freq))
        self.hold, self.deal_price = hold, deal_price
        check_instruments(self.instruments, store_folder(freq))
        check_segments(spans, freq)
        if benchmark is not None:
            check_benchmark(benchmark, freq)
        if deal_price == "vwap" and not has_field(self.instruments, "vwap", freq):
            raise ValueError(
                f"{store_folder(freq)} has no vwap of {self.market}. Choose deal_price 'close' or 'open'."
            )
        handler = DataHandlerLP(
            instruments=self.instruments,
            start_time=_outer(min, [start for start, _ in spans.values()]),
            end_time=_outer(max, [end for _, end in spans.values()]),
            data_loader=LabelLoader(label_expression(hold, deal_price), self.spec, freq),
        )
        super().__init__(handler=handler, segments=spans)

    def configuration(self) -> dict[str, Any]:
        """Qlib's configuration of this dataset, as in a task."""
        kwargs = {
            "segments": {name: self.span(name) for name in self.segments},
            "instruments": self.instruments,
            "lookback": self.spec.lookback,
            "min_bars": self.spec.min_bars,
            "hold": self.hold,
            "horizon": self.spec.horizon,
            "deal_price": self.deal_price,
            "freq": self.freq,
        }
        return {"class": type(self).__name__, "module_path": type(self).__module__, "kwargs": kwargs}

    def prepare(
        self,
        segments: Any,
        col_set: str | Sequence[str] = DataHandlerLP.CS_ALL,
        data_key: str = DataHandlerLP.DK_I,
        **options: Any,
    ) -> Any:
        """Labels of segments, the only columns of this dataset.

        Raises:
            ValueError: features are asked for, by another model than `KronosModel`.
        """
        wanted = [col_set] if isinstance(col_set, str) else col_set
        if unknown := [name for name in wanted if name not in COLUMN_SETS]:
            raise ValueError(
                f"KronosDataset has windows of bars and labels, not the columns '{unknown[0]}'. Use another "
                "dataset for another model, e.g. DatasetH with Alpha158, or read bars with qlib.data.D.features."
            )
        return super().prepare(segments, col_set, data_key, **options)

    def windows(self, segment: str | slice = "test") -> Windows:
        """The windows of every member that traded, on every bar of a segment; see `member_windows`.

        Args:
            segment: its name, or a slice of dates.

        Raises:
            ValueError: no such segment, or no member has enough bars.
        """
        return member_windows(self.spec, *self.span(segment), self.instruments, self.freq)

    def spans_to_fit(
        self,
    ) -> tuple[tuple[pd.Timestamp, pd.Timestamp], tuple[pd.Timestamp, pd.Timestamp]]:
        """First and last bar of the segments train and valid.

        Raises:
            ValueError: one is missing, or valid does not end after train.
        """
        if missing := [name for name in ("train", "valid") if name not in self.segments]:
            raise ValueError(
                f"The dataset has no segment {missing} to fit on. Pass segments train, valid and test."
            )
        train, valid = self.span("train"), self.span("valid")
        if valid[1] <= train[1]:
            raise ValueError(
                f"Segment 'valid' ends on {valid[1]:%Y-%m-%d}, not after segment 'train' on {train[1]:%Y-%m-%d}. "
                "Validate on later dates."
            )
        return train, valid

    def span(self, segment: str | slice) -> tuple[pd.Timestamp, pd.Timestamp]:
        """First and last bar of a segment, by its name or as a slice of dates.

        Raises:
            ValueError: no such segment.
        """
        if isinstance(segment, slice):
            start, end = _span("slice", (segment.start, segment.stop), self.freq)
        elif segment in self.segments:
            start, end = self.segments[segment]
        else:
            raise ValueError(
                f"The dataset has no segment '{segment}'. Choose one of {sorted(self.segments)}, or a slice of "
                "dates."
            )
        calendar = D.calendar(freq=self.freq)
        first, last = calendar[0] if start is None else start, calendar[-1] if end is None else end
        return pd.Timestamp(first), pd.Timestamp(last)


def trade_spec(
    lookback: int, min_bars: int | None, hold: int, horizon: int | None, deal_price: str
) -> tuple[int, WindowSpec]:
    """The holding period as a number, and the windows to forecast for it, of a universe that is still unnamed.

    Raises:
        ValueError: settings do not fit each other.
    """
    if deal_price not in DEAL_PRICES:
        raise ValueError(
            f"deal_price='{deal_price}' is not tradable here. Choose one of {list(DEAL_PRICES)}."
        )
    hold = as_integer("hold", hold)
    if hold < 1:
        raise ValueError(f"hold={hold} is too short. Pass at least 1 bar.")
    horizon = hold + 1 if horizon is None else as_integer("horizon", horizon)
    if horizon <= hold:
        raise ValueError(
            f"horizon={horizon} is too short for the exit of hold={hold}. Forecast {hold + 1} bars."
        )
    return hold, WindowSpec("", lookback, horizon, lookback if min_bars is None else min_bars)


def label_expression(hold: int, deal_price: str) -> str:
    """Qlib's expression of price[t+1+hold] / price[t+1] - 1, the return of a signal dated t."""
    return f"Ref(${deal_price},-{1 + hold})/Ref(${deal_price},-1)-1"


def _span(name: str, span: Sequence[object], freq: str) -> Span:
    """Both ends of a segment; a date without a time ends with its last bar."""
    if isinstance(span, str) or len(span) != 2:
        raise ValueError(
            f"Segment '{name}' is {span!r}. Pass its first and its last date, e.g. ['2023-01-03', '2023-12-29']."
        )
    start, end = (None if date is None else as_date(f"segment '{name}'", date) for date in span)
    return start, None if end is None else end_of(end, freq)


def _outer(choose: Callable[..., pd.Timestamp], ends: list[pd.Timestamp | None]) -> pd.Timestamp | None:
    """The outermost end of several spans; None is an open end."""
    known = [end for end in ends if end is not None]
    return choose(known) if len(known) == len(ends) else None
