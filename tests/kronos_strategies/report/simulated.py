"""A simulated market and the real studies of it, of any size: a score that knows a little, and paths that fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from kronos import SampleConfig
from kronos.bars import FEATURES
from kronos.forecast import Forecast, Provenance
from kronos_strategies.backtest_result import BacktestResult
from kronos_strategies.evaluation.baselines import low_volatility_20, reversal_5
from kronos_strategies.evaluation.comparison.comparison import Comparison, compare_versions
from kronos_strategies.evaluation.comparison.version import Version
from kronos_strategies.evaluation.distribution.evaluation import DistributionEvaluation, evaluate_distribution
from kronos_strategies.evaluation.distribution.path_summary import summarize_forecasts
from kronos_strategies.evaluation.panel import PricePanel
from kronos_strategies.evaluation.portfolio.evaluation import PortfolioEvaluation, evaluate_portfolio
from kronos_strategies.evaluation.signal.evaluation import SignalEvaluation, evaluate_signal
from kronos_strategies.evaluation.signal.neutralization import price_exposures

WARM_UP, AFTER, HOLD, FORECAST_EVERY = 80, 12, 5, 4
HORIZONS = (1, 5, 10)
INDUSTRIES = ("Banks", "Energy", "Health care", "Information technology", "Utilities")


@dataclass(frozen=True)
class Simulated:
    """A market of random walks, `dates` long, of `names` names."""

    dates: int
    names: int
    seed: int = 0

    @cached_property
    def market(self) -> PricePanel:
        rng = np.random.default_rng(self.seed)
        days = pd.bdate_range("2020-01-02", periods=WARM_UP + self.dates + AFTER, name="datetime")
        names = pd.Index([f"SH{600000 + i}" for i in range(self.names)], name="instrument")
        shape = (len(days), self.names)
        deviation = np.linspace(0.008, 0.03, self.names)
        common = rng.normal(0.0003, 0.008, (len(days), 1)) * np.linspace(1.4, 0.6, self.names)
        steps = common + rng.standard_normal(shape) * deviation
        close = 20 * np.exp(steps.cumsum(axis=0))
        open_ = np.vstack([close[:1], close[:-1]]) * np.exp(rng.standard_normal(shape) * deviation / 4)
        amount = 1e7 * np.exp(rng.standard_normal(self.names) + 0.3 * rng.standard_normal(shape))
        ranges = rng.uniform(0.6, 1.4, shape) * deviation**2
        frames = (pd.DataFrame(wide, days, names) for wide in (open_, close, amount, ranges))
        return PricePanel(*frames)

    @property
    def days(self) -> pd.DatetimeIndex:
        """Dates of the scores."""
        return pd.DatetimeIndex(self.market.calendar[WARM_UP : WARM_UP + self.dates])

    def long(self, wide: pd.DataFrame) -> pd.Series:
        """The days' rows."""
        return wide.loc[self.days].stack(future_stack=True)

    def score(self, skill: float, seed: int) -> pd.Series:
        """Knows `skill` of the return to come, and is noise that lasts for the rest."""
        realized = self.market.forward_return(HOLD)
        noise = pd.DataFrame(
            np.random.default_rng(seed).standard_normal(realized.shape), realized.index, realized.columns
        )
        noise = noise.ewm(span=8).mean()
        known = realized.div(realized.std(axis=1), axis=0).fillna(0.0)
        return self.long(skill * known + noise.div(noise.std(axis=1), axis=0))

    @cached_property
    def labels(self) -> pd.DataFrame:
        return pd.DataFrame({horizon: self.long(self.market.forward_return(horizon)) for horizon in HORIZONS})

    @cached_property
    def baselines(self) -> pd.DataFrame:
        closes = self.market.closes
        return pd.DataFrame(
            {
                "5-day reversal": self.long(reversal_5(closes)),
                "low 20-day volatility": self.long(low_volatility_20(closes)),
            }
        )

    @cached_property
    def exposures(self) -> pd.DataFrame:
        wide = price_exposures(self.market.closes, self.market.amounts)
        known = pd.DataFrame({name: self.long(frame) for name, frame in wide.items()})
        places = np.arange(self.names) % len(INDUSTRIES)
        industry = pd.Series(np.array(INDUSTRIES)[places], self.market.closes.columns)
        return known.assign(industry=known.index.get_level_values("instrument").map(industry))

    def signal(self) -> SignalEvaluation:
        scores = pd.concat([self.score(0.06, 1).rename("Kronos"), self.baselines], axis=1)
        return evaluate_signal(scores, self.labels, HOLD, self.exposures)

    def forecasts(self, samples: int = 24) -> Iterator[Forecast]:
        """Walks somewhat narrower than the truth, on every fourth day."""
        closes, reach = self.market.closes, max(HORIZONS) + 1
        deviation = closes.pct_change(fill_method=None).rolling(40).std()
        for day in self.days[::FORECAST_EVERY]:
            at = closes.index.get_loc(day)
            steps = np.random.default_rng(at).standard_normal((self.names, samples, reach))
            steps *= 0.85 * deviation.iloc[at].to_numpy()[:, None, None]
            last = closes.iloc[at].to_numpy()
            paths = np.ones((self.names, samples, reach, len(FEATURES)), np.float32)
            paths[..., :4] = (last[:, None, None] * np.exp(steps.cumsum(axis=2)))[..., None]
            keys = pd.MultiIndex.from_product([[day], closes.columns], names=["datetime", "instrument"])
            times = np.tile(closes.index[at + 1 : at + 1 + reach].to_numpy(), (self.names, 1))
            start = np.repeat(last[:, None], len(FEATURES), axis=1).astype(np.float32)
            sampling = SampleConfig(samples=samples)
            made = Provenance(
                "kronos-nano",
                None,
                None,
                None,
                sampling,
                "net",
                512,
                5,
                "recompute",
                "float32",
                "last_close",
                "",
            )
            yield Forecast(paths, keys, times, start, made)

    def distribution(self) -> DistributionEvaluation:
        book, made = summarize_forecasts(self.forecasts(), self.market, HORIZONS, HOLD)
        return evaluate_distribution(
            book, made, self.market, self.labels[HOLD], overlap=-(-HOLD // FORECAST_EVERY)
        )

    def result(self) -> BacktestResult:
        """The fifth with the highest score, equal weights, new ones every day."""
        score = self.score(0.06, 1).unstack("instrument")
        top = score.rank(axis=1, pct=True) > 0.8
        weights = top.div(top.sum(axis=1), axis=0) * 0.98
        earned = self.market.closes.pct_change(fill_method=None).loc[self.days]
        gross = (weights.shift(1) * earned).sum(axis=1)
        traded = weights.diff().abs().sum(axis=1) * 0.2
        cost = 0.0015 * traded
        held = weights.stack(future_stack=True)
        return BacktestResult(
            returns=pd.DataFrame({"gross": gross, "net": gross - cost}),
            benchmarks=pd.DataFrame(
                {
                    "benchmark": earned.iloc[:, : self.names // 2].mean(axis=1),
                    "equal weight": earned.mean(axis=1),
                }
            ),
            turnover=traded,
            cost=cost,
            weights=held[held > 0],
        )

    def portfolio(self, trials: int = 12) -> PortfolioEvaluation:
        return evaluate_portfolio(self.result(), self.exposures, trials)

    def versions(self) -> Comparison:
        """A reference, and versions that are as good, better and worse."""
        base, noise = self.score(0.06, 1), self.score(0.0, 2)
        scores = {
            "base": base,
            "seed 2": 0.95 * base + 0.3 * noise,
            "fine-tuned": base + 0.08 * self.score(1.0, 3),
            "small": 0.3 * base + noise,
        }
        rng = np.random.default_rng(9)
        versions = []
        for place, (name, score) in enumerate(scores.items()):
            loss = np.abs(rng.standard_normal(len(score))) * (0.02 + 0.001 * place)
            known = {"model": f"kronos-{name}", "sampling": "32 paths, T=1.0, top_p=1.0, seed=0"}
            versions.append(Version(name, score, pd.DataFrame({"crps_h5": loss}, score.index), known))
        return compare_versions(versions, self.labels, HOLD, baselines=self.baselines)
