"""What a Qlib store and a Qlib backtest say, in this project's own types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from qlib.backtest.position import Position
from qlib.data import D

from kronos.bars import FEATURES, PRICES, repair_bars
from kronos.windows import KEYS, Windows
from kronos_strategies.data.qlib_bins import DAY, later_sessions
from kronos_strategies.qlib.universe import Instruments, instruments_of
from kronos_strategies.result import BARS_PER_YEAR, QLIB_BARS_PER_YEAR, BacktestResult
from kronos_strategies.store import WindowSpec

WEEKENDS = 0.2  # markets with a larger share of weekend bars trade every day


def traded_bars(
    instruments: Sequence[str], end: pd.Timestamp | None, freq: str = DAY
) -> dict[str, pd.DataFrame]:
    """Adjusted bars up to and with `end` by instrument, suspended ones left out.

    A day counts as traded if it has four prices and its volume is not 0. Amount, where the store has none, is
    completed from volume and prices; both are 0 where there is no volume either. A high or low that adjustment
    has rounded past open or close is stretched to it.
    """
    fields = [f"${name}" for name in FEATURES]
    frame = D.features(list(instruments), fields, end_time=end, freq=freq).set_axis(list(FEATURES), axis=1)
    frame = frame[frame[list(PRICES)].notna().all(axis=1) & ~frame["volume"].eq(0)].astype(float)
    typical = frame[list(PRICES)].mean(axis=1)
    frame["amount"] = frame["amount"].fillna(frame["volume"] * typical).fillna(0.0)
    frame["volume"] = frame["volume"].fillna(0.0)
    panel = {}
    for name, bars in frame.groupby(level="instrument"):
        panel[str(name)] = repair_bars(bars.droplevel("instrument"))
    return panel


def member_windows(
    spec: WindowSpec,
    start: pd.Timestamp,
    end: pd.Timestamp,
    instruments: Instruments | None = None,
    freq: str = DAY,
) -> Windows:
    """The windows of every member that traded, on every bar from `start` to `end`.

    Membership on each date decides who has a window then. A window holds the last *traded* bars, whether or not
    the name was a member at the time; nobody has one on a day without a trade. Future timestamps are the trading
    calendar's, which goes on by its own rhythm where it ends.

    Args:
        spec: of the windows.
        start: first bar.
        end: last bar.
        instruments: who may have a window; the market `spec.universe` when omitted.
        freq: of the bars, as Qlib calls it.

    Raises:
        ValueError: no member has bars enough.
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
    """The (datetime, instrument) that `member_windows` has a window of, without cutting any; may be empty."""
    members = member_rows(instruments, start, end, freq)
    names = sorted(members.get_level_values("instrument").unique())
    known = [
        pd.MultiIndex.from_product([bars.index[spec.min_bars - 1 :], [name]], names=KEYS)
        for name, bars in traded_bars(names, end, freq).items()
    ]
    found = known[0].append(known[1:]) if known else members[:0]
    return members[members.isin(found)].sort_values()


def equal_weight(instruments: Instruments, dates: pd.Index, freq: str = DAY) -> pd.Series:
    """Return by bar of all members at equal weights, rebalanced on each, without costs.

    A suspended member earns 0 until it trades again, and then the whole move since its last close.
    """
    rows = member_rows(instruments, dates[0], dates[-1], freq)
    names = sorted(rows.get_level_values("instrument").unique())
    closes = (
        D.features(names, ["$close"], end_time=dates[-1], freq=freq)["$close"].unstack("instrument").ffill()
    )
    moves = pd.Series(closes.pct_change(fill_method=None).stack())
    return moves.reindex(rows).groupby(level="datetime").mean().reindex(dates)


def trading_calendar(freq: str, ahead: int) -> pd.DatetimeIndex:
    """Qlib's calendar with `ahead` times after the last bar; one within days goes on by its own sessions."""
    calendar = pd.DatetimeIndex(D.calendar(future=True, freq=freq))
    last = pd.Timestamp(D.calendar(freq=freq)[-1])
    if freq == DAY or (calendar > last).sum() >= ahead:
        return calendar
    return pd.DatetimeIndex(calendar.append(later_sessions(calendar, ahead + 1)))


def bars_per_year(freq: str) -> tuple[int, float]:
    """Bars that annualise figures, and those that Qlib annualises by."""
    if freq == DAY:
        return BARS_PER_YEAR, QLIB_BARS_PER_YEAR
    times = pd.DatetimeIndex(D.calendar(freq=freq))
    days = times.normalize()
    every_day = (days.unique().day_of_week >= 5).mean() > WEEKENDS
    minutes = pd.Timedelta(freq).total_seconds() / 60
    of_a_day = int(pd.Series(days).value_counts().median())
    return of_a_day * (365 if every_day else BARS_PER_YEAR), QLIB_BARS_PER_YEAR * 240 / minutes


def future_returns(
    keys: pd.MultiIndex, price: str, horizons: Sequence[int], freq: str = DAY
) -> dict[int, pd.Series]:
    """Returns that signals of these (datetime, instrument) rows can trade at a price of the store, by bars held."""
    names = sorted(keys.get_level_values("instrument").unique())
    fields = [f"Ref(${price},-{1 + h})/Ref(${price},-1)-1" for h in horizons]
    frame = D.features(names, fields, freq=freq).reorder_levels(KEYS)
    return {h: frame[field].reindex(keys) for h, field in zip(horizons, fields, strict=True)}


def backtest_result(
    traded: pd.DataFrame,
    held: Mapping[pd.Timestamp, Position] | None,
    equal: pd.Series,
    freq: str = DAY,
) -> BacktestResult:
    """Qlib's portfolio report as ours; its `return` is gross, and its turnover counts both sides.

    It starts with the bar of the first purchase. The book holds only cash before, and buys at that bar's
    deal price, so the benchmarks earn nothing up to that close either. `whole` keeps all bars as Qlib counts
    them. Without positions, which not every run kept, no weights are known.
    """
    weights = _weights(held or {})
    invested = weights.index.get_level_values("datetime").unique()
    if held is None:
        invested = traded.index[traded["turnover"] > 0]
    first = invested.min() if len(invested) else traded.index[0]
    whole = pd.DataFrame({"net": traded["return"] - traded["cost"], "benchmark": traded["bench"]})
    benchmarks = pd.DataFrame({"benchmark": traded["bench"], "equal weight": equal}).loc[first:]
    benchmarks.loc[first] = 0.0
    traded = traded.loc[first:]
    return BacktestResult(
        returns=pd.DataFrame({"gross": traded["return"], "net": traded["return"] - traded["cost"]}),
        benchmarks=benchmarks,
        turnover=traded["turnover"],
        cost=traded["cost"],
        weights=weights,
        bars_per_year=bars_per_year(freq)[0],
        whole=whole.assign(**{"equal weight": equal}),
        qlib_bars_per_year=bars_per_year(freq)[1],
    )


def _weights(held: Mapping[pd.Timestamp, Position]) -> pd.Series:
    """What was held at each close, as a fraction of the book with its cash."""
    by_date = {date: book.get_stock_weight_dict(only_stock=False) for date, book in held.items()}
    keys = [(date, name) for date, weights in by_date.items() for name in weights]
    dates, names = pd.DatetimeIndex([key[0] for key in keys]), [key[1] for key in keys]
    index = pd.MultiIndex.from_arrays([dates, pd.Index(names, dtype=object)], names=KEYS)
    values = [weight for weights in by_date.values() for weight in weights.values()]
    return pd.Series(values, index=index, dtype=float, name="weight").sort_index()
