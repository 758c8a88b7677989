"""A return head after costs, by holding period, rank buffer and number of instruments.

    python backtests/head_after_costs.py --data ~/csi300 --store ~/forecasts --start 2020-06-01 --end 2023-12-28
    python backtests/head_after_costs.py --data ~/csi300 --store ~/forecasts --start 2020-06-01 --end 2023-12-28 \
        --qlib 10:50:50 --qlib 5:50:0

Every setting is traded by `kronos_strategies.backtest`, on the universe and within its thirds by traded amount of
20 days, each compared with equal weights of the same instruments. Settings of --qlib, HOLD:TOPK:BUFFER, trade in
Qlib's engine as well. Outputs of the head are stored, so that an interrupted run resumes. In --output:
head_after_costs.md.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

import cyclopts
import numpy as np
import pandas as pd
from rules_run import markdown, show_table
from score_head import head_scores

from kronos.predictor import KronosPredictor
from kronos.utils import run_command, write_atomic
from kronos_strategies.backtest import TradingRules, backtest_rules, equal_weight_returns
from kronos_strategies.backtest.inputs import BacktestPrices, cut_to_dates, read_prices
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.portfolio.evaluation import benchmark_relative
from kronos_strategies.evaluation.portfolio.returns import annual_return, max_drawdown, sharpe
from kronos_strategies.evaluation.portfolio.sharpe import expected_max_sharpe, probabilistic_sharpe
from kronos_strategies.portfolio import PortfolioRules, parse_fields, with_fields
from kronos_strategies.qlib.data_access import init_qlib, member_windows
from kronos_strategies.qlib.strategy import backtest_in_qlib
from kronos_strategies.store import ForecastStore, WindowSpec

LOOKBACK, HORIZON = 90, 11
OWN, MEAN = "head, output of that horizon", "head, mean of ranks"  # scores of `head_scores`
AMOUNT_BARS = 20
THIRDS = ("least traded third", "middle third", "most traded third")
EQUAL = "equal weight"

Several = cyclopts.Parameter(negative=(), consume_multiple=True)
Row = dict[str, str]

app = cyclopts.App(help=__doc__, version_flags=[])


@app.default
def head_after_costs(
    *,
    data: Annotated[Path, cyclopts.Parameter(env_var="KRONOS_QLIB_DATA")],
    store: Path,
    start: datetime,
    end: datetime,
    model: str = "kronos-nano",
    heads: str = "",
    market: str = "csi300",
    every: int = 5,
    hold: Annotated[tuple[int, ...], Several] = (5, 10, 20),
    topk: Annotated[tuple[int, ...], Several] = (20, 50, 100),
    rank_buffer: Annotated[tuple[int, ...], Several] = (0, 25, 50),
    common: str = "no_trade_band=0",
    trading: str = "",
    thirds: bool = True,
    qlib: Annotated[tuple[str, ...], Several] = (),
    device: str | None = None,
    output: Path = Path("out/head_after_costs"),
) -> None:
    """Trade every setting, and print a table of all.

    Args:
        data: Qlib data directory.
        store: folder of the outputs of heads.
        start: first date.
        end: last date.
        model: checkpoint.
        heads: names of heads, several to average; the checkpoint's own when empty.
        market: universe to trade.
        every: days between dates with scores; holding periods are multiples of it.
        hold: holding periods in days. The score is the head's output of that horizon, or the mean of the ranks of 5
            and 10 days where it has none.
        topk: numbers of instruments.
        rank_buffer: ranks below the top k that a position may fall to before it is sold.
        common: fields of PortfolioRules that all settings share.
        trading: fields of TradingRules; costs, price limit and lots of the region of the data otherwise.
        thirds: whether to trade the thirds by traded amount, with a third of the instruments and of the buffer.
        qlib: settings that trade in Qlib's engine as well, as HOLD:TOPK:BUFFER.
        device: cpu, cuda or mps.
        output: folder of the table.
    """
    if wrong := [each for each in hold if each % every]:
        raise ValueError(
            f"A holding period of {wrong[0]} days needs scores every {wrong[0]} days. Set --every."
        )
    init_qlib(data)
    predictor = KronosPredictor.from_pretrained(model, device=device)
    spec = WindowSpec(market, LOOKBACK, HORIZON, LOOKBACK)
    windows = member_windows(spec, pd.Timestamp(start), pd.Timestamp(end), every=every)
    found, warnings = head_scores(predictor, heads, windows, spec, ForecastStore(store))
    scores = {each: found[OWN].get(each, found[MEAN][10]).rename("score").to_frame() for each in hold}
    prices = read_prices(data, sorted(windows.index.get_level_values("instrument").unique()))
    prices = cut_to_dates(prices, pd.Timestamp(start), pd.Timestamp(end))
    rules = with_fields(prices.trading, parse_fields(trading))
    base = with_fields(PortfolioRules(), parse_fields(common))
    study = Study(scores, prices, rules, base)
    settings = list(itertools.product(hold, topk, rank_buffer))
    dates = windows.index.get_level_values("datetime")
    title = f"{model} on {market}, {dates.min():%Y-%m-%d} to {dates.max():%Y-%m-%d}"
    print(title, *warnings, sep="\n")
    blocks = {"all": study.rows(settings)}
    print(study.best())
    if thirds:
        few = [(each, max(1, topk[len(topk) // 2] // 3), max(rank_buffer) // 3) for each in hold]
        for place, name in enumerate(THIRDS):
            within = study.within(place)
            blocks[name] = within.rows(few)
    if qlib:
        named = [tuple(map(int, text.split(":"))) for text in qlib]
        blocks["Qlib's engine"] = study.rows_of_qlib(named, pd.Timestamp(end))
    for name, rows in blocks.items():
        show_table(rows, f"{title}: {name}")
    output.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(
        markdown(rows, f"{name}: holding, instruments, buffer") for name, rows in blocks.items()
    )
    print("Wrote", write_atomic(output / "head_after_costs.md", f"{title}\n\n{text}\n\n{study.best()}\n"))


class Study:
    """Scores by holding period, prices, and the results of the settings traded so far.

    Args:
        scores: holding period -> frame with the column score, indexed (datetime, instrument).
        prices: prices of the instruments.
        trading: execution and costs.
        base: rules that all settings share.
    """

    def __init__(
        self,
        scores: dict[int, pd.DataFrame],
        prices: BacktestPrices,
        trading: TradingRules,
        base: PortfolioRules,
    ) -> None:
        self.scores, self.prices, self.trading, self.base = scores, prices, trading, base
        self.equal = equal_weight_returns(prices.panel, next(iter(scores.values())).index).rename(EQUAL)
        self.results: dict[str, BacktestResult] = {}

    def within(self, third: int) -> "Study":
        """The same with the instruments of a third by traded amount alone."""
        scores = {
            hold: third_by_amount(table, self.prices.panel, third) for hold, table in self.scores.items()
        }
        return Study(scores, self.prices, self.trading, self.base)

    def rules(self, topk: int, rank_buffer: int) -> PortfolioRules:
        """The rules of a setting."""
        return replace(self.base, topk=topk, rank_buffer=rank_buffer)

    def rows(self, settings: Sequence[tuple[int, int, int]]) -> dict[str, Row]:
        """Trade settings of holding period, number of instruments and rank buffer; a row of text for each."""
        for hold, topk, rank_buffer in settings:
            self.results[f"{hold} days, {topk}, {rank_buffer}"] = backtest_rules(
                self.scores[hold],
                self.rules(topk, rank_buffer),
                self.prices.panel,
                self.trading,
                hold,
                self.prices.factors,
                benchmarks=self.equal.to_frame(),
            )
        return {name: row_of(result, EQUAL) for name, result in self.results.items()}

    def rows_of_qlib(self, settings: Sequence[tuple[int, int, int]], end: pd.Timestamp) -> dict[str, Row]:
        """Rows of settings in Qlib's engine, and of the same without it until the same bar."""
        rows = {}
        for hold, topk, rank_buffer in settings:
            rules, name = self.rules(topk, rank_buffer), f"{hold} days, {topk}, {rank_buffer}"
            found = backtest_in_qlib(self.scores[hold], rules, self.trading, hold, self.equal, end)
            rows[f"{name}, Qlib"] = row_of(found, EQUAL)
            own = self.results.get(name)
            if own is not None:
                same = own.returns.index.intersection(found.returns.index)
                cut = replace(own, returns=own.returns.loc[same], turnover=own.turnover.loc[same])
                rows[f"{name}, tester"] = row_of(replace(cut, benchmarks=own.benchmarks.loc[same]), EQUAL)
        return rows

    def best(self) -> str:
        """The best information ratio, and the probability that it is not the luck of the best of all settings."""
        gaps = {
            name: (each.returns["net"] - each.benchmarks[EQUAL]).dropna()
            for name, each in self.results.items()
        }
        ratios = pd.Series({name: sharpe(gap, 1) for name, gap in gaps.items()})
        best = str(ratios.idxmax())
        year = self.results[best].bars_per_year
        luck = expected_max_sharpe(len(ratios), float(ratios.std(ddof=1)) if len(ratios) > 1 else 0.0)
        known = probabilistic_sharpe(gaps[best], luck)
        return (
            f"Best of {len(ratios)} settings: {best}, information ratio {ratios[best] * year**0.5:.2f} (median "
            f"of all {ratios.median() * year**0.5:.2f}); deflated by the number of settings, the "
            f"probability that it is above 0 is {known:.3f}."
        )


