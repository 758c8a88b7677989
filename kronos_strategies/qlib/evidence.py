"""A finished Qlib run -> its evidence, in this project's own types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import pandas as pd
from qlib.backtest.position import Position

from kronos.forecast import Provenance
from kronos.utils import git_commit, package_version
from kronos_strategies.evaluation.distribution.pathbook import PathBook, keep_paths
from kronos_strategies.evaluation.scorecard import Market
from kronos_strategies.evaluation.signal.exposures import price_exposures
from kronos_strategies.evidence import DECAY, DISTRIBUTION, About, Evidence, describe, seen_before
from kronos_strategies.heads.choice import ScoreChoice
from kronos_strategies.progress import tracked
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.market import (
    DAY,
    backtest_result,
    bars_per_year,
    equal_weight,
    future_returns,
    member_rows,
    naive_scores,
    traded_bars,
)
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.result import BacktestResult

Rows = TypeVar("Rows", pd.Series, pd.DataFrame)

OWN = "Kronos"
MIN_COVERAGE = 0.9  # of the scored rows, for a naive signal to be compared
FEW_DATES = 100
SETTLED_DATES = 120  # a membership that never changes over so many was chosen afterwards


def evidence_of_run(
    model: KronosModel,
    dataset: KronosDataset,
    signals: pd.DataFrame,
    label: pd.Series,
    traded: pd.DataFrame | None,
    held: Mapping[pd.Timestamp, Position] | None,
    trials: int,
    industries: pd.Series | None = None,
) -> Evidence:
    """Everything that the report of a run is computed from.

    Args:
        model: that made the signals.
        dataset: whose market, label and dates to evaluate on.
        signals: of KronosModel.
        label: of the scored rows, by (datetime, instrument).
        traded: Qlib's report of the backtest, by datetime; None without one.
        held: Qlib's positions at each close; None without a backtest.
        trials: settings that were tried before this run, itself counted.
        industries: by instrument, see `industries.read_industries`.
    """
    signals, label = _by_date(signals), _by_date(label)
    keys = cast(pd.MultiIndex, signals.index)
    members = member_rows(dataset.instruments, *dataset.span("test"), dataset.freq)
    market = market_of(keys, dataset.freq)
    naive, scarce = common_naive(keys, dataset.freq)
    result = None
    if traded is not None:
        equal = equal_weight(dataset.instruments, traded.index, dataset.freq)
        result = backtest_result(traded, held, equal, dataset.freq)
    choice = model.choice or model.choose(dataset)
    paths = _keep(model, dataset, market) if model.samples else None
    known = model.provenance
    assert known is not None  # it has just scored
    return Evidence(
        about=About(
            title=f"Kronos on {dataset.market}",
            hold=dataset.hold,
            bars_between=1,
            trials=trials,
            described=_describe(model, dataset, known, choice),
            ledger=ledger_of(members, keys, label),
            warnings=(
                *dataset.notices,
                *choice.warnings,
                *seen_before(known, members.get_level_values("datetime").min()),
                *model.postprocessing.warnings(members.get_level_values("datetime").min()),
                *choice.seen_before(members.get_level_values("datetime").min()),
                *cautions(members),
                *(crowded(result, members) if result is not None else ()),
                *scarce,
            ),
            bars_per_year=bars_per_year(dataset.freq)[0] if result is None else result.bars_per_year,
        ),
        scores=pd.DataFrame({OWN: signals["score"], **naive}),
        labels=_labels(market, keys, label, dataset),
        exposures=exposures_of(market, keys, industries),
        market=market,
        paths=paths,
        provenance=known,
        result=result,
    )


def _keep(model: KronosModel, dataset: KronosDataset, market: Market) -> PathBook:
    """What is kept of the run's paths."""
    forecasts = model.forecasts(dataset.windows("test"), dataset.spec)
    horizons = [h for h in DISTRIBUTION if h < dataset.spec.horizon]
    shown = tracked(forecasts, "evaluate", "dates")
    return keep_paths(shown, market, horizons, dataset.hold, dataset.deal_price, post=model.postprocessing)[0]


def market_of(keys: pd.MultiIndex, freq: str = DAY) -> Market:
    """All bars that the store has of the names in `keys`; later ones too, for what came after a forecast."""
    names = sorted(keys.get_level_values("instrument").unique())
    bars = traded_bars(names, None, freq)
    panel = pd.concat(bars, names=["instrument"]).rename_axis(["instrument", "datetime"])
    return Market.of(_by_date(panel))


