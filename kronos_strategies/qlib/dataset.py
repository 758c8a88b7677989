"""KronosDataset: a Qlib market as windows of traded bars, and the label that their forecasts are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from qlib.data import D
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import QlibDataLoader
from qlib.log import get_module_logger

from kronos.checks import as_integer
from kronos.windows import Windows
from kronos_strategies.qlib.market import member_windows, scored_rows
from kronos_strategies.qlib.source import check_benchmark, check_market, check_segments, open_source
from kronos_strategies.store import WindowSpec

logger = get_module_logger(__name__)


class LabelLoader(QlibDataLoader):
    """Labels of the rows that have a window, so that predictions and labels are of the same rows.

    Qlib's SignalMseRecord takes one for the other by position.
    """

    def __init__(self, label: str, spec: WindowSpec) -> None:
        super().__init__(config={"label": ([label], ["LABEL0"])})
        self.spec = spec

    def load(
        self,
        instruments: object = None,
        start_time: object = None,
        end_time: object = None,
    ) -> pd.DataFrame:
        """Frame indexed (datetime, instrument), column ("label", "LABEL0")."""
        labels = super().load(instruments, start_time, end_time)
        return labels[labels.index.isin(scored_rows(self.spec, start_time, end_time))]


class KronosDataset(DatasetH):
    """Windows for `KronosModel`, labels for Qlib's records; one description of the trade for both.

    A signal dated t trades on t+1 at `deal_price` and is held `hold` days, so label and forecast both
    measure price[t+1+hold] / price[t+1] - 1.

    Args:
        segments: of dates, e.g. {"test": ("2023-01-03", "2023-12-29")}. None for an end is the last day of the
            store; a segment that ends later is scored as far as bars reach.
        market: name of an instruments file; its membership on each date decides who is scored.
        lookback: traded bars that the model reads.
        min_bars: traded bars that a name needs to be scored, `lookback` when omitted.
        hold: days that a position is held.
        horizon: days to forecast, hold + 1 when omitted: one to enter, `hold` to earn. A longer one scores the
            same trade and finds more forecasts in a store.
        deal_price: "close" or "open", the same as in the backtest's `exchange_kwargs`.
        benchmark: of the backtest, only to refuse one that the store lacks before anything is forecast.
    """

    def __init__(
        self,
        segments: Mapping[str, Sequence[str | None]],
        market: str = "csi300",
        lookback: int = 90,
        min_bars: int | None = None,
        hold: int = 1,
        horizon: int | None = None,
        deal_price: str = "close",
        benchmark: str | None = None,
    ) -> None:
        if deal_price not in ("close", "open"):
            raise ValueError(f"deal_price='{deal_price}' is not tradable here. Choose 'close' or 'open'.")
        hold = as_integer("hold", hold)
        if hold < 1:
            raise ValueError(f"hold={hold} earns nothing. Hold for at least 1 day.")
        horizon = hold + 1 if horizon is None else as_integer("horizon", horizon)
        if horizon <= hold:
            raise ValueError(
                f"horizon={horizon} does not reach the exit of hold={hold}. Forecast {hold + 1} days."
            )
        self.market = market
        self.spec = WindowSpec(market, lookback, horizon, lookback if min_bars is None else min_bars)
        self.hold = hold
        self.deal_price = deal_price
        self.notices = open_source()
        for notice in self.notices:
            logger.info(notice)
        spans = {
            name: tuple(None if date is None else pd.Timestamp(date) for date in span)
            for name, span in segments.items()
        }
        check_market(market)
        check_segments(spans)
        if benchmark is not None:
            check_benchmark(benchmark)
        label = f"Ref(${deal_price},-{1 + hold})/Ref(${deal_price},-1)-1"
        handler = DataHandlerLP(
            instruments=market,
            start_time=_outer(min, [start for start, _ in spans.values()]),
            end_time=_outer(max, [end for _, end in spans.values()]),
            data_loader=LabelLoader(label, self.spec),
        )
        super().__init__(handler=handler, segments=spans)

    def windows(self, segment: str | slice = "test") -> Windows:
        """The windows of every member that traded, on every date of a segment; see `member_windows`.

        Args:
            segment: its name, or a slice of dates.

        Raises:
            ValueError: no such segment, or no member has bars enough.
        """
        return member_windows(self.spec, *self.span(segment))

    def span(self, segment: str | slice) -> tuple[pd.Timestamp, pd.Timestamp]:
        """First and last date of a segment, by its name or as a slice of dates.

        Raises:
            ValueError: no such segment.
        """
        if isinstance(segment, slice):
            start, end = segment.start, segment.stop
        elif segment in self.segments:
            start, end = self.segments[segment]
        else:
            raise ValueError(
                f"The dataset has no segment '{segment}'. It has {sorted(self.segments)}; a slice of dates does too."
            )
        calendar = D.calendar()
        first = calendar[0] if start is None else pd.Timestamp(start)
        return first, calendar[-1] if end is None else pd.Timestamp(end)


def _outer(choose: Callable[..., pd.Timestamp], ends: list[pd.Timestamp | None]) -> pd.Timestamp | None:
    """The outermost end of several spans; None, which is open, is further out than any."""
    known = [end for end in ends if end is not None]
    return choose(known) if len(known) == len(ends) else None
