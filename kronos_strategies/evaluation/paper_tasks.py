"""The tasks of the Kronos paper: metrics of forecasts (prices, returns, realized volatility), and realism of bars.

Means by date of each metric of forecasts can be compared and tested by `comparison.metrics.paired_table`.

Realism of generated bars: can a classifier tell them from real ones, and can a model learn from them? Both are
measured out of sample: models are fitted on the early windows of one half of the instruments and tested on the late
windows of the other half, whose bars begin after the last bar of the former (`held_out`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kronos.bars import FEATURES, PRICES
from kronos.head import import_lightgbm
from kronos.paths import PRICE_FLOOR
from kronos_strategies.evaluation.signal.metrics import (
    information_coefficients,
    information_coefficients_wide,
)

MIN_STEPS = 3  # of a path; a correlation over two steps is 1 or -1
DECIMALS = 3  # of features: changes by rounding to float32 do not count
LARGEST = 20.0  # features are clipped at this many standard deviations
MIN_BARS = 4  # of a sequence: half of them predict the other half
ROUNDS = 60  # trees of each model
LEAF = 40  # windows in a leaf, at least
MIN_FITTED = 2 * LEAF  # windows to fit on: trees of fewer never split, and tell nothing apart
TREES = {"num_leaves": 7, "learning_rate": 0.1, "min_data_in_leaf": LEAF, "feature_fraction": 0.7}


class TooFewWindowsError(ValueError):
    """There are not enough windows to fit a model and to test it on others."""


def price_coefficients(predicted: np.ndarray, realized: np.ndarray) -> np.ndarray:
    """Correlation over the steps of each window: does the predicted path of closes have the shape of the realized?

    Of window i, corr over h = 1..H of predicted[i, h] and realized[i, h]: of values (IC) and of ranks (RankIC). It
    depends on neither the level nor the size of the move.

    Args:
        predicted: (N, H) predicted closes, such as the mean over paths.
        realized: (N, H) realized closes.

    Returns:
        (2, N) float64: IC and RankIC; NaN where a path does not move or has fewer than MIN_STEPS finite steps.
    """
    return information_coefficients_wide(predicted, realized, MIN_STEPS)


def realized_volatility(log_returns: np.ndarray) -> np.ndarray:
    """(..., H) log returns from the last close to each step -> (...): sqrt(sum over h of (x[h] - x[h - 1])^2).

    The volatility over all H bars, not annualized; x[0], the last close, is 0.
    """
    steps = np.diff(log_returns, axis=-1, prepend=0.0)
    volatility: np.ndarray = np.sqrt((steps**2).sum(axis=-1))
    return volatility


def predicted_volatility(log_returns: np.ndarray) -> np.ndarray:
    """(N, S, H) log returns of paths -> (N,): square root of the mean realized variance of the paths.

    It is never that of the averaged path, in which the moves of the paths cancel.
    """
    volatility: np.ndarray = np.sqrt((realized_volatility(log_returns) ** 2).mean(axis=1))
    return volatility


def absolute_error_by_date(predicted: pd.Series, realized: pd.Series) -> pd.Series:
    """Mean over the instruments of each date of |predicted - realized|; indexed (datetime, instrument) both."""
    return (predicted - realized).abs().groupby(level="datetime").mean()


def r2_by_date(predicted: pd.Series, realized: pd.Series) -> pd.Series:
    """R² in parts by date: 1 - mean squared error of the date / V.

    V is the mean over dates of the mean squared deviation of `realized` from its overall mean, the same for every
    date, so that the mean over dates is the R² of all rows with dates weighted equally, and differences of two
    forecasts are those of their squared errors. 1 is perfect, 0 no better than the overall mean (which was not
    known in advance), and there is no lower limit. NaN where `realized` does not vary.
    """
    squares = ((predicted - realized) ** 2).groupby(level="datetime").mean()
    variance = ((realized - realized.mean()) ** 2).groupby(level="datetime").mean().mean()
    return 1 - squares / (variance if variance > 0 else np.nan)


@dataclass(frozen=True)
class Sequences:
    """Bars that follow N windows, real or generated.

    Attributes:
        bars: (N, H, 6), FEATURES, valid bars in their own units.
        last_close: (N,) last close before them.
        volatility: (N,) standard deviation of log returns up to then; moves are measured in it.

    Raises:
        ValueError: fewer than MIN_BARS bars.
    """

    bars: np.ndarray
    last_close: np.ndarray
    volatility: np.ndarray

    def __post_init__(self) -> None:
        if self.bars.shape[1] < MIN_BARS:
            raise ValueError(
                f"The sequences have {self.bars.shape[1]} bars. Compare at least {MIN_BARS}: raise the horizon."
            )

    def returns(self) -> np.ndarray:
        """(N, H) log returns from close to close, in units of `volatility`."""
        return np.clip(np.diff(self._log_closes(), axis=1) / self.volatility[:, None], -LARGEST, LARGEST)

    def features(self, bars: int | None = None) -> np.ndarray:
        """(N, F) float64 description of the first `bars` bars, of all when omitted.

        By bar: gap to the last close, body, upper and lower shadow in units of `volatility`, and volume relative
        to the mean of the sequence. Of the sequence: standard deviation, largest move and first autocorrelation of
        the returns, the same autocorrelation of their sizes, and the share of bars whose close does not move.
        """
        floor = PRICE_FLOOR * self.last_close[:, None, None]
        prices = np.log(np.maximum(self.bars[:, :bars, : len(PRICES)], floor))
        open_, high, low, close = np.moveaxis(prices, -1, 0)
        parts = [
            open_ - self._log_closes()[:, : open_.shape[1]],
            close - open_,
            high - np.maximum(open_, close),
            np.minimum(open_, close) - low,
        ]
        candles = np.concatenate(parts, axis=1) / self.volatility[:, None]
        returns = self.returns()[:, :bars]
        size = np.abs(returns)
        summary = [returns.std(axis=1), size.max(axis=1), _autocorrelation(returns), _autocorrelation(size)]
        still = (size < 0.5 * 10**-DECIMALS).mean(axis=1)
        features = [np.clip(candles, -LARGEST, LARGEST), self._volumes(bars), *summary, still]
        return np.round(np.column_stack(features), DECIMALS)

    def _log_closes(self) -> np.ndarray:
        """(N, H + 1) logs of the last close and of the closes."""
        last = self.last_close[:, None].astype(float)
        closes = np.maximum(self.bars[..., FEATURES.index("close")], PRICE_FLOOR * last)
        logs: np.ndarray = np.log(np.concatenate([last, closes], axis=1))
        return logs

    def _volumes(self, bars: int | None) -> np.ndarray:
        volumes = np.maximum(self.bars[:, :bars, FEATURES.index("volume")].astype(float), 0.0)
        mean = volumes.mean(axis=1, keepdims=True)
        shares = np.divide(volumes, mean, out=np.ones_like(volumes), where=mean > 0)
        relative: np.ndarray = np.log(shares + 0.01)
        return relative


def discrimination(
    real: Sequences, generated: Sequences, index: pd.MultiIndex, ends: np.ndarray, seed: int = 0
) -> pd.Series:
    """Accuracy of a classifier of real and generated bars, minus one half, by test date.

    0 where it cannot tell them apart, 0.5 where it always can; chance makes it slightly negative at times. The
    discriminative score of TimeGAN (Yoon, Jarrett & van der Schaar 2019) is |mean over dates|; its classifier is a
    recurrent network, this one gradient-boosted trees on `Sequences.features`.

    Args:
        real: realized bars of N windows.
        generated: one generated sequence for each window.
        index: (N,) (datetime, instrument), the time of the last bar before the sequence.
        ends: (N,) datetime64, the time of its last bar.
        seed: seed of the halves of instruments and of the trees.

    Returns:
        Series by datetime, of the late windows.

    Raises:
        TooFewWindowsError: too few windows, see `held_out`.
    """
    one, other = real.features(), generated.features()
    correct = np.full((2, len(index)), np.nan)
    for train, test in held_out(index, ends, seed):
        sample = np.concatenate([one[train], other[train]])
        kind = np.repeat([1.0, 0.0], [train.sum(), train.sum()])
        model = _fit(sample, kind, "binary", seed)
        for row, (features, sign) in enumerate(((one, 1), (other, -1))):
            correct[row, test] = 0.5 + 0.5 * np.sign(sign * (model.predict(features[test]) - 0.5))
    accuracy = pd.Series(correct.mean(axis=0), index).dropna()
    return accuracy.groupby(level="datetime").mean() - 0.5


def learned_forecasts(
    learned_from: Sequences, real: Sequences, index: pd.MultiIndex, ends: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Train on synthetic, test on real: forecasts of real bars by a model that learned from `learned_from` only.

    The first half of a sequence predicts the second: trees on `Sequences.features` of the former are fitted to the
    return and to the log volatility of the latter. Pass real bars as `learned_from` for the model to compare with.

    Args:
        learned_from: generated bars of N windows, or the real ones.
        real: realized bars of the N windows; only the first half of a test sequence is read.
        index: (N,) (datetime, instrument), the time of the last bar before the sequence.
        ends: (N,) datetime64, the time of its last bar.
        seed: seed of the halves of instruments and of the trees.

    Returns:
        Columns return and volatility, indexed (datetime, instrument), rows of the late windows; both are scores, in
        units of the window's volatility, to compare with `second_half(real, index)`.

    Raises:
        TooFewWindowsError: too few windows, see `held_out`.
    """
    half = real.bars.shape[1] // 2
    known, given = learned_from.features(half), real.features(half)
    targets = second_half(learned_from, index)
    found = pd.DataFrame(np.nan, index, targets.columns)
    for train, test in held_out(index, ends, seed):
        for name in targets:
            model = _fit(known[train], targets[name].to_numpy()[train], "regression", seed)
            found.loc[test, name] = model.predict(given[test])
    return found.dropna()


