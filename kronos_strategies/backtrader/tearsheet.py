"""KronosTearSheet: the report of a run, as an analyzer.

It reads bar by bar what the strategy could read and computes when it is asked, after the run. That takes the extras
`evaluation` and `report`, which a run without analyzers does not need.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import backtrader as bt
import pandas as pd

from kronos_strategies.backtrader.book import BookTape, executions
from kronos_strategies.backtrader.coefficient import check_params, label_of
from kronos_strategies.backtrader.describe import (
    bars_per_year,
    describe_run,
    forecast_settings,
    outlooks_of,
    remarks,
)
from kronos_strategies.backtrader.recording import Recording
from kronos_strategies.backtrader.scores import ScoreTape
from kronos_strategies.backtrader.shown import Clock, Shown, name_feeds
from kronos_strategies.backtrader.trades import TradeTape
from kronos_strategies.evaluation.signal.ic import MIN_INSTRUMENTS
from kronos_strategies.result import BacktestResult

if TYPE_CHECKING:
    from kronos_strategies.evidence import Evidence
    from kronos_strategies.report.report import Report


class KronosTearSheet(bt.Analyzer):
    """The report of a run: the same as Qlib's, of signal, distribution and book.

        cerebro.addanalyzer(KronosTearSheet, benchmark="SPY", title="Top 10")
        strategy.analyzers.kronostearsheet.report("out/report")

    Scores are dated with the bars of their own feeds, resampled ones too. The account is taken to be the strategy's
    own. Returns are those of each strategy bar, from the bar of the first purchase on; of several bars of one date
    together. The first benchmark is the feed that `benchmark` names, then come all ranked feeds at equal weights.

    Fewer feeds than `min_names` are judged one by one over time, for which the run keeps what was forecast. The
    section on the distribution needs all paths, which are kept where the indicator has a `store`, or in the folder
    `forecasts`.

    Params:
        signal, every, hold, price: see `InformationCoefficient`.
        benchmark: name of a feed; "" for none.
        bars_per_year: that annualise the book; 0 tells them from the bars.
        trials: settings that were tried before this one was chosen, itself counted.
        title: of the report; "" for the strategy's name.
        notice: a sentence that a reader must see, e.g. that the market is simulated.
        forecasts: folder of the `StoredForecasts` that `ForecastData` feeds brought along.
        min_names: a rebalance that ranks fewer feeds has no coefficient.

    Raises:
        ValueError: no feed has the line or the benchmark's name, or a parameter is out of range.
        MissingExtra: what evaluation or report need is missing.
    """

    params = (
        ("signal", "score"),
        ("every", 0),
        ("hold", 0),
        ("price", "open"),
        ("benchmark", ""),
        ("bars_per_year", 0),
        ("trials", 1),
        ("title", ""),
        ("notice", ""),
        ("forecasts", ""),
        ("min_names", MIN_INSTRUMENTS),
    )

    def start(self) -> None:
        """Find the lines and see the account before its first bar."""
        from kronos_strategies.report import export  # noqa: F401

        check_params(self)
        self._feeds = name_feeds(self.strategy.datas)
        if self.p.benchmark and self.p.benchmark not in self._feeds:
            raise ValueError(
                f"No feed is called {self.p.benchmark!r} to be the benchmark; they are {', '.join(self._feeds)}."
            )
        self._scores = ScoreTape(self.strategy, self._feeds, self.p.signal, self.p.every)
        self._clock = Clock(self.strategy, self._feeds)
        self._book = BookTape(self.strategy, self._feeds)
        self._trades = TradeTape(self.strategy, self._feeds)

    def notify_order(self, order: bt.Order) -> None:
        """Take what has traded."""
        self._book.notice(order)
        for bit in executions(order):
            self._trades.notice(order.data, bit)

    def next(self) -> None:
        """Read the current bar."""
        self._clock.see()
        self._scores.see()
        self._book.see()

    def stop(self) -> None:
        """Put everything down; let go of the engine, so that an optimisation can hand it on."""
        shown, tape = Shown(self._feeds), self._scores
        dates = shown.dates(self._clock)
        book, weights = self._book.frame(dates)
        hold = int(self.p.hold or tape.every)
        forecasts = forecast_settings(self.strategy, self._feeds, tape)
        benchmark = None
        if self.p.benchmark:
            benchmark = shown.panel([self.p.benchmark])["close"].droplevel("instrument")
            benchmark = benchmark.rename(self.p.benchmark)
        self._recording = Recording(
            min_names=int(self.p.min_names),
            panel=shown.panel(list(tape.sources)),
            scores=tape.frame(shown, dates),
            made=tape.made(shown),
            outlooks=outlooks_of(self.strategy, tape, shown, forecasts),
            trades=self._trades.frame(shown),
            book=book,
            weights=weights,
            benchmark=benchmark,
            settings=forecasts.settings,
            together=forecasts.together,
            level=forecasts.level,
            line=self.p.signal,
            every=tape.every,
            hold=hold,
            price=self.p.price,
            daily=shown.daily,
            bars_per_year=int(self.p.bars_per_year or bars_per_year(book.index)),
            title=self.p.title or f"{type(self.strategy).__name__} in Backtrader",
            trials=int(self.p.trials),
            notice=self.p.notice,
            forecasts=self.p.forecasts,
            described=describe_run(
                self.strategy,
                tape,
                dates,
                self.p.signal,
                label_of(self.p.price, hold),
                forecasts.settings,
                shown.daily,
            ),
            remarks=tuple(remarks(self.strategy, self._book, shown)),
        )
        del self._feeds, self._scores, self._clock, self._book, self._trades

    @cached_property
    def result(self) -> BacktestResult:
        """Of the account, once the run is over."""
        return self._recording.result

    @property
    def trades(self) -> pd.DataFrame:
        """A row a trade, once the run is over; columns as of `TradeEvaluation.trades`."""
        return self._recording.trades

    @cached_property
    def evidence(self) -> Evidence:
        """Everything that the report is computed from, once the run is over.

        Raises:
            ValueError: no feed ever had a score.
        """
        from kronos_strategies.backtrader.evidence import evidence_of

        return evidence_of(self._recording)

    @cached_property
    def summary(self) -> Report:
        """The report in memory, once the run is over; `report` writes it.

        Raises:
            ValueError: no feed ever had a score.
        """
        from kronos_strategies.report.report import build_report

        return build_report(self.evidence)

    def report(self, folder: str | Path) -> list[Path]:
        """Write the report into `folder`: report.html first, metrics.json, CSVs, and the evidence beside them.

        `kronos report` and `kronos compare` read the folder. Equal runs write equal bytes.

        Raises:
            ValueError: no feed ever had a score.
        """
        from kronos_strategies.report.export import save_report

        written = save_report(self.summary, Path(folder))
        return [*written, self.evidence.write(Path(folder) / "evidence")]

    def get_analysis(self) -> dict[str, float]:
        """The figures of the book and of its trades, by their names in metrics.json; computed once."""
        return dict(self._figures)

    @cached_property
    def _figures(self) -> dict[str, float]:
        from kronos_strategies.evaluation.portfolio.evaluation import evaluate_portfolio
        from kronos_strategies.evaluation.portfolio.trades import evaluate_trades

        trades = evaluate_trades(self._recording.trades).metrics()
        return evaluate_portfolio(self.result, trials=self._recording.trials).metrics() | trades
