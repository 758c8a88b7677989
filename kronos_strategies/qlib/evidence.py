"""A finished Qlib run -> its evidence, in this project's own types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import pandas as pd
from qlib.backtest.position import Position

from kronos.forecast import Provenance
from kronos.utils import git_commit, package_version
from kronos_strategies.evaluation.baselines import MODEL, baseline_scores
from kronos_strategies.evaluation.distribution.path_summary import PathSummary, summarize_forecasts
from kronos_strategies.evaluation.price_panel import PricePanel
from kronos_strategies.evaluation.signal.exposures import price_exposures
from kronos_strategies.evaluation.warnings import (
    crowded_portfolio_warnings,
    training_overlap_warnings,
    universe_warnings,
)
from kronos_strategies.evidence import DECAY, DISTRIBUTION, About, Evidence, describe
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
    traded_bars,
)
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.result import BacktestResult

Rows = TypeVar("Rows", pd.Series, pd.DataFrame)


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
    baselines, scarce = baseline_scores(market, keys, daily=dataset.freq == DAY)
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
                *training_overlap_warnings(known, members.get_level_values("datetime").min()),
                *model.postprocessing.warnings(members.get_level_values("datetime").min()),
                *choice.seen_before(members.get_level_values("datetime").min()),
                *universe_warnings(members),
                *(crowded(result, members) if result is not None else ()),
                *scarce,
            ),
            bars_per_year=bars_per_year(dataset.freq)[0] if result is None else result.bars_per_year,
            score_is_return=not choice.heads,
        ),
        scores=pd.DataFrame({MODEL: signals["score"]}).join(baselines),
        labels=_labels(market, keys, label, dataset),
        exposures=exposures_of(market, keys, industries),
        market=market,
        paths=paths,
        provenance=known,
        result=result,
    )


def _keep(model: KronosModel, dataset: KronosDataset, market: PricePanel) -> PathSummary:
    """What is kept of the run's paths."""
    forecasts = model.forecasts(dataset.windows("test"), dataset.spec)
    horizons = [h for h in DISTRIBUTION if h < dataset.spec.horizon]
    shown = tracked(forecasts, "evaluate", "dates")
    return summarize_forecasts(
        shown, market, horizons, dataset.hold, dataset.deal_price, post=model.postprocessing
    )[0]


def market_of(keys: pd.MultiIndex, freq: str = DAY) -> PricePanel:
    """All bars that the store has of the names in `keys`; later ones too, for what came after a forecast."""
    names = sorted(keys.get_level_values("instrument").unique())
    bars = traded_bars(names, None, freq)
    panel = pd.concat(bars, names=["instrument"]).rename_axis(["instrument", "datetime"])
    return PricePanel.from_bars(_by_date(panel))


def _by_date(rows: Rows) -> Rows:
    return rows.swaplevel().sort_index() if rows.index.names[0] == "instrument" else rows.sort_index()


def exposures_of(market: PricePanel, keys: pd.MultiIndex, industries: pd.Series | None) -> pd.DataFrame:
    """What scores of the rows may load on, known at the same close."""
    wide = price_exposures(market.closes, market.amounts)
    columns = {name: market.lookup(values, keys) for name, values in wide.items()}
    if industries is not None:
        found = industries.reindex(keys.get_level_values("instrument")).to_numpy()
        columns["industry"] = pd.Series(found, keys, dtype="string")
    return pd.DataFrame(columns)


def _labels(
    market: PricePanel, keys: pd.MultiIndex, label: pd.Series, dataset: KronosDataset
) -> pd.DataFrame:
    """Returns over several horizons; of the run's own, Qlib's label."""
    horizons = sorted({*DECAY, dataset.hold})
    if dataset.deal_price == "vwap":  # of which the market that is kept for reports has none
        columns = future_returns(keys, dataset.deal_price, horizons, dataset.freq)
    else:
        columns = {h: market.lookup(market.forward_return(h, dataset.deal_price), keys) for h in horizons}
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


def crowded(result: BacktestResult, members: pd.Index) -> list[str]:
    """A book of nearly everything has nothing to choose from."""
    most, names = int(result.positions.max()), members.get_level_values("datetime").value_counts().median()
    return crowded_portfolio_warnings(most, names, "choose a smaller KRONOS_TOPK")
