"""Known exposures that may explain a score (volatility, size, beta, groups), and the score without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from kronos.io.files import read_table
from kronos_strategies.evaluation.baselines import reversal_20
from kronos_strategies.evaluation.distribution.metrics import historical_volatility
from kronos_strategies.evaluation.panel import PanelIndex
from kronos_strategies.evaluation.ranks import average_ranks
from kronos_strategies.evaluation.signal.metrics import MIN_INSTRUMENTS, information_coefficients_wide

CELLS = 1 << 20  # (date, instrument) pairs that are neutralized at a time
SIZE_BARS, SIZE_TRADES = 20, 10
BETA_BARS, BETA_RETURNS = 60, 40


@dataclass(frozen=True)
class Exposure:
    """One exposure of every instrument on every date.

    Attributes:
        values: (dates, instruments) float64: the value of a numeric exposure, else a position in `groups`; NaN if
            unknown.
        groups: names of the groups, e.g. industries, ascending; empty for a numeric exposure.
    """

    values: np.ndarray
    groups: tuple[str, ...] = ()

    @classmethod
    def from_column(cls, column: pd.Series, panel: PanelIndex) -> Exposure:
        """From a column in the order of the panel's rows: numbers, or strings for groups."""
        if pd.api.types.is_numeric_dtype(column):
            return cls(panel.to_wide(column.to_numpy(dtype=float, na_value=np.nan)))
        codes, groups = pd.factorize(column.astype("string"), sort=True)
        return cls(panel.to_wide(np.where(codes < 0, np.nan, codes)), tuple(map(str, groups)))


