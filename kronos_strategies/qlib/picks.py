"""Picks of a Qlib market as of a date: the signals and the trading rules of a backtest, for the next bar."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from qlib.data import D

from kronos_strategies.data.qlib_bins import DAY, read_market
from kronos_strategies.evaluation.warnings import crowded_portfolio_warnings, training_overlap_warnings
from kronos_strategies.picks import Picks, pick
from kronos_strategies.portfolio import PortfolioRules, UnsolvedError
from kronos_strategies.qlib.checks import as_date, check_market
from kronos_strategies.qlib.data_access import StoreBars, member_rows, store_folder
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.market_inputs import (
    day_exchange,
    market_inputs,
    open_paths,
    tradable_instruments,
    trading_state,
)
from kronos_strategies.qlib.model import KronosModel

LIQUIDITY_DAYS = 20  # of the mean traded value
SHOWN = 3  # instruments that a warning names


class PickDates(NamedTuple):
    """The date of the picks.

    Attributes:
        date: last bar that is used.
        previous: the trading date before, whose ranks are compared; None on the first of the data.
        note: a sentence if `date` is not the date that was asked for.
    """

    date: pd.Timestamp
    previous: pd.Timestamp | None
    note: str | None


def find_dates(market: str, as_of: str | None = None) -> PickDates:
    """The trading date of the picks, and the one before.

    Args:
        market: universe, which must have members on the date.
        as_of: a date; the last trading date up to it counts. The last bar when omitted.

    Raises:
        ValueError: an unknown market, not a date, a date before the data, or one without members.
    """
    check_market(market)
    calendar, note = pd.DatetimeIndex(D.calendar(freq=DAY)), None
    position = len(calendar) - 1
    if as_of is not None:
        asked = as_date("--as-of", as_of)
        if asked != asked.normalize():
            raise ValueError(
                f"--as-of {as_of} has a time, but bars are daily. Pass a date whose close is known then."
            )
        position = int(calendar.searchsorted(asked, side="right")) - 1
        if position < 0:
            raise ValueError(
                f"--as-of {asked:%Y-%m-%d} is before the first bar of {store_folder()}, {calendar[0]:%Y-%m-%d}. "
                "Choose a later date."
            )
        if calendar[position] != asked:
            note = (
                f"{asked:%Y-%m-%d} is not a trading day of {store_folder()}: picks are as of the last one before, "
                f"{calendar[position]:%Y-%m-%d}."
            )
    date = calendar[position]
    if not len(member_rows(market, date, date)):
        spans = read_market(store_folder(), market)
        raise ValueError(
            f"The market '{market}' has no member on {date:%Y-%m-%d}, only from {spans['start'].min():%Y-%m-%d} to "
            f"{spans['end'].max():%Y-%m-%d}. Choose another --as-of or --market."
        )
    return PickDates(date, calendar[position - 1] if position else None, note)


def make_picks(
    model: KronosModel,
    market: str,
    dates: PickDates,
    rules: PortfolioRules,
    previous: pd.Series,
    limit: float | None = None,
    lookback: int = 90,
    hold: int = 5,
    horizon: int | None = None,
    deal_price: str = "close",
) -> Picks:
    """Picks as of a date: what `KronosWeightStrategy` decides on it from the same signals and holdings.

    Args:
        model: model, whose store keeps the forecasts of both dates.
        market: name of an instruments file, whose members on the date are ranked.
        dates: the date, see `find_dates`.
        rules: rules of the portfolio.
        previous: weights held at the close of the date, by instrument; empty for cash. Instruments that the data
            do not have keep their weight.
        limit: daily price limit as a return; that of Qlib's region when None.
        lookback, hold, horizon, deal_price: see `KronosDataset`.

    Raises:
        ValueError: settings do not fit each other or the data, no member has enough bars, or an instrument is held
            twice.
    """
    date, before, note = dates
    segments = {"test": (date if before is None else before, date)}
    dataset = KronosDataset(segments, market, lookback, hold=hold, horizon=horizon, deal_price=deal_price)
    found = model.signals(dataset)
    signals, earlier = _on(found, date), _on(found, before)
    members = member_rows(market, date, date).get_level_values("instrument").unique()
    held, unknown = _as_in_store(previous)
    known = members.union(held.index.difference(unknown))
    exchange, span = day_exchange(known, date, deal_price, limit)
    tradable = tradable_instruments(exchange, signals.index, held.index, span)
    state = _prices(known, date).reindex(members.union(held.index))
    trading = dict.fromkeys(unknown, "unknown") | {
        name: trading_state(exchange, name, span) for name in known
    }
    state["flags"] = [_flags(trading[name], name in members, name in signals.index) for name in state.index]
    paths = open_paths(model) if rules.uses_scenarios else None
    try:
        inputs = market_inputs(rules, paths, signals.index, (date, date), DAY)
        table = pick(signals, earlier, state, held, rules, tradable, inputs)
    except UnsolvedError as error:
        raise ValueError(
            f"weighting={rules.weighting} has no result on {date:%Y-%m-%d}, because {error}. Keep what is held, or "
            "weight by inverse_volatility."
        ) from error
    index = pd.MultiIndex.from_product([[date], table.index], names=["datetime", "instrument"])
    notes = [note] if note else []
    if unknown:
        notes.append(f"{store_folder()} has no {_listed(unknown)}: holdings without bars keep their weight.")
    return Picks(
        market, date, table.set_axis(index), rules,
        settings=_settings(model, rules),
        warnings=(*notes, *_warnings(model, dataset, date, int(table["target_weight"].ne(0).sum()), len(members))),
    )  # fmt: skip


def _on(found: pd.DataFrame, date: pd.Timestamp | None) -> pd.DataFrame:
    """Signals of one date by instrument; empty if it has none."""
    rows = found[found.index.get_level_values("datetime") == date] if date is not None else found[:0]
    return rows.droplevel("datetime")


def _as_in_store(previous: pd.Series) -> tuple[pd.Series, list[str]]:
    """Weights by the store's own symbols, whatever their case; and the instruments that it does not have."""
    symbols = {name.lower(): name for name in read_market(store_folder())["instrument"]}
    names = [symbols.get(str(name).lower(), str(name)) for name in previous.index]
    held = previous.set_axis(pd.Index(names, dtype=object, name="instrument"))
    if held.index.has_duplicates:
        twice = held.index[held.index.duplicated()][0]
        raise ValueError(f"{twice} is held twice, under different spellings. Keep one row per instrument.")
    return held[held != 0], [name for name in names if name.lower() not in symbols and held[name] != 0]