def third_by_amount(table: pd.DataFrame, prices: PricePanel, third: int) -> pd.DataFrame:
    """The rows of a third of each date by mean traded amount of the last bars, 0 for the least traded."""
    amounts = prices.amounts.fillna(0.0).rolling(AMOUNT_BARS, min_periods=1).mean()
    amount = prices.lookup(amounts, table.index)
    place = amount.groupby(level="datetime").rank(pct=True, method="first")
    return table[np.ceil(place * len(THIRDS)).astype(int) == third + 1]


def row_of(result: BacktestResult, benchmark: str) -> Row:
    """Text by column."""
    net, year = result.returns["net"], result.bars_per_year
    relative = benchmark_relative(net, result.benchmarks[[benchmark]], year).loc[benchmark]
    half = relative["high"] - relative["active_return"]
    excess = f"{100 * relative['active_return']:+.1f} ± {100 * half:.1f} %"
    return {
        "net a year": f"{annual_return(net, year):.1%}",
        "less equal weight": f"**{excess}**" if abs(relative["active_return"]) > half else excess,
        "information ratio": f"{relative['information_ratio']:.2f}",
        "Sharpe": f"{sharpe(net, year):.2f}",
        "max drawdown": f"{max_drawdown(net):.1%}",
        "traded a day": f"{result.turnover.mean():.1%}",
        "equal weight": f"{annual_return(result.benchmarks[benchmark], year):.1%}",
    }


if __name__ == "__main__":
    run_command(app)
