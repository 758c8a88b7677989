"""`kronos picks`: what to buy and sell on the next trading day, from a ranking of a market and current holdings."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kronos_strategies.cli import common
from kronos_strategies.cli.common import check_daily, note, show_next

if TYPE_CHECKING:
    from kronos_strategies.picks import Picks

WIDTH = 110  # at least, so that tables are complete in a pipe or a file
MAX_ROWS = 40  # instruments without a position or trade are left out beyond; files hold all
# Defaults of configs/kronos_csi300_weights.yaml, for a given data directory and for the simulated market.
TOPK, RANK_BUFFER = (50, 10), (25, 5)


def picks(
    *,
    data: Annotated[Path | None, Parameter(env_var="KRONOS_QLIB_DATA")] = None,
    market: Annotated[str, Parameter(env_var="KRONOS_MARKET")] = "csi300",
    as_of: str | None = None,
    holdings: Path | None = None,
    cash: float | None = None,
    rank_by: Annotated[
        Literal[
            "score",
            "expected_return",
            "volatility",
            "prob_up",
            "q05",
            "q95",
            "deviation",
            "risk_adjusted",
            "conviction",
            "prob_up_tiebreak",
            "downside",
            "expected_shortfall",
            "skew",
            "prob_take_profit",
            "max_drawdown",
            "prob_drawdown",
        ],
        Parameter(env_var="KRONOS_RANK_BY"),
    ] = "score",
    topk: Annotated[int | None, Parameter(env_var="KRONOS_TOPK")] = None,
    rank_buffer: Annotated[int | None, Parameter(env_var="KRONOS_RANK_BUFFER")] = None,
    weighting: Annotated[
        Literal[
            "equal",
            "score",
            "inverse_volatility",
            "risk_parity",
            "volatility_target",
            "kelly",
            "min_variance",
            "mean_variance",
            "min_cvar",
            "mean_cvar",
            "min_drawdown_cvar",
            "mean_drawdown_cvar",
        ]
        | None,
        Parameter(env_var="KRONOS_WEIGHTING"),
    ] = None,
    target_volatility: Annotated[float, Parameter(env_var="KRONOS_TARGET_VOLATILITY")] = 0.15,
    cash_buffer: Annotated[float, Parameter(env_var="KRONOS_CASH_BUFFER")] = 0.02,
    no_trade_band: Annotated[float, Parameter(env_var="KRONOS_NO_TRADE_BAND")] = 0.005,
    region: Annotated[Literal["cn", "tw", "us"] | None, Parameter(env_var="KRONOS_REGION")] = None,
    limit: Annotated[float | None, Parameter(env_var="KRONOS_LIMIT")] = None,
    store: Annotated[Path | None, Parameter(env_var="KRONOS_STORE")] = None,
    store_dtype: Annotated[
        Literal["float32", "float16"], Parameter(env_var="KRONOS_STORE_DTYPE")
    ] = "float32",
    model: Annotated[str, Parameter(env_var="KRONOS_MODEL")] = "kronos-nano",
    tokenizer: Annotated[common.Tokenizer, Parameter(env_var="KRONOS_TOKENIZER")] = None,
    revision: Annotated[common.Revision, Parameter(env_var="KRONOS_REVISION")] = None,
    samples: Annotated[int, Parameter(env_var="KRONOS_SAMPLES")] = 10,
    temperature: Annotated[common.Temperature, Parameter(env_var="KRONOS_T")] = None,
    top_p: Annotated[common.TopP, Parameter(env_var="KRONOS_TOP_P")] = None,
    top_k: Annotated[common.TopK, Parameter(env_var="KRONOS_TOP_K")] = None,
    seed: Annotated[common.Seed, Parameter(env_var="KRONOS_SEED")] = 0,
    lookback: Annotated[int, Parameter(env_var="KRONOS_LOOKBACK")] = 90,
    hold: Annotated[int, Parameter(env_var="KRONOS_HOLD")] = 5,
    horizon: Annotated[int | None, Parameter(env_var="KRONOS_HORIZON")] = None,
    score: Annotated[Literal["auto", "head", "paths"], Parameter(env_var="KRONOS_SCORE")] = "auto",
    heads: Annotated[str | None, Parameter(env_var="KRONOS_HEADS")] = None,
    calibration: common.Calibration = "auto",
    candles: Annotated[Literal["valid", "raw"], Parameter(env_var="KRONOS_CANDLES")] = "valid",
    limits: Annotated[str, Parameter(env_var="KRONOS_LIMITS")] = "none",
    device: Annotated[common.Device, Parameter(env_var="KRONOS_DEVICE")] = None,
    precision: Annotated[common.Precision, Parameter(env_var="KRONOS_PRECISION")] = "float32",
    context_overflow: Annotated[
        common.ContextOverflow, Parameter(env_var="KRONOS_CONTEXT_OVERFLOW")
    ] = "recompute",
    output: Path | None = None,
    html: Path | None = None,
) -> None:
    """Rank the members of a market, and turn the ranking into what to buy and sell on the next trading day.

    For example: `kronos picks --data ~/csi300 --store ~/forecasts --holdings holdings.csv --html picks.html`

    Signals, rules and defaults are those of configs/kronos_csi300_weights.yaml, whose variables apply here as well:
    as of a past date the picks are what its backtest decided from the same holdings.

    Args:
        data: Qlib data directory of daily bars; the simulated market when omitted.
        market: universe whose members of the date are ranked.
        as_of: date of the picks, after which nothing is used; if it is not a trading day, the last one before it.
            The date of the last bar when omitted.
        holdings: CSV or parquet of what is held at the close of the date: instrument and weight (fraction of
            equity), or instrument and value (money at that close); cash when omitted.
        cash: money that is not invested, with holdings in money; 0 when omitted.
        rank_by: signal to rank by, the highest first.
        topk: number of positions; 50, or 10 on the simulated market, when omitted.
        rank_buffer: ranks below topk that a position may fall to before it is sold; 25, or 5 on the simulated
            market, when omitted.
        weighting: how positions are weighted; inverse_volatility, or equal with --samples 0, when omitted.
        target_volatility: annual volatility that volatility_target aims at.
        cash_buffer: share of equity kept in cash.
        no_trade_band: smaller changes of a weight are not traded.
        region: trading rules of the exchange; inferred from the data when omitted.
        limit: daily price limit as a return, at which nothing is bought; that of the region when omitted.
        store: forecast store that keeps the forecasts of both dates; kept nowhere when omitted.
        store_dtype: type of the stored paths.
        model: bundled name, folder or hub id of a checkpoint; or another forecaster, such as baseline:garch.
        samples: paths per instrument; 0 samples none and ranks by the return head alone.
        lookback: traded bars that the model reads.
        hold: days that a position is held; the score is the return of that time.
        horizon: days to forecast, at least hold + 1, which is used when omitted.
        score: what makes the score: head, paths, or auto for the head where it fits.
        heads: comma-separated names or folders of return heads; the checkpoint's when omitted.
        candles: valid repairs invalid sampled bars, raw keeps them.
        limits: price limits of sampled paths: none, china, or a share of the last close.
        output: file of the table: .csv, .parquet or .json.
        html: file of a page whose table can be sorted.
    """
    from pandas import Series

    from kronos_strategies.data.qlib_store import REGIONS, region_of_store
    from kronos_strategies.data.simulate import default_store
    from kronos_strategies.picks import read_holdings
    from kronos_strategies.portfolio import PortfolioRules
    from kronos_strategies.qlib.data_access import init_qlib
    from kronos_strategies.qlib.model import KronosModel
    from kronos_strategies.qlib.picks import find_dates, make_picks

    _check(output, html, holdings, cash, limit)
    previous = Series(dtype=float) if holdings is None else read_holdings(holdings, cash)
    simulated = data is None
    rules = PortfolioRules(
        rank_by=rank_by,
        topk=TOPK[simulated] if topk is None else topk,
        rank_buffer=RANK_BUFFER[simulated] if rank_buffer is None else rank_buffer,
        weighting=weighting or ("inverse_volatility" if samples else "equal"),
        target_volatility=target_volatility,
        cash_buffer=cash_buffer,
        no_trade_band=no_trade_band,
    )
    folder = (data or default_store()).expanduser()
    check_daily(folder, "kronos picks")
    init_qlib(folder, region=region)
    exchange = REGIONS[region] if region else region_of_store(folder)
    dates = find_dates(market, as_of)
    kronos = KronosModel(
        model, tokenizer, revision, device, samples, temperature, top_p, top_k, seed,
        context_overflow=context_overflow, precision=precision, store=str(store) if store else None,
        store_dtype=store_dtype, calibration=calibration, candles=candles, limits=limits, score=score, heads=heads,
    )  # fmt: skip
    limit = exchange.limit if limit is None else limit
    made = make_picks(kronos, market, dates, rules, previous, limit, lookback, hold, horizon)
    console = Console(width=max(WIDTH, Console().width))
    _show(console, made)
    for path in _write(made, output, html):
        console.print(escape(str(path)), soft_wrap=True, highlight=False)
    show_next(console, _picture(folder, made, as_of))


def _check(
    output: Path | None, html: Path | None, holdings: Path | None, cash: float | None, limit: float | None
) -> None:
    """Refuse options that would fail only after the forecasts."""
    from kronos_strategies.forecast_view.summary import SUFFIXES, check_suffix

    for path, known in ((output, SUFFIXES), (html, (".html",))):
        if path is not None:
            check_suffix(path, known)
    if cash is not None and holdings is None:
        raise ValueError("--cash needs --holdings: name the file of the positions in money, or omit --cash.")
    if limit is not None and not 0 < limit < 1:
        raise ValueError(f"--limit {limit:g} is not a fraction of the price. Pass e.g. 0.095, or omit it.")


def _show(console: Console, made: Picks) -> None:
    """Print every position and trade, the best of the others, and how the picks were made."""
    from kronos_strategies.report.picks import picks_columns, picks_lines, picks_title

    columns = picks_columns(made)
    table = Table(
        title=picks_title(made), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for column in columns:
        table.add_column(column.label, justify="right" if column.number else "left", no_wrap=True)
    moved = made.table["weight_before"].ne(0) | made.table["target_weight"].ne(0)
    others = made.table.index[~moved][: max(0, MAX_ROWS - int(moved.sum()))]
    shown = made.table[moved | made.table.index.isin(others)].reset_index()
    for row in shown.to_dict("records"):
        table.add_row(*(escape(column.cell(row).text) for column in columns))
    console.print(table)
    if left := len(made.table) - len(shown):
        console.print(f"{left:,} more instruments: write all with --output or --html.")
    for line in picks_lines(made):
        console.print(escape(line), soft_wrap=True, highlight=False)
    for warning in made.warnings:
        note(console, warning)


def _write(made: Picks, output: Path | None, html: Path | None) -> list[Path]:
    """Write the files that are asked for."""
    from kronos_strategies.forecast_view.summary import write_table
    from kronos_strategies.report.picks import save_picks_page

    written = [write_table(made.table, output)] if output is not None else []
    return written + ([save_picks_page(made, html)] if html is not None else [])


def _picture(folder: Path, made: Picks, as_of: str | None) -> str:
    """The command that draws the forecast of the best instrument."""
    best = str(made.table.index[0][1])
    words = ["kronos", "forecast", str(folder), "--instrument", best]
    words += ["--as-of", f"{made.date:%Y-%m-%d}"] if as_of else []
    return shlex.join([*words, "--plot", f"{best}.html"])
