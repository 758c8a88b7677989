"""A finished Qlib run -> its run artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import pandas as pd
from qlib.backtest.position import Position

from kronos.panels import KEYS
from kronos.utils import git_commit, package_version
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.baselines import MODEL, baseline_scores
from kronos_strategies.evaluation.distribution.path_summary import PathSummary, summarize_forecasts
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.signal.neutralization import price_exposures
from kronos_strategies.evaluation.warnings import crowded_portfolio_warnings, universe_warnings
from kronos_strategies.progress import track
from kronos_strategies.qlib.data_access import (
    DAY,
    StoreBars,
    bars_per_year,
    future_returns,
    member_rows,
)
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.scored import Scored
from kronos_strategies.run_artifacts import (
    DECAY_HORIZONS,
    SCORING_HORIZONS,
    RunArtifacts,
    RunMetadata,
    provenance_table,
)

Rows = TypeVar("Rows", pd.Series, pd.DataFrame)


def collect_artifacts(
    scored: Scored,
    signals: pd.DataFrame,
    label: pd.Series,
    traded: pd.DataFrame | None,
    held: Mapping[pd.Timestamp, Position] | None,
    trials: int,
    industries: pd.Series | None = None,
    store: str | None = None,
) -> RunArtifacts:
    """All data of the report of a run.

    Args:
        scored: the scored segment, whose market, label and dates are evaluated.
        signals: prediction of the run.
        label: labels of the scored rows, by (datetime, instrument).
        traded: Qlib's report of the backtest, by datetime; None without one.
        held: Qlib's positions at each close; None without a backtest.
        trials: number of settings tried so far, including this run.
        industries: industry by instrument, see `neutralization.read_industries`.
        store: forecast store of the run, if it has one.
    """
    dataset, signals, label = scored.dataset, _by_date(signals), _by_date(label)
    keys = cast(pd.MultiIndex, signals.index)
    members = member_rows(dataset.instruments, *scored.span, dataset.freq)
    bars = StoreBars.read([*_names(keys), *_names(members)], freq=dataset.freq)
    market = price_panel(bars, keys)
    baselines, left_out = baseline_scores(market, keys, daily=dataset.freq == DAY)
    result = None
    if traded is not None:
        traded_members = members
        if not traded.index.isin(members.get_level_values("datetime")).all():
            traded_members = member_rows(dataset.instruments, traded.index[0], traded.index[-1], dataset.freq)
            bars = StoreBars.read(_names(traded_members), freq=dataset.freq)
        equal = bars.equal_weight(traded_members, traded.index)
        result = backtest_result(traded, held, equal, dataset.freq)
    return RunArtifacts(
        metadata=RunMetadata(
            title=f"Kronos on {dataset.market}",
            hold=dataset.hold,
            bars_between=1,
            trials=trials,
            settings=_describe(scored, store),
            sample_counts=count_samples(members, keys, label),
            warnings=(
                *dataset.store_warnings,
                *scored.warnings(),
                *universe_warnings(members),
                *(breadth_warnings(result, members) if result is not None else ()),
                *left_out,
            ),
            bars_per_year=bars_per_year(dataset.freq)[0] if result is None else result.bars_per_year,
            score_is_return=not scored.choice.heads,
        ),
        scores=pd.DataFrame({MODEL: signals["score"]}).join(baselines),
        labels=_labels(market, keys, label, dataset),
        exposures=exposures_for(market, keys, industries),
        market=market,
        paths=_summarize(scored, market),
        provenance=scored.provenance,
        result=result,
    )


def _summarize(scored: Scored, market: PricePanel) -> PathSummary | None:
    """The summary of the run's paths; None if nothing was sampled."""
    if scored.forecasts is None:
        return None
    dataset = scored.dataset
    horizons = [h for h in SCORING_HORIZONS if h < dataset.spec.horizon]
    shown = track(scored.forecasts, "evaluate", "dates")
    return summarize_forecasts(
        shown, market, horizons, dataset.hold, dataset.deal_price, post=scored.postprocess
    )[0]


def price_panel(bars: StoreBars, keys: pd.MultiIndex) -> PricePanel:
    """All bars of the instruments in `keys`, later ones too, which give the realized returns."""
    panel = pd.concat(bars.traded(_names(keys)), names=["instrument"])
    return PricePanel.from_bars(_by_date(panel.rename_axis(["instrument", "datetime"])))