def price_exposures(closes: pd.DataFrame, amounts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Exposures that can be computed from bars: volatility, reversal, size and beta; callers may add an industry.

    `pd.DataFrame({name: wide.stack().reindex(scores.index) for name, wide in price_exposures(...).items()})` gives
    the exposures for `evaluate_signal`.

    Args:
        closes: adjusted, dates x instruments; NaN on a day without a trade.
        amounts: traded amounts in quote currency, same shape.
    """
    return {
        "volatility": volatility(closes),
        "reversal": reversal(closes),
        "size": size(amounts),
        "beta": beta(closes),
    }


def volatility(closes: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation of the last 20 returns, at least 15; a day without a trade uses the last close."""
    return historical_volatility(closes.ffill())


def reversal(closes: pd.DataFrame) -> pd.DataFrame:
    """Negative return of the last 20 bars; a day without a trade uses the last close."""
    return reversal_20(closes.ffill())


def size(amounts: pd.DataFrame) -> pd.DataFrame:
    """Log of the mean traded amount over the bars with a trade among the last 20, at least 10.

    The traded amount is a proxy of the market capitalization, which bars do not have. A bar with a missing or zero
    amount had no trade and is left out.
    """
    traded = amounts.where(amounts > 0).rolling(SIZE_BARS, min_periods=SIZE_TRADES).mean()
    return traded.where(traded > 0).apply(np.log)


def beta(closes: pd.DataFrame) -> pd.DataFrame:
    """Slope of an instrument's last 60 returns, at least 40, on those of the market.

    The market is the equal-weighted mean of the instruments that traded on the day. Returns of an instrument use
    the last close on a day without a trade, as in `volatility`. NaN where the market did not move.

    The market includes all columns: where these are all members over a period, instruments that join later are
    included from the start. That affects the exposure that a score is compared with, never the score.
    """
    returns = closes.ffill().pct_change(fill_method=None)
    market = returns.where(closes.notna()).mean(axis=1).to_numpy()[:, None]
    both = returns.notna() & np.isfinite(market)
    own = returns.where(both)
    # Market returns on the days of each instrument.
    common = pd.DataFrame(np.where(both, market, np.nan), own.index, own.columns)
    x, m = _recent(own), _recent(common)
    covariance, variance = _recent(own * common) - x * m, _recent(common**2) - m**2
    return covariance / variance.where(variance > 1e-12 * _recent(common**2))


def _recent(values: pd.DataFrame) -> pd.DataFrame:
    return values.rolling(BETA_BARS, min_periods=BETA_RETURNS).mean()


DECIMALS = 6  # of a residual rank; smaller differences are rounding errors, which must not rank instruments


def neutralize(score: pd.Series, exposures: pd.Series | pd.DataFrame) -> pd.Series:
    """Residual, date by date, of the ranks of `score` regressed on a constant and the exposures, all at once.

    A score that is explained by a style, e.g. low volatility, has no residual. A numeric exposure enters by its
    ranks, an exposure of strings by one dummy per group. Ranks are averaged over ties and taken over the
    instruments that have the score and every exposure.

    Args:
        score: indexed (datetime, instrument).
        exposures: same index, known at the same close: one series, or one column per exposure.

    Returns:
        Same index, in ranks with mean 0; NaN without the score or an exposure. Exposures that do not vary or are a
        combination of others have no effect. Where the exposures explain the order completely, e.g. an exposure
        with the same or the opposite order, the residual is exactly 0, which ranks nothing.

    Raises:
        ValueError: the indexes differ, or a key occurs twice.
    """
    if not score.index.equals(exposures.index):
        raise ValueError(
            "The exposures' index is not the score's. Reindex them first: exposures.reindex(score.index)."
        )
    panel = PanelIndex.from_index(cast(pd.MultiIndex, score.index), "score")
    columns = [exposures] if isinstance(exposures, pd.Series) else [column for _, column in exposures.items()]
    wide = panel.to_wide(score.to_numpy(dtype=float, na_value=np.nan))
    left = residual_ranks(wide, [Exposure.from_column(column, panel) for column in columns])
    return pd.Series(panel.to_long(left), score.index)


def neutralized_rank_ic(
    score: np.ndarray,
    label: np.ndarray,
    exposures: Sequence[Exposure],
    min_instruments: int = MIN_INSTRUMENTS,
) -> np.ndarray:
    """RankIC by date of the score neutralized against exposures: a semi-partial rank correlation.

    Pearson correlation of the residual ranks (`residual_ranks`) with the ranks of the label, over the instruments
    that have the score, the label and every exposure; without exposures, the Spearman correlation of score and
    label. The
    residuals are not ranked again: they are uncorrelated with the exposure, their ranks are not. In simulations
        of a
    score that was a style plus noise (600 dates, 100 instruments), ranks of the residuals kept a correlation of
    0.05 with the style (0.29 with little noise), and thereby 10 to 30 % of the style's RankIC; this measure keeps
    1 to 3 %, where the relation of ranks is not linear.

    Args:
        score: (dates, instruments).
        label: (dates, instruments).
        exposures: same shape; none, one or several at once.
        min_instruments: a date with fewer instruments is undefined.

    Returns:
        (dates,); NaN where undefined (`information_coefficients_wide`), and where there is no residual.
    """
    left = residual_ranks(np.where(np.isfinite(label), score, np.nan), exposures)
    return information_coefficients_wide(left, _ranks(label, np.isfinite(left)), min_instruments)[0]


def residual_ranks(score: np.ndarray, exposures: Sequence[Exposure]) -> np.ndarray:
    """`neutralize` for arrays of (dates, instruments).

    Modified Gram-Schmidt for all dates at once: the means of the first groups (of the dates, without groups) are
    subtracted from everything, then each column is orthogonalized against those before and projected out of the
    ranks of the score; a column without an orthogonal part is dropped.
    """
    left = np.empty(score.shape)
    rows = max(1, CELLS // max(1, score.shape[1]))
    for start in range(
        0, len(score), rows
    ):  # dates are independent, and all at once would take several panels
        part = slice(start, start + rows)
        own = [replace(exposure, values=exposure.values[part]) for exposure in exposures]
        left[part] = _residual_ranks(score[part], own)
    return left


def _residual_ranks(score: np.ndarray, exposures: Sequence[Exposure]) -> np.ndarray:
    finite = [np.isfinite(score), *(np.isfinite(exposure.values) for exposure in exposures)]
    both = np.logical_and.reduce(finite)
    cells = _cells(exposures, both)
    left = _centered(_ranks(score, both), cells, both)
    basis: list[tuple[np.ndarray, np.ndarray]] = []  # columns and what a product with them is divided by
    for column in _columns(exposures, both):
        own = _centered(column, cells, both)
        for other, squares in basis:
            own = own - _dot(own, other) / squares * other
        # Ranks are multiples of one half: the orthogonal part of an independent column is never this small.
        kept = _dot(own, own) > 1e-16 * _dot(column, column)
        own = np.where(kept, own, 0.0)
        basis.append((own, np.where(kept, _dot(own, own), 1.0)))
        left = left - _dot(left, own) / basis[-1][1] * own
    return np.where(both, left.round(DECIMALS), np.nan)


def _cells(exposures: Sequence[Exposure], both: np.ndarray) -> np.ndarray:
    """Number of the date and the group, by the first exposure with groups, of each complete (date, instrument)."""
    row, column = np.nonzero(both)
    first = next((exposure for exposure in exposures if exposure.groups), None)
    if first is None:
        return row
    return row * len(first.groups) + first.values[row, column].astype(np.int64)


def _columns(exposures: Sequence[Exposure], both: np.ndarray) -> Iterator[np.ndarray]:
    """Ranks of numeric exposures, then dummies of all further grouped exposures; 0 where incomplete."""
    for exposure in exposures:
        if not exposure.groups:
            yield _ranks(exposure.values, both)
    for exposure in [exposure for exposure in exposures if exposure.groups][1:]:
        for code in range(len(exposure.groups)):
            yield (both & (exposure.values == code)).astype(float)


def _ranks(values: np.ndarray, both: np.ndarray) -> np.ndarray:
    return np.where(both, average_ranks(np.where(both, values, np.nan)), 0.0)


def _centered(values: np.ndarray, cells: np.ndarray, both: np.ndarray) -> np.ndarray:
    inside = values[both]
    sizes = np.bincount(cells)
    means = np.bincount(cells, inside) / np.maximum(sizes, 1)
    centered = np.zeros(values.shape)
    centered[both] = inside - means[cells]
    return centered


def _dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(dates, instruments) twice -> (dates, 1)."""
    return np.einsum("dn,dn->d", x, y)[:, None]


def read_industries(file: Path) -> pd.Series:
    """The industry of each instrument, from columns instrument and industry of a CSV or parquet file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it lacks a column, or has an instrument twice.
    """
    table = read_table(file.expanduser(), ("instrument", "industry"), ()).dropna()
    twice = table["instrument"].duplicated()
    if twice.any():
        name = table["instrument"][twice].iloc[0]
        raise ValueError(f"{file} has several industries of {name}. Keep one row per instrument.")
    return table.set_index("instrument")["industry"].astype(str)
