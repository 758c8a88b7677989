"""Fit LightGBM quantile models on the windows of a market, see `lightgbm_quantiles`.

Training and validation do not overlap in time: no training label extends past the last training date, and
validation begins the longest step plus one bar later. Validation stops the boosting and scores the models, so that
both parts count as seen: `trained_until` is the last validation date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kronos.bars import wall_clock
from kronos.head import import_lightgbm
from kronos.windows import Windows
from kronos_strategies.forecasters.alpha158 import NAMES, alpha158
from kronos_strategies.forecasters.lightgbm_quantiles import LightGBMQuantiles, QuantileInfo, unit_of_returns
from kronos_strategies.progress import ProgressReport, no_progress

# One bar to enter, and 1, 5 or 10 to hold.
STEPS, LEVELS = (1, 2, 6, 11), (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
MIN_ROWS = 500  # labels in each part: fewer do not determine outer quantiles
ROUNDS, PATIENCE = 300, 20  # maximum number of trees, and of trees without improvement
TREES: dict[str, Any] = {
    "objective": "quantile",
    "metric": "quantile",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


@dataclass(frozen=True)
class QuantileFit:
    """How quantile models are fitted.

    Attributes:
        train_until: last date that a training label may use.
        valid_until: last date that a validation label may use.
        steps: bars ahead; the last one is the longest horizon of a forecast.
        levels: quantile levels.
        rounds: maximum number of trees of a model.
    """

    train_until: pd.Timestamp
    valid_until: pd.Timestamp
    steps: tuple[int, ...] = STEPS
    levels: tuple[float, ...] = LEVELS
    rounds: int = ROUNDS

    def __post_init__(self) -> None:
        if self.valid_until <= self.train_until:
            raise ValueError(
                f"Validation ends at {self.valid_until:%Y-%m-%d}, not after training at "
                f"{self.train_until:%Y-%m-%d}. Validate on later dates."
            )
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds} is too small. Pass at least 1.")
        QuantileInfo(self.steps, self.levels, 2, (), "")  # checks steps and levels


def fit_quantiles(
    windows: Windows,
    panel: Mapping[str, pd.DataFrame],
    settings: QuantileFit,
    *,
    lookback: int,
    markets: Sequence[str],
    progress: ProgressReport = no_progress,
) -> LightGBMQuantiles:
    """Fit one booster for each step and level.

    Args:
        windows: training and validation windows, one per (datetime, instrument).
        panel: adjusted traded bars of these instruments; none after `settings.valid_until` is used.
        settings: dates, steps and levels.
        lookback: bars per window.
        markets: names of the markets of the windows.
        progress: called with the number of boosters done and in all.

    Raises:
        ValueError: a part has too few labels.
        MissingExtra: LightGBM is not installed.
    """
    import_lightgbm()  # before the features, which take minutes
    closes = {name: _closes(bars, settings.valid_until) for name, bars in panel.items()}
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    first = _first_validation(closes, settings)
    train = _labels(windows, closes, settings.steps, settings.train_until)
    valid = _labels(windows, closes, settings.steps, settings.valid_until)
    valid[dates < first] = np.nan
    _check_labels(train, valid, settings, first)
    features = alpha158(windows)
    trees: dict[tuple[int, float], str] = {}
    pinball: dict[str, dict[str, float]] = {}
    total = len(settings.steps) * len(settings.levels)
    for column, step in enumerate(settings.steps):
        losses = []
        for level, fitted in _fit_step(features, train[:, column], valid[:, column], settings):
            trees[step, level] = fitted.text
            losses.append((fitted.model, fitted.constant))
            progress(len(trees), total)
        model, constant = np.mean(losses, axis=0)
        pinball[str(step)] = {"model": round(float(model), 6), "constant": round(float(constant), 6)}
    info = QuantileInfo(
        steps=settings.steps,
        levels=settings.levels,
        lookback=lookback,
        markets=tuple(markets),
        trained_until=f"{settings.valid_until:%Y-%m-%d}",
        pinball=pinball,
    )
    return LightGBMQuantiles(info, trees)


class _Fitted(NamedTuple):
    """A booster as text, and the pinball loss on the validation dates, its own and that of a constant quantile."""

    text: str
    model: float
    constant: float


def _fit_step(
    features: np.ndarray, train: np.ndarray, valid: np.ndarray, settings: QuantileFit
) -> Iterator[tuple[float, _Fitted]]:
    """Boosters of one step, level by level; rows whose label is NaN are left out."""
    lightgbm = import_lightgbm()
    rows, held = np.flatnonzero(np.isfinite(train)), np.flatnonzero(np.isfinite(valid))
    data = lightgbm.Dataset(features[rows], train[rows], feature_name=list(NAMES))
    check = lightgbm.Dataset(features[held], valid[held], reference=data)
    for level in settings.levels:
        booster = lightgbm.train(
            TREES | {"alpha": level},
            data,
            settings.rounds,
            valid_sets=[check],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        best = booster.best_iteration
        predicted = booster.predict(features[held], num_iteration=best, num_threads=1)
        yield (
            level,
            _Fitted(
                booster.model_to_string(num_iteration=best),
                pinball_loss(valid[held], predicted, level),
                pinball_loss(valid[held], np.quantile(train[rows], level), level),
            ),
        )


def pinball_loss(values: np.ndarray, quantile: np.ndarray | float, level: float) -> float:
    """Mean pinball loss of a predicted quantile; lower is better."""
    above = values - quantile
    return float(np.maximum(level * above, (level - 1) * above).mean())


def _closes(bars: pd.DataFrame, until: pd.Timestamp) -> pd.Series:
    """Log closes up to `until` by local time, as windows are dated."""
    close = bars["close"].astype(float)
    logs = pd.Series(np.log(close.where(close > 0).to_numpy()), wall_clock(pd.DatetimeIndex(bars.index)))
    return logs[logs.index <= until]


def _labels(
    windows: Windows, closes: Mapping[str, pd.Series], steps: Sequence[int], until: pd.Timestamp
) -> np.ndarray:
    """(N, K) log returns over each step in the unit of the window; NaN where they end after `until`.

    Bars are an instrument's own traded ones, as in forecasts.
    """
    unit = unit_of_returns(windows, max(steps))[:, np.array(steps) - 1]
    labels = np.full((len(windows), len(steps)), np.nan)
    names = windows.index.get_level_values("instrument")
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    for name in names.unique():
        rows = np.flatnonzero(names == name)
        logs = closes[str(name)]
        logs = logs[logs.index <= until]
        for column, step in enumerate(steps):
            labels[rows, column] = (logs.shift(-step) - logs).reindex(dates[rows]).to_numpy()
    return np.divide(labels, unit, out=np.full_like(labels, np.nan), where=unit > 0)


def _first_validation(closes: Mapping[str, pd.Series], settings: QuantileFit) -> pd.Timestamp:
    """The bar that is the longest step plus one after the last training date."""
    calendar = pd.DatetimeIndex(np.unique(np.concatenate([each.index for each in closes.values()])))
    after = calendar[calendar > settings.train_until]
    embargo = settings.steps[-1] + 1
    if len(after) <= embargo:
        raise ValueError(
            f"There are {len(after)} bars after {settings.train_until:%Y-%m-%d} until "
            f"{settings.valid_until:%Y-%m-%d}, but validation begins {embargo} bars later. End the training "
            "earlier."
        )
    return after[embargo]


def _check_labels(train: np.ndarray, valid: np.ndarray, settings: QuantileFit, first: pd.Timestamp) -> None:
    """Require enough labels of every step in both parts."""
    when = {
        "Training": f"until {settings.train_until:%Y-%m-%d}",
        "Validation": f"from {first:%Y-%m-%d} until {settings.valid_until:%Y-%m-%d}",
    }
    for (part, dates), labels in zip(when.items(), (train, valid), strict=True):
        if (count := int(np.isfinite(labels).sum(axis=0).min())) < MIN_ROWS:
            raise ValueError(
                f"{part} {dates} has {count} windows with a return over {settings.steps[-1]} bars, fewer than the "
                f"{MIN_ROWS} that quantiles need. Pass more instruments, more dates, or a smaller --every."
            )
