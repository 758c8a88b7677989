"""KronosDataset: a Qlib market as windows of traded bars, and the label that their forecasts are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from qlib.config import C
from qlib.data import D
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import QlibDataLoader
from qlib.log import get_module_logger

from kronos.windows import KEYS, Windows
from kronos_strategies.data.default import default_store, ensure_store, store_notices
from kronos_strategies.qlib.market import traded_bars

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
        deal_price: str = "close",
        benchmark: str | None = None,
    ) -> None:
        if deal_price not in ("close", "open"):
            raise ValueError(f"deal_price='{deal_price}' is not tradable here. Choose 'close' or 'open'.")
        if hold < 1:
            raise ValueError(f"hold={hold} earns nothing. Hold for at least 1 day.")
        self.market = market
        self.lookback = lookback
        self.min_bars = min_bars
        self.hold = hold
        self.deal_price = deal_price
        self.notices = _open_store(Path(C.dpm.get_data_uri()))
        for notice in self.notices:
            logger.info(notice)
        spans = {name: tuple(pd.Timestamp(date) for date in span) for name, span in segments.items()}
        _check_market(market)
        _check_segments(spans)
        if benchmark is not None:
            _check_benchmark(benchmark)
        label = f"Ref(${deal_price},-{1 + hold})/Ref(${deal_price},-1)-1"
        handler = DataHandlerLP(
            instruments=market,
            start_time=min(start for start, _ in spans.values()),
            end_time=max(end for _, end in spans.values()),
            data_loader=QlibDataLoader(config={"label": ([label], ["LABEL0"])}),
        )
        super().__init__(handler=handler, segments=spans)

    @property
    def horizon(self) -> int:
        """Bars that a forecast needs: one to enter, `hold` to earn."""
        return self.hold + 1

    def windows(self, segment: str = "test") -> Windows:
        """The windows of every member that traded, on every date of a segment.

        A window holds the last `lookback` *traded* bars, whether or not the name was a member then; nobody is
        scored on a day without a trade. Future timestamps are the trading calendar's.

        Raises:
            ValueError: no member has bars enough.
        """
        members = self.prepare(segment, col_set="label", data_key=DataHandlerLP.DK_R).index
        names = sorted(members.get_level_values("instrument").unique())
        start, end = self.segments[segment]
        panel = traded_bars(names, end)
        calendar = pd.DatetimeIndex(D.calendar(future=True))
        return Windows.rolling(
            panel,
            self.lookback,
            self.horizon,
            calendar,
            since=start,
            until=end,
            keys=members.reorder_levels(KEYS),
            min_bars=self.min_bars,
        )


def _open_store(folder: Path) -> list[str]:
    """Make the default store on first use; return what a reader of its figures must know.

    Raises:
        FileNotFoundError: another folder, without a store.
    """
    if folder.resolve() == default_store().resolve():  # Qlib has resolved its own
        ensure_store(folder)
    if not (folder / "calendars" / "day.txt").is_file():
        raise FileNotFoundError(
            f"{folder} holds no Qlib store (no calendars/day.txt). Make one with `kronos data import FILE... "
            f"--to {folder}`, or unset KRONOS_QLIB_DATA to run on a simulated market."
        )
    return store_notices(folder)


def _check_market(market: str) -> None:
    folder = Path(C.dpm.get_data_uri()) / "instruments"
    known = sorted(path.stem for path in folder.glob("*.txt"))
    if market not in known:
        raise ValueError(f"The store {folder.parent} has no market '{market}'. It has {known}.")


def _check_segments(spans: Mapping[str, tuple[pd.Timestamp, ...]]) -> None:
    """Refuse what Qlib would trip over only after the whole forecast has been paid for."""
    calendar, future = pd.DatetimeIndex(D.calendar()), pd.DatetimeIndex(D.calendar(future=True))
    store = f"the store, which spans {calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}"
    remedy = "Set KRONOS_TEST_START and KRONOS_TEST_END."
    for name, (start, end) in spans.items():
        span = f"Segment '{name}' from {start:%Y-%m-%d} to {end:%Y-%m-%d}"
        if not ((calendar >= start) & (calendar <= end)).any():
            raise ValueError(f"{span} holds no trading day of {store}. {remedy}")
        if ((future > calendar[-1]) & (future <= end)).any():
            raise ValueError(f"{span} ends after {store}. {remedy}")
        if end >= future[-1]:
            raise ValueError(
                f"{span} ends with {store}, without a calendars/day_future.txt behind it: a backtest must end by "
                f"{calendar[-2]:%Y-%m-%d}. {remedy}"
            )


def _check_benchmark(benchmark: str) -> None:
    if D.features([benchmark], ["$close"]).empty:
        raise ValueError(
            f"The store has no benchmark '{benchmark}'. Import it with `kronos data import ... --benchmark FILE`, "
            "or name one that it has by KRONOS_BENCHMARK."
        )
