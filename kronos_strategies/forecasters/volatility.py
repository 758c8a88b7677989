"""Volatility models: the recursion of EWMA and GARCH, GARCH by maximum likelihood, and HAR by least squares.

Arrays are (N, K): N series of K bars. A variance of bar k is predicted at the close of bar k - 1.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from kronos.utils import MissingExtra

UNIT = 100.0  # the optimizer prefers returns in percent
MAX_PERSISTENCE = 0.999
MAX_VARIANCE_RATIO = 4.0  # between a model's average variance and that of the returns, either way


class VarianceModel(NamedTuple):
    """GARCH(1, 1), with `gamma` that of Glosten, Jagannathan & Runkle (1993); EWMA has omega = gamma = 0.

    variance' = omega + (alpha + gamma [return < 0]) return^2 + beta variance. Each is a number or (N,).
    """

    omega: np.ndarray | float
    alpha: np.ndarray | float
    gamma: np.ndarray | float
    beta: np.ndarray | float

    def update(self, returns: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Variance of the next bar from the return and the variance of this one; shapes broadcast."""
        weight = self.alpha + self.gamma * (returns < 0)
        updated: np.ndarray = self.omega + weight * returns**2 + self.beta * variance
        return updated

    @property
    def persistence(self) -> np.ndarray | float:
        """Sum of the weights: how much of a deviation from the average variance is left a bar later."""
        return self.alpha + self.gamma / 2 + self.beta

    def column(self) -> VarianceModel:
        """The same models for arrays (N, S)."""
        return VarianceModel(*(np.reshape(each, (-1, 1)) for each in self))


def ewma_model(decay: float) -> VarianceModel:
    """Exponentially weighted squared returns (RiskMetrics 1996)."""
    return VarianceModel(0.0, 1 - decay, 0.0, decay)