def _prices(names: pd.Index, date: pd.Timestamp) -> pd.DataFrame:
    """Last raw close and mean traded value of the last 20 trading days; a day without a trade counts as 0.

    Prices of the data are float32: seven digits of a close are its own.
    """
    days = pd.DatetimeIndex(D.calendar(end_time=date, freq=DAY))[-LIQUIDITY_DAYS:]
    bars = StoreBars.read(list(names), date, DAY, days[0]).traded()
    factor = D.features(list(names), ["$factor"], days[0], date, freq=DAY)["$factor"]
    rows = {}
    for name, traded in bars.items():
        scale = factor.get((name, traded.index[-1]), np.nan)
        close = traded["close"].iloc[-1] / (scale if np.isfinite(scale) else 1.0)
        rows[name] = {"close": float(f"{close:.7g}"), "traded_value": traded["amount"].sum() / len(days)}
    found = pd.DataFrame.from_dict(rows, orient="index", columns=["close", "traded_value"], dtype=float)
    found = found.reindex(names).rename_axis("instrument")
    return found.fillna({"traded_value": 0.0})


def _flags(trading: str, is_member: bool, has_forecast: bool) -> str:
    """What keeps an instrument from being traded or ranked, in words."""
    found = [trading] if trading else []
    if trading != "unknown" and not is_member:
        found.append("not a member")
    elif not trading and not has_forecast:
        found.append("no forecast")
    return ", ".join(found)


def _settings(model: KronosModel, rules: PortfolioRules) -> tuple[str, ...]:
    """How the picks were made, one line each."""
    assert model.provenance is not None
    assert model.choice is not None
    lines = [f"model: {model.provenance.model}"]
    if model.samples:
        sampling = model.provenance.sampling
        lines[0] += f", {sampling.samples} paths, T={sampling.T:g}, top_p={sampling.top_p:g}"
        lines.append(f"calibration: {model.postprocessing.reason}")
    kept = f", kept among the best {rules.topk + rules.rank_buffer}" if rules.rank_buffer else ""
    portfolio = (
        f"portfolio: the best {rules.topk} by {rules.rank_by}{kept}; weights: {rules.weighting.replace('_', ' ')}; "
        f"{rules.cash_buffer:.1%} cash; changes below {rules.no_trade_band:.2%} are not traded"
    )
    return (*lines, f"score: {model.choice.described}", portfolio)


def _warnings(
    model: KronosModel, dataset: KronosDataset, date: pd.Timestamp, held: int, members: int
) -> list[str]:
    assert model.provenance is not None
    assert model.choice is not None
    found = [*dataset.store_warnings, *model.choice.warnings]
    if date < pd.Timestamp(D.calendar(freq=DAY)[-1]):
        found += training_overlap_warnings(model.provenance, date)
        found += model.choice.training_overlap_warnings(date)
    found += model.postprocessing.warnings(date)
    return [*found, *crowded_portfolio_warnings(held, members, "choose a smaller --topk")]


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
