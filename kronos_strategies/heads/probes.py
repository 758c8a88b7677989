"""Linear probes: what a linear model reads from a representation of windows, on the same market or on another.

A probe is fitted on the windows of one market and scored on later windows of any market, so that it measures
whether a representation means the same on both. The unit of volatility is each window's own spread of closes, since
the model reads normalized bars and knows no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.utils import MissingExtra
from kronos.windows import Windows
from kronos_strategies.evaluation.significance import MeanTest, label_overlap, mean_test
from kronos_strategies.heads.sources import bar_features

try:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import StandardScaler
except ImportError as error:
    raise MissingExtra("Probes need scikit-learn: pip install 'kronos-strategies[head]'") from error

VOLATILITY, CHANGE, DIRECTION = "volatility", "volatility change", "direction"
TARGETS = (VOLATILITY, CHANGE, DIRECTION)
PAST_BARS = 20  # bars of the past volatility, of which CHANGE is a ratio
BLOCKS = 5  # stretches of training dates, each left out once, that select the penalty
PENALTIES = np.logspace(0, 6, 10)  # of standardized inputs; an inverse one is the C of a logistic regression
LARGEST = 5.0  # of a scale-free bar feature, as of a normalized bar


@dataclass(frozen=True)
class ProbeSample:
    """Windows of one market within a span of dates.

    Attributes:
        inputs: (N, columns) float array by name of the representation; NaN is replaced by the mean of training.
        labels: columns of `probe_labels`, indexed (datetime, instrument).
        horizon: bars that the labels span.
        bars_between: bars from one date to the next.
    """

    inputs: Mapping[str, np.ndarray]
    labels: pd.DataFrame
    horizon: int
    bars_between: int

    @property
    def dates(self) -> pd.DatetimeIndex:
        """(N,) date of each window."""
        return pd.DatetimeIndex(self.labels.index.get_level_values("datetime"))

    @classmethod
    def join(cls, samples: Sequence[ProbeSample]) -> ProbeSample:
        """Samples of several markets as one."""
        names = samples[0].inputs
        inputs = {name: np.concatenate([each.inputs[name] for each in samples]) for name in names}
        labels = pd.concat([each.labels for each in samples])
        return cls(inputs, labels, samples[0].horizon, samples[0].bars_between)


@dataclass(frozen=True)
class ProbeScore:
    """Score of one probe on one market.

    Attributes:
        target: one of TARGETS.
        trained_on: market of the training windows.
        tested_on: market of the test windows.
        inputs: name of the representation.
        skill: 1 - loss / loss of a constant, over test dates, each date weighing the same; the loss is the squared
            error of a volatility and the log loss of direction. The constant is the mean of the tested market's own
            training windows, or of all training windows where it has none.
        difference: that skill less that of the reference representation, paired by date; None for the reference.
        windows: number of test windows.
    """

    target: str
    trained_on: str
    tested_on: str
    inputs: str
    skill: MeanTest
    difference: MeanTest | None
    windows: int


def transfer(
    train: Mapping[str, ProbeSample], test: Mapping[str, ProbeSample], reference: str
) -> Iterator[ProbeScore]:
    """Scores of every representation and target, trained on each market and on all of them, tested on each.

    Args:
        train: training windows by market.
        test: test windows by market, of which some may have no training windows.
        reference: representation that the others are compared with.

    Raises:
        ValueError: a training label is known only after the first test date, of whichever market.
    """
    check_order(train, test)
    everything = ProbeSample.join(list(train.values()))
    sources = dict(train) | ({"all": everything} if len(train) > 1 else {})
    for target in TARGETS:
        probes = {
            market: {name: fit_probe(sample, name, target) for name in sample.inputs}
            for market, sample in sources.items()
        }
        for tested_on, sample in test.items():
            constant = float(train.get(tested_on, everything).labels[target].mean())
            for market, fitted in probes.items():
                yield from _scores(sample, fitted, constant, (target, market, tested_on), reference)


def check_order(train: Mapping[str, ProbeSample], test: Mapping[str, ProbeSample]) -> None:
    """Check that every training label of every market is known before the first test date of any.

    Raises:
        ValueError: one is not.
    """
    for market, sample in train.items():
        known = sample.labels["known"].max()
        for tested_on, other in test.items():
            if known >= other.dates.min():
                raise ValueError(
                    f"The last training label of {market} is known on {known:%Y-%m-%d}, not before the first test "
                    f"date of {tested_on}, {other.dates.min():%Y-%m-%d}. Train on earlier dates."
                )


def fit_probe(sample: ProbeSample, name: str, target: str) -> GridSearchCV:
    """A linear model of standardized inputs: ridge for volatilities, logistic for direction.

    The penalty is selected on training dates alone, each of BLOCKS stretches left out once.
    """
    known = sample.labels[target].notna().to_numpy()
    y, order = sample.labels[target].to_numpy()[known], sample.dates[known]
    dates = order.unique().sort_values()
    blocks = dates.get_indexer(order) * BLOCKS // len(dates)
    if target != DIRECTION:
        model, grid, scoring = Ridge(), {"ridge__alpha": PENALTIES}, "neg_mean_squared_error"
    else:
        model, scoring = LogisticRegression(max_iter=1000), "neg_log_loss"
        grid = {"logisticregression__C": 1 / PENALTIES}
    steps: Pipeline = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), model)
    search = GridSearchCV(steps, grid, scoring=scoring, cv=PredefinedSplit(blocks))
    return search.fit(sample.inputs[name][known], y)


def _scores(
    sample: ProbeSample,
    fitted: Mapping[str, GridSearchCV],
    constant: float,
    names: tuple[str, str, str],
    reference: str,
) -> Iterator[ProbeScore]:
    """Scores of the probes of one training market on one test market."""
    target = names[0]
    label = sample.labels[target]
    loss = _log_loss if target == DIRECTION else _squared_error
    base = _by_date(loss(label, np.full(len(label), constant)))
    gains = {}
    for name, probe in fitted.items():
        values = sample.inputs[name]
        predicted = probe.predict_proba(values)[:, 1] if target == DIRECTION else probe.predict(values)
        gains[name] = (base - _by_date(loss(label, predicted))) / base.mean()
    overlap = label_overlap(sample.horizon, sample.bars_between)
    for name, gain in gains.items():
        difference = None if name == reference else mean_test(gain - gains[reference], overlap)
        yield ProbeScore(*names, name, mean_test(gain, overlap), difference, int(label.notna().sum()))


def _squared_error(label: pd.Series, predicted: np.ndarray) -> pd.Series:
    return (label - predicted) ** 2


def _log_loss(label: pd.Series, predicted: np.ndarray) -> pd.Series:
    chance = np.clip(predicted, 1e-6, 1 - 1e-6)
    return -(label * np.log(chance) + (1 - label) * np.log(1 - chance))


def _by_date(losses: pd.Series) -> pd.Series:
    return losses.groupby(level="datetime").mean().dropna()


def probe_labels(
    panel: Mapping[str, pd.DataFrame],
    keys: pd.MultiIndex,
    horizon: int,
    lookback: int,
    until: pd.Timestamp,
) -> pd.DataFrame:
    """What happens after each (datetime, instrument), on its own traded bars.

    Args:
        panel: adjusted bars by instrument, indexed by time.
        keys: (N,) rows to label.
        horizon: bars.
        lookback: bars of a window, up to t.
        until: last time that any label may use.

    Returns:
        Frame indexed by `keys`; NaN where a bar is missing or after `until`, or where prices did not move:
        volatility: log of the root mean square log return of bars t+1..t+horizon, in standard deviations of the
            window's log closes.
        volatility change: the same in root mean squares of the last PAST_BARS log returns up to t.
        direction: 1 if close(t+1+horizon) is above close(t+1), 0 if it is below.
        known: time of bar t+1+horizon.
    """

    def labels(bars: pd.DataFrame) -> pd.DataFrame:
        bars = bars[bars.index <= until]
        logs = _log(bars["close"].astype(float))
        squares = logs.diff() ** 2
        past, future = _half_log(squares, PAST_BARS), _half_log(squares, horizon).shift(-horizon)
        moved = logs.shift(-1 - horizon) - logs.shift(-1)
        exit_time = pd.Series(bars.index, bars.index).shift(-1 - horizon)
        columns = {
            VOLATILITY: (future - _spread(logs, lookback)).where(exit_time.notna()),
            CHANGE: (future - past).where(exit_time.notna()),
            DIRECTION: (moved > 0).astype(float).where(moved.notna() & (moved != 0)),
            "known": exit_time,
        }
        return pd.DataFrame(columns)

    return _rows(panel, keys, labels)


def relative_bar_features(
    panel: Mapping[str, pd.DataFrame], keys: pd.MultiIndex, lookback: int
) -> pd.DataFrame:
    """Bar features without units, comparable across markets, within ±LARGEST; all known at each row's date.

    Args:
        panel: adjusted bars by instrument, indexed by time.
        keys: (N,) rows.
        lookback: bars of a window, up to t.

    Returns:
        Returns, gap and intraday return of `bar_features` in standard deviations of the last 20 bars; logs of the
        ratios to that deviation of volatility over 5 and 60 bars, the mean range and the spread of the window's
        closes; logs of volume ratios; the position of the close in the 20-bar range.
    """
    features = bar_features(panel, keys)
    unit = features["volatility_20"].where(features["volatility_20"] > 0)
    columns = {f"return_{k}": features[f"return_{k}"] / (unit * k**0.5) for k in (1, 2, 5, 10, 20, 60)}
    columns |= {name: features[name] / unit for name in ("gap", "intraday")}
    ratios = {name: features[name] / unit for name in ("volatility_5", "volatility_60", "range")}
    ratios |= {name: features[name] for name in ("volume_1", "volume_5")}
    columns |= {name: _log(ratio) for name, ratio in ratios.items()}
    columns["place"] = features["place"]

    def spread(bars: pd.DataFrame) -> pd.DataFrame:
        return _spread(_log(bars["close"].astype(float)), lookback).to_frame("spread")

    columns["spread"] = _rows(panel, keys, spread)["spread"] - _log(unit)
    return pd.DataFrame(columns).clip(-LARGEST, LARGEST)


def sample_windows(
    panel: Mapping[str, pd.DataFrame],
    lookback: int,
    span: tuple[pd.Timestamp, pd.Timestamp],
    every: int,
    count: int,
) -> Windows:
    """About `count` windows of a market: every `every`-th bar of a span, instruments evenly spaced by name.

    Raises:
        ValueError: no instrument has a window.
    """
    ends = {}
    for name, bars in panel.items():
        inside = (bars.index >= span[0]) & (bars.index <= span[1])
        ends[name] = int(inside[lookback - 1 :].sum())
    names = sorted(name for name, found in ends.items() if found)
    step = max(1, round(sum(ends.values()) / every / count))
    chosen = {name: panel[name] for name in names[::step]}
    return Windows.rolling(chosen, lookback, 1, "D", start=span[0], end=span[1], every=every)


def _rows(
    panel: Mapping[str, pd.DataFrame],
    keys: pd.MultiIndex,
    compute: Callable[[pd.DataFrame], pd.DataFrame],
) -> pd.DataFrame:
    """Columns by instrument, at the keys."""
    names = keys.get_level_values("instrument").unique()
    table = pd.concat([compute(panel[str(name)]).assign(instrument=name) for name in names])
    return table.rename_axis("datetime").set_index("instrument", append=True).reindex(keys)


def _log(values: pd.Series) -> pd.Series:
    """NaN where a value is not positive."""
    return pd.Series(np.log(values.where(values > 0).to_numpy()), values.index)


def _half_log(squares: pd.Series, bars: int) -> pd.Series:
    """Log of the root mean square of the last bars."""
    return _log(squares.rolling(bars).mean()) / 2


def _spread(logs: pd.Series, lookback: int) -> pd.Series:
    """Log of the standard deviation of the log closes of a window."""
    return _log(logs.rolling(lookback).std(ddof=0))