def learned_rank_ics(
    learned_from: Sequences, real: Sequences, index: pd.MultiIndex, ends: np.ndarray, seed: int = 0
) -> dict[str, pd.Series]:
    """RankIC by date of `learned_forecasts`, by metric: of returns tstr_rank_ic, of volatility the other one."""
    scores = learned_forecasts(learned_from, real, index, ends, seed)
    truth = second_half(real, index)
    names = {"tstr_rank_ic": "return", "tstr_volatility_rank_ic": "volatility"}
    return {
        metric: information_coefficients(scores[column], truth[column])["rank_ic"]
        for metric, column in names.items()
    }


def second_half(sequences: Sequences, index: pd.MultiIndex) -> pd.DataFrame:
    """Return and log volatility of the second half of each sequence, in units of the window's volatility."""
    rest = sequences.returns()[:, sequences.bars.shape[1] // 2 :]
    size = np.log(np.sqrt((rest**2).mean(axis=1)) + 0.01)
    return pd.DataFrame({"return": rest.sum(axis=1), "volatility": size}, index)


def shortage_of_windows(index: pd.MultiIndex, ends: np.ndarray, seed: int = 0) -> str:
    """Why the windows are too few for `held_out`, in a sentence; empty if they suffice."""
    try:
        list(held_out(index, ends, seed))
    except TooFewWindowsError as error:
        return str(error)
    return ""


def held_out(
    index: pd.MultiIndex, ends: np.ndarray, seed: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Two pairs of (N,) masks of rows to fit and to test: other instruments, and no common bar.

    The middle forecast date separates the rows: to fit are those that end by then, to test those that begin at its
    close or later. Each half of the instruments is tested once, after a fit to the other half.

    Raises:
        TooFewWindowsError: fewer than MIN_FITTED rows to fit, or none to test.
    """
    dates = pd.DatetimeIndex(index.get_level_values("datetime"))
    middle = dates.unique().sort_values()[dates.nunique() // 2]
    early, late = np.asarray(ends) <= np.datetime64(middle), np.asarray(dates >= middle)
    names = index.get_level_values("instrument")
    shuffled = np.random.default_rng(seed).permutation(sorted(names.unique()))
    first = np.asarray(names.isin(shuffled[: len(shuffled) // 2]))
    folds = ((early & first, late & ~first), (early & ~first, late & first))
    fewest = min(int(fit.sum()) for fit, _ in folds)
    if fewest < MIN_FITTED or not all(test.any() for _, test in folds):
        raise TooFewWindowsError(
            f"{dates.nunique()} dates of {len(shuffled)} instruments leave {fewest} windows to fit on, after late "
            f"dates and half of the instruments are held out, and {MIN_FITTED} are needed. Benchmark more dates or "
            "instruments."
        )
    yield from folds


def _fit(features: np.ndarray, target: np.ndarray, objective: str, seed: int) -> Any:
    """Gradient-boosted trees."""
    lightgbm = import_lightgbm()
    settings = {
        **TREES, "objective": objective, "seed": seed, "deterministic": True, "force_row_wise": True,
        "num_threads": 1, "verbose": -1,
    }  # fmt: skip
    return lightgbm.train(settings, lightgbm.Dataset(features, target), ROUNDS)


def _autocorrelation(values: np.ndarray) -> np.ndarray:
    """(N, H) -> (N,): correlation of successive values; 0 where they do not vary."""
    apart = values - values.mean(axis=1, keepdims=True)
    squares = (apart**2).sum(axis=1)
    products = (apart[:, 1:] * apart[:, :-1]).sum(axis=1)
    return np.divide(products, squares, out=np.zeros(len(values)), where=squares > 0)
