"""KronosDataset: a Qlib market as windows of traded bars, and the label that their forecasts are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import QlibDataLoader
from qlib.log import get_module_logger

from kronos.checks import as_integer
from kronos.windows import Windows
from kronos_strategies.qlib.market import member_windows
from kronos_strategies.qlib.source import check_benchmark, check_market, check_segments, open_source
from kronos_strategies.store import WindowSpec

logger = get_module_logger(__name__)


class KronosDataset(DatasetH):
    """Windows for `KronosModel`, labels for Qlib's records; one description of the trade for both.

    A signal dated t trades on t+1 at `deal_price` and is held `hold` days, so label and forecast both
    measure price[t+1+hold] / price[t+1] - 1.

    Args:
        segments: of dates, e.g. {"test": ("2023-01-03", "2023-12-29")}.
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
        segments: Mapping[str, Sequence[str]],
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
        spans = {name: tuple(pd.Timestamp(date) for date in span) for name, span in segments.items()}
        check_market(market)
        check_segments(spans)
        if benchmark is not None:
            check_benchmark(benchmark)
        label = f"Ref(${deal_price},-{1 + hold})/Ref(${deal_price},-1)-1"
        handler = DataHandlerLP(
            instruments=market,
            start_time=min(start for start, _ in spans.values()),
            end_time=max(end for _, end in spans.values()),
            data_loader=QlibDataLoader(config={"label": ([label], ["LABEL0"])}),
        )
        super().__init__(handler=handler, segments=spans)

    def windows(self, segment: str = "test") -> Windows:
        """The windows of every member that traded, on every date of a segment; see `member_windows`."""
        start, end = self.segments[segment]
        return member_windows(self.spec, start, end)
