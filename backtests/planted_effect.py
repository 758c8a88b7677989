"""How much of a planted effect each way of using Kronos finds, compared with the optimum.

    python backtests/planted_effect.py
    python backtests/planted_effect.py --effects reversal none --strengths 0.2 --samples 8 --steps 200

Simulated markets hold one effect, whose best possible RankIC is known (`kronos_strategies.data.planted`). Each is
ranked by the optimum, by LightGBM on 15 bar features, by heads fitted on the hidden states of a frozen checkpoint,
and, without fitting, by the checkpoint's own head, by sampled paths and by a fine-tuned checkpoint. Test dates lie
after all training data, with an embargo. If large returns follow large returns, the size of returns is ranked, by
the volatility of the paths; the checkpoint's own head, which ranks returns, is then left out.

In --output: planted_effect.csv (a row for each market and method), planted_effect.json (the same and the settings),
planted_effect.md (tables).
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import cyclopts
import numpy as np
import pandas as pd
import yaml
from planted_tables import save, show

from kronos.head import HeadInfo, ReturnHead, find_head
from kronos.predictor import KronosPredictor
from kronos.utils import run_command
from kronos.windows import Windows
from kronos_strategies.data.planted import DELAY, EFFECTS, Effect, PlantedConfig, PlantedMarket, plant
from kronos_strategies.evaluation.signal.metrics import information_coefficients
from kronos_strategies.evaluation.significance import mean_test
from kronos_strategies.heads.fit import FitSettings, Kind, Split, centered_ranks, fit_head, fit_split
from kronos_strategies.heads.sources import bar_features
from kronos_strategies.progress import track
from kronos_strategies.signal import signals

LOOKBACK = 90
EMBARGO = DELAY  # days between the last training return and the first test date
VALIDATION = 4  # the last of this many equal parts of the training days is the validation
OPTIMUM = "optimum"
TRAINED = 17  # bars after the lookback in a window for fine-tuning
Method = tuple[str, int]  # the method, and the number of bars of this market it was trained on
Several = cyclopts.Parameter(negative=(), consume_multiple=True)


@dataclass(frozen=True)
class Study:
    """Settings of the study of one market.

    Attributes:
        checkpoint: bundled name, folder or hub id.
        learn_days: numbers of training days before the test; the last quarter of them is the validation.
        test_days: dates that are ranked.
        heads: kinds of head to fit on hidden states.
        samples: paths per window; 0 samples none.
        path_every: days between the test dates that paths rank.
        steps: steps of fine-tuning on the longest of `learn_days`; 0 skips fine-tuning.
        device: cpu, cuda or mps; the fastest available when omitted.
    """

    checkpoint: str = "kronos-nano"
    learn_days: Annotated[tuple[int, ...], Several] = (50, 200)
    test_days: int = 100
    heads: Annotated[tuple[Kind, ...], Several] = ("ridge",)
    samples: int = 0
    path_every: int = 1
    steps: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if not self.learn_days or min(self.learn_days) < 10 * VALIDATION:
            raise ValueError(
                f"learn_days={list(self.learn_days)}. Fit on at least {10 * VALIDATION} days each."
            )
        if self.test_days < 20:
            raise ValueError(
                f"test_days={self.test_days} are too few for an interval. Rank at least 20 days."
            )
        if self.samples < 0 or self.steps < 0 or self.path_every < 1:
            raise ValueError("samples and steps must be at least 0, and path_every at least 1.")
        if self.steps and max(self.learn_days) // VALIDATION <= TRAINED:
            raise ValueError(
                f"learn_days={list(self.learn_days)} leave no window to validate fine-tuning on. Give at least "
                f"{(TRAINED + 1) * VALIDATION} days, or steps=0."
            )

    @property
    def days(self) -> int:
        """Number of days that a market needs."""
        return LOOKBACK + max(self.learn_days) + EMBARGO + self.test_days + DELAY


DEFAULTS = Study()


@dataclass(frozen=True)
class StudyMarket:
    """A planted market with its windows, split into training and test dates.

    Attributes:
        planted: bars, optimum and target.
        windows: windows of all training and test dates.
        learn_until: position of the last training day.
        test: (N,) bool, the windows to rank.
    """

    planted: PlantedMarket
    windows: Windows
    learn_until: int
    test: np.ndarray

    @classmethod
    def of(cls, config: PlantedConfig, study: Study) -> StudyMarket:
        """Simulate the market, and make its windows."""
        planted = plant(config)
        calendar = planted.target.index
        learn_until = LOOKBACK + max(study.learn_days) - 1
        last = len(calendar) - DELAY - 1
        span = {"start": calendar[LOOKBACK - 1], "end": calendar[last]}
        windows = Windows.rolling(planted.panel, LOOKBACK, DELAY, calendar, **span)
        dates = windows.index.get_level_values("datetime")
        return cls(planted, windows, learn_until, np.asarray(dates > calendar[learn_until + EMBARGO]))

    @property
    def calendar(self) -> pd.DatetimeIndex:
        """All days."""
        return pd.DatetimeIndex(self.planted.target.index)

    def learned(self, days: int) -> np.ndarray:
        """(N,) bool, the windows of the last `days` days to learn from."""
        first, last = self.calendar[[self.learn_until - days + 1, self.learn_until]]
        dates = self.windows.index.get_level_values("datetime")
        return np.asarray((dates >= first) & (dates <= last))

    def settings(self, days: int, kind: Kind) -> FitSettings:
        """How to fit on the last `days` days."""
        train_until = self.learn_until - days // VALIDATION
        return FitSettings(self.calendar[train_until], self.calendar[self.learn_until], kind, (1,))

    def split(self, keys: pd.MultiIndex, settings: FitSettings) -> Split:
        """Labels of the size of returns, purged and embargoed as those of returns are."""
        label = centered_ranks(long(self.planted.target).reindex(keys)) * 12**0.5
        date = self.calendar.get_indexer(keys.get_level_values("datetime"))
        train_until, valid_until = self.calendar.get_indexer([settings.train_until, settings.valid_until])
        train = label.where(date + DELAY <= train_until)
        valid = label.where((date > train_until + EMBARGO) & (date + DELAY <= valid_until))
        return Split(train.to_frame(1), valid.to_frame(1))


def long(wide: pd.DataFrame) -> pd.Series:
    """(days, instruments) as a series by (datetime, instrument)."""
    return wide.stack()


def scores_of(market: StudyMarket, study: Study, predictor: KronosPredictor) -> dict[Method, pd.Series]:
    """Scores of the test windows by every way that trains no network."""
    keys, instruments = market.windows.index, len(market.planted.panel)
    hidden = predictor.embed(market.windows)
    features = bar_features(market.planted.panel, keys).to_numpy("float32")
    scores = {}
    if not market.planted.config.on_size and find_head(study.checkpoint):
        own = ReturnHead.from_pretrained(study.checkpoint)
        scores["its own head", 0] = one_bar(own, hidden[market.test], keys[market.test])
    if study.samples:
        scores["paths", 0] = path_scores(market, study, predictor)
    for days in study.learn_days:
        scores["LightGBM on bar features", days * instruments] = fitted(market, features, days, "lightgbm")
        for kind in study.heads:
            scores[f"{kind} head on frozen states", days * instruments] = fitted(market, hidden, days, kind)
    return scores


def path_scores(market: StudyMarket, study: Study, predictor: KronosPredictor) -> pd.Series:
    """The mean return that a trade earns on sampled paths, or their volatility where size is ranked."""
    windows = market.windows[market.test]
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    windows = windows[dates.isin(dates.unique().sort_values()[:: study.path_every])]
    sampling = replace(predictor.sampling, samples=study.samples)
    found = signals(predictor.forecast(windows, sampling), hold=1)
    return found["volatility" if market.planted.config.on_size else "score"]


def fitted(market: StudyMarket, inputs: np.ndarray, days: int, kind: Kind) -> pd.Series:
    """Score of the test windows by what was fitted on the `days` days before them."""
    rows, settings = market.learned(days), market.settings(days, kind)
    keys, panel = market.windows.index[rows], market.planted.panel
    if market.planted.config.on_size:
        info = HeadInfo(inputs.shape[1], (1,), "rank of the size of the return", LOOKBACK, kind=kind)
        head = fit_split(inputs[rows], market.split(keys, settings), settings, info)
    else:
        head = fit_head(inputs[rows], keys, panel, settings, lookback=LOOKBACK, markets=("planted",))
    return one_bar(head, inputs[market.test], market.windows.index[market.test])


def finetuned(market: StudyMarket, study: Study, folder: Path) -> KronosPredictor:
    """The checkpoint's predictor, trained further, with its return head, on the longest of `learn_days`."""
    folder.mkdir(parents=True, exist_ok=True)
    bars = pd.concat(market.planted.panel, names=["instrument"]).reset_index()
    bars[bars["datetime"] <= market.calendar[market.learn_until]].to_parquet(folder / "bars.parquet")
    settings = market.settings(max(study.learn_days), "ridge")
    config = {
        "sources": [{"path": str(folder / "bars.parquet"), "head": True, "frequency": "1day"}],
        "pretrained": study.checkpoint,
        "train_until": f"{settings.train_until:%Y-%m-%d}",
        "validate_until": f"{settings.valid_until:%Y-%m-%d}",
        "horizon": TRAINED,
        "max_steps": study.steps,
        "validate_every": max(1, study.steps // 4),
        "learning_rate": 5e-4,
        "device": "cpu" if study.device == "cpu" else "auto",
        "overwrite": True,
        "output": str(folder / "model"),
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "kronos.training", "predictor", "--config", folder / "train.yaml"]
    done = subprocess.run(list(map(str, command)), check=False)
    if done.returncode:
        sys.exit(done.returncode)  # the command prints its own error
    return KronosPredictor.from_pretrained(folder / "model" / "best", device=study.device)


def finetuned_scores(market: StudyMarket, study: Study, folder: Path) -> dict[Method, pd.Series]:
    """Scores of the test windows by a fine-tuned predictor: its paths, and its head where returns are ranked."""
    tuned = finetuned(market, study, folder)
    bars, test = max(study.learn_days) * len(market.planted.panel), market.windows[market.test]
    scores = {}
    if study.samples:
        scores["fine-tuned, paths", bars] = path_scores(market, study, tuned)
    if not market.planted.config.on_size:
        head = ReturnHead.from_pretrained(folder / "model" / "best")
        scores["fine-tuned, head", bars] = one_bar(head, tuned.embed(test), test.index)
    return scores


def one_bar(head: ReturnHead, hidden: np.ndarray, keys: pd.MultiIndex) -> pd.Series:
    """A head's output for a holding of one bar."""
    return pd.Series(head(hidden)[:, head.info.horizons.index(1)], keys)


def evaluate(market: StudyMarket, scores: dict[Method, pd.Series]) -> pd.DataFrame:
    """A row for each method: RankIC with the project's interval, and its share of the optimum on the same dates."""
    config, target = market.planted.config, long(market.planted.target)
    optimum = long(market.planted.optimum)
    if planted := config.effect != "none":
        scores = {(OPTIMUM, 0): optimum.reindex(market.windows.index[market.test])} | scores
    rows = []
    for (method, bars), score in scores.items():
        by_date = information_coefficients(score, target)["rank_ic"]
        best = (
            information_coefficients(optimum.reindex(score.index), target)["rank_ic"].mean()
            if planted
            else np.nan
        )
        test = mean_test(by_date)
        row = {"effect": config.effect, "strength": config.strength, "ranked_by": method, "bars": bars}
        row |= {"rank_ic": test.mean, "low": test.low, "high": test.high, "t": test.t, "p": test.p}
        row |= {"share": test.mean / best, "dates": test.dates, "inference": test.method}
        rows.append(row)
    return pd.DataFrame(rows)


def markets_of(
    effects: tuple[Effect, ...], strengths: tuple[float, ...], **shape: int
) -> list[PlantedConfig]:
    """One for each effect and strength; the market without an effect once."""
    return [
        PlantedConfig(effect, strength, **shape)
        for effect in effects
        for strength in (strengths if effect != "none" else (0.0,))
    ]


def planted_effect(
    *,
    effects: Annotated[tuple[Effect, ...], Several] = EFFECTS,
    strengths: Annotated[tuple[float, ...], Several] = (0.1, 0.3),
    instruments: int = 50,
    seed: int = 0,
    study: Annotated[Study, cyclopts.Parameter(name="*")] = DEFAULTS,
    output: Path = Path("out/planted_effect"),
) -> None:
    """Simulate planted effects, and measure what each method finds of the optimum.

    Args:
        effects: effects to plant, each in its own markets.
        strengths: RankIC of the optimum.
        instruments: number of instruments per market.
        seed: seed of the markets.
        study: settings of the study of each market.
        output: folder of the tables.
    """
    configs = markets_of(effects, strengths, instruments=instruments, days=study.days, seed=seed)
    predictor = KronosPredictor.from_pretrained(study.checkpoint, device=study.device)
    began, parts = time.process_time(), []
    for config in track(configs, "plant", "markets"):
        market = StudyMarket.of(config, study)
        scores = scores_of(market, study, predictor)
        if study.steps:
            scores |= finetuned_scores(market, study, output / f"{config.effect}-{config.strength:g}")
        parts.append(evaluate(market, scores))
        show(parts[-1])
    seconds = round(time.process_time() - began)
    settings = {
        "instruments": instruments,
        "seed": seed,
        **asdict(study),
        "CPU seconds without fine-tuning": seconds,
    }
    for file in save(pd.concat(parts, ignore_index=True), settings, output):
        print(f"Wrote {file}")


if __name__ == "__main__":
    run_command(cyclopts.App(default_command=planted_effect, help=__doc__, version_flags=[]))