def _by_date(rows: Rows) -> Rows:
    return rows.swaplevel().sort_index() if rows.index.names[0] == "instrument" else rows.sort_index()


def common_naive(keys: pd.MultiIndex, freq: str = DAY) -> tuple[dict[str, pd.Series], list[str]]:
    """Naive scores of the rows, and sentences on those that are left out because they lack bars."""
    naive = naive_scores(keys, freq)
    scarce = [name for name, score in naive.items() if score.notna().mean() < MIN_COVERAGE]
    kept = {name: score for name, score in naive.items() if name not in scarce}
    return kept, [f"{name} is left out: it lacks bars for over a tenth of the rows." for name in scarce]


def exposures_of(market: Market, keys: pd.MultiIndex, industries: pd.Series | None) -> pd.DataFrame:
    """What scores of the rows may load on, known at the same close."""
    wide = price_exposures(market.closes, market.amounts)
    columns = {name: market.at(values, keys) for name, values in wide.items()}
    if industries is not None:
        found = industries.reindex(keys.get_level_values("instrument")).to_numpy()
        columns["industry"] = pd.Series(found, keys, dtype="string")
    return pd.DataFrame(columns)


def _labels(market: Market, keys: pd.MultiIndex, label: pd.Series, dataset: KronosDataset) -> pd.DataFrame:
    """Returns over several horizons; of the run's own, Qlib's label."""
    horizons = sorted({*DECAY, dataset.hold})
    if dataset.deal_price == "vwap":  # of which the market that is kept for reports has none
        columns = future_returns(keys, dataset.deal_price, horizons, dataset.freq)
    else:
        columns = {h: market.at(market.earned(h, dataset.deal_price), keys) for h in horizons}
    return pd.DataFrame(columns | {dataset.hold: label.reindex(keys)})


def ledger_of(members: pd.Index, scored_keys: pd.MultiIndex, label: pd.Series) -> dict[str, int]:
    """Rows by reason, from the members' rows to those compared."""
    scored, labelled = members.isin(scored_keys), label.reindex(members).notna().to_numpy()
    return {
        "member rows": len(members),
        "no forecast (no trade that day, or too few bars)": int((~scored).sum()),
        "forecast, but no return to compare with": int((scored & ~labelled).sum()),
        "compared": int((scored & labelled).sum()),
    }


def _describe(
    model: KronosModel, dataset: KronosDataset, known: Provenance, choice: ScoreChoice
) -> dict[str, str]:
    start, end = dataset.span("test")
    return {
        "market": dataset.market,
        "test": f"{start:%Y-%m-%d} to {end:%Y-%m-%d}",
        "score": choice.described,
        "label": f"{dataset.deal_price}(t+{1 + dataset.hold}) / {dataset.deal_price}(t+1) - 1",
        "lookback": f"{dataset.spec.lookback} traded bars",
        "horizon": f"{dataset.spec.horizon} bars",
        **describe(known, sampled=model.samples > 0),
        **({"calibration": model.postprocessing.reason} if model.samples else {}),
        **({"forecast store": model.store} if model.store else {}),
        "code": f"kronos-strategies {package_version()}, commit {git_commit() or 'unknown'}",
    }


def cautions(members: pd.Index) -> list[str]:
    """What the dates and names of a run must be read with."""
    by_date = members.to_frame(index=False).groupby("datetime")["instrument"]
    found = []
    dates = by_date.ngroups
    if dates < FEW_DATES:
        found.append(f"{dates} dates are few: intervals are wide.")
    if dates >= SETTLED_DATES and len(set(by_date.agg(frozenset))) == 1:
        found.append(
            f"Not one name joined or left the market on {dates} dates. If it is a list of today's members, those "
            "that failed since are missing (survivorship), which flatters every long book."
        )
    return found


def crowded(result: BacktestResult, members: pd.Index) -> list[str]:
    """A book of nearly everything has nothing to choose from."""
    most, names = int(result.positions.max()), members.get_level_values("datetime").value_counts().median()
    if most <= names / 2:
        return []
    return [f"The book holds up to {most} of {names:.0f} members: choose a smaller KRONOS_TOPK."]