def read_price_panel(keys: pd.MultiIndex, freq: str = DAY) -> PricePanel:
    """`price_panel` of the bars in the store."""
    return price_panel(StoreBars.read(_names(keys), freq=freq), keys)


def _names(rows: pd.Index) -> list[str]:
    return sorted(rows.get_level_values("instrument").unique())


def _by_date(rows: Rows) -> Rows:
    return rows.swaplevel().sort_index() if rows.index.names[0] == "instrument" else rows.sort_index()


def exposures_for(market: PricePanel, keys: pd.MultiIndex, industries: pd.Series | None) -> pd.DataFrame:
    """Exposures of the scored rows, known at the same close."""
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
    horizons = sorted({*DECAY_HORIZONS, dataset.hold})
    if dataset.deal_price == "vwap":  # which the saved price panel does not have
        columns = future_returns(keys, dataset.deal_price, horizons, dataset.freq)
    else:
        columns = {h: market.lookup(market.forward_return(h, dataset.deal_price), keys) for h in horizons}
    return pd.DataFrame(columns | {dataset.hold: label.reindex(keys)})


def count_samples(members: pd.Index, scored_keys: pd.MultiIndex, label: pd.Series) -> dict[str, int]:
    """Rows by reason, from the members' rows to those compared."""
    scored, labeled = members.isin(scored_keys), label.reindex(members).notna().to_numpy()
    return {
        "member rows": len(members),
        "no forecast (no trade that day, or too few bars)": int((~scored).sum()),
        "forecast, but no return to compare with": int((scored & ~labeled).sum()),
        "compared": int((scored & labeled).sum()),
    }


def _describe(scored: Scored, store: str | None) -> dict[str, str]:
    dataset, (start, end), first = scored.dataset, scored.span, scored.origins[0]
    sampled = scored.forecasts is not None
    described = {
        "market": dataset.market,
        "test": f"{start:%Y-%m-%d} to {end:%Y-%m-%d}",
        "score": first.choice.described,
        "label": f"{dataset.deal_price}(t+{1 + dataset.hold}) / {dataset.deal_price}(t+1) - 1",
        "lookback": f"{dataset.spec.lookback} traded bars",
        "horizon": f"{dataset.spec.horizon} bars",
        **provenance_table(scored.provenance, sampled=sampled),
        **({"calibration": first.postprocessing.reason} if sampled else {}),
        **({"forecast store": store} if store else {}),
        "code": f"kronos-strategies {package_version()}, commit {git_commit() or 'unknown'}",
    }
    if len(scored.origins) == 1:
        return described
    several = {"score", "model", "weights sha256", "trained until", "calibration"}
    versions = {f"scores from {each.first:%Y-%m-%d}": each.described for each in scored.origins}
    return {name: text for name, text in described.items() if name not in several} | versions


def breadth_warnings(result: BacktestResult, members: pd.Index) -> list[str]:
    """A warning where the portfolio holds most of the market."""
    most, median = int(result.positions.max()), members.get_level_values("datetime").value_counts().median()
    return crowded_portfolio_warnings(most, median, "choose a smaller KRONOS_TOPK")


def backtest_result(
    traded: pd.DataFrame,
    held: Mapping[pd.Timestamp, Position] | None,
    equal: pd.Series,
    freq: str = DAY,
) -> BacktestResult:
    """Qlib's portfolio report as ours; its `return` is gross, and its turnover counts both sides.

    It starts with the bar of the first purchase. The portfolio holds only cash before, and buys at that bar's
    deal price, so the benchmarks earn nothing up to that close either. `whole` keeps all bars as Qlib counts
    them. Without positions, which some runs do not save, there are no weights.
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
    """Weights at each close, as a fraction of the portfolio including cash."""
    by_date = {date: book.get_stock_weight_dict(only_stock=False) for date, book in held.items()}
    keys = [(date, name) for date, weights in by_date.items() for name in weights]
    dates, names = pd.DatetimeIndex([key[0] for key in keys]), [key[1] for key in keys]
    index = pd.MultiIndex.from_arrays([dates, pd.Index(names, dtype=object)], names=KEYS)
    values = [weight for weights in by_date.values() for weight in weights.values()]
    return pd.Series(values, index=index, dtype=float, name="weight").sort_index()