def filter_variances(model: VarianceModel, returns: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(N, K + 1) variances of each bar and of the one after the last.

    Args:
        model: one per series, or one for all.
        returns: (N, K).
        start: (N,) variance of the first bar.
    """
    variances = np.empty((returns.shape[0], returns.shape[1] + 1))
    variances[:, 0] = start
    for bar in range(returns.shape[1]):
        variances[:, bar + 1] = model.update(returns[:, bar], variances[:, bar])
    return variances


def simulate_deviations(model: VarianceModel, variance: np.ndarray, innovations: np.ndarray) -> np.ndarray:
    """(N, S, H) standard deviations along paths whose returns are deviation times innovation.

    Args:
        model: one per series, or one for all.
        variance: (N,) of the first step.
        innovations: (N, S, H), of mean 0 and variance 1.
    """
    model = model.column()
    now = np.broadcast_to(variance[:, None], innovations.shape[:2])
    deviations = np.empty(innovations.shape)
    for step in range(innovations.shape[2]):
        deviations[..., step] = np.sqrt(now)
        now = model.update(deviations[..., step] * innovations[..., step], now)
    return deviations


class GarchFit(NamedTuple):
    """Parameters of a GARCH model with Student's t innovations, of returns times UNIT.

    Attributes:
        omega, alpha, gamma, beta: see `VarianceModel`.
        freedom: degrees of freedom of the innovations, above 2.
    """

    omega: float
    alpha: float
    gamma: float
    beta: float
    freedom: float

    @property
    def model(self) -> VarianceModel:
        """The recursion of the variance of returns times UNIT."""
        return VarianceModel(*self[:4])


def fit_garch(returns: np.ndarray, asymmetric: bool = False) -> GarchFit | None:
    """Fit GARCH(1, 1), or GJR-GARCH, with mean 0 and Student's t innovations by maximum likelihood.

    Args:
        returns: (K,) log returns times UNIT.
        asymmetric: whether negative returns may raise the variance more.

    Returns:
        None where the fit does not converge, or is degenerate: integrated, or with an average variance far from
        that of the returns.

    Raises:
        MissingExtra: arch is not installed.
    """
    if not returns.std() > 0:
        return None
    model = _arch().arch_model(
        returns, mean="Zero", vol="GARCH", p=1, o=int(asymmetric), q=1, dist="t", rescale=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that does not converge is left out below
        result = model.fit(disp="off", show_warning=False)
    values = result.params
    names = ("omega", "alpha[1]", "gamma[1]", "beta[1]", "nu")
    found = GarchFit(*(float(values.get(name, 0.0)) for name in names))
    persistence = found.model.persistence
    if result.convergence_flag != 0 or not 0 < persistence < MAX_PERSISTENCE or not found.freedom > 2:
        return None
    ratio = found.omega / (1 - persistence) / float(returns.var(ddof=1))
    return found if 1 / MAX_VARIANCE_RATIO < ratio < MAX_VARIANCE_RATIO else None


def arch_version() -> str:
    """Version of arch, on which fits depend.

    Raises:
        MissingExtra: arch is not installed.
    """
    return str(_arch().__version__)


def _arch():  # type: ignore[no-untyped-def]
    try:
        import arch
    except ImportError as error:
        raise MissingExtra("GARCH needs arch: pip install 'kronos-strategies[evaluation]'") from error
    return arch


class HarFit(NamedTuple):
    """HAR models (Corsi 2009) of N series, fitted to each one.

    Attributes:
        coefficients: (N, 4) of a constant and of the mean variance of the last 1, `week` and `month` bars.
        fitted: (N, K) variance of each bar from the bars before; NaN for the first `month` ones.
        future: (N, H) variances of the next bars.
    """

    coefficients: np.ndarray
    fitted: np.ndarray
    future: np.ndarray


def fit_har(variances: np.ndarray, week: int, month: int, horizon: int) -> HarFit:
    """Regress the variance of a bar on its averages over the last 1, `week` and `month` bars, by least squares.

    Predictions outside the range of the variances that were fitted are replaced by their mean (the "insanity
    filter" of Bollerslev, Patton & Quaedvlieg 2016). Steps ahead use the predictions of the steps before.

    Args:
        variances: (N, K) of each bar, K of at least month + 2.
        week, month: bars of the two longer averages.
        horizon: number of bars to predict.
    """
    scale = variances.mean(axis=1, keepdims=True)
    scaled = np.divide(variances, scale, out=np.zeros_like(variances), where=scale > 0)
    averages = np.stack([_trailing_mean(scaled, bars) for bars in (1, week, month)], axis=-1)  # (N, K, 3)
    design = np.concatenate([np.ones((*scaled.shape, 1)), averages], axis=-1)[:, month - 1 : -1]
    target = scaled[:, month:]
    square = np.einsum("nki,nkj->nij", design, design)
    # A pseudo-inverse: regressors of a series without variance are collinear.
    solution = np.einsum("nij,nkj,nk->ni", np.linalg.pinv(square, hermitian=True), design, target)
    low, high, mean = target.min(axis=1), target.max(axis=1), target.mean(axis=1)

    def sane(predicted: np.ndarray) -> np.ndarray:
        """(N, ...) predictions within the range of what was fitted."""
        bounds = (np.reshape(each, (-1, *[1] * (predicted.ndim - 1))) for each in (low, high, mean))
        least, most, middle = bounds
        return np.where((predicted < least) | (predicted > most), middle, predicted)

    fitted = np.full(scaled.shape, np.nan)
    fitted[:, month:] = sane(np.einsum("nki,ni->nk", design, solution))
    path = np.concatenate([scaled[:, -month:], np.empty((len(scaled), horizon))], axis=1)
    for step in range(month, month + horizon):
        means = [path[:, step - bars : step].mean(axis=1) for bars in (1, week, month)]
        path[:, step] = sane(solution[:, 0] + np.einsum("in,ni->n", np.array(means), solution[:, 1:]))
    coefficients = solution * np.concatenate([scale, np.ones((len(scale), 3))], axis=1)
    return HarFit(coefficients, fitted * scale, path[:, month:] * scale)


def _trailing_mean(values: np.ndarray, bars: int) -> np.ndarray:
    """(N, K) mean of the last `bars` values; of the first ones, those that there are."""
    total = np.cumsum(values, axis=1)
    total[:, bars:] = total[:, bars:] - np.cumsum(values, axis=1)[:, :-bars]
    return total / np.minimum(np.arange(1, values.shape[1] + 1), bars)
