"""Fit a return head on the hidden states of a frozen checkpoint: ridge regression or LightGBM.

Training and validation do not overlap in time. No training label extends past the last training date (purged), and
validation begins the longest horizon plus one bar later (embargoed). Models are selected on the validation dates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from kronos.head import HeadInfo, ReturnHead, import_lightgbm
from kronos.training.bar_array import HORIZONS, LABEL, MIN_INSTRUMENTS, VOLATILITY_BARS

Kind = Literal["ridge", "lightgbm"]
KINDS = ("ridge", "lightgbm")
# Ridge penalties, in units of the mean variance of a hidden unit. Larger ones leave only the few directions in
# which instruments differ most, slow styles whose luck a short validation period cannot distinguish from skill.
PENALTIES = np.logspace(-3, 0, 7)
ROUNDS, PATIENCE = 600, 60  # LightGBM rounds: maximum, and without improvement
TREES: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.02,
    "num_leaves": 15,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


@dataclass(frozen=True)
class FitSettings:
    """How a head is fitted.

    Attributes:
        train_until: last date that a training label may use.
        valid_until: last date that a validation label may use.
        kind: "ridge" or "lightgbm".
        horizons: bars from close(t + 1), one output each.
        seeds: LightGBM models to average.
    """

    train_until: pd.Timestamp
    valid_until: pd.Timestamp
    kind: Kind = "ridge"
    horizons: tuple[int, ...] = HORIZONS
    seeds: int = 3

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind='{self.kind}' cannot be fitted. Choose one of {list(KINDS)}.")
        if not self.horizons or min(self.horizons) < 1:
            raise ValueError(
                f"horizons={list(self.horizons)} are not valid. Pass numbers of bars, 1 or more."
            )
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds} is too small. Pass at least 1.")
        if self.valid_until <= self.train_until:
            raise ValueError(
                f"Validation ends at {self.valid_until:%Y-%m-%d}, not after training at "
                f"{self.train_until:%Y-%m-%d}. Validate on later dates."
            )


@dataclass(frozen=True)
class Split:
    """Labels of the two parts.

    Attributes:
        train, valid: labels of all rows, one column per horizon; NaN for rows outside that part.
    """

    train: pd.DataFrame
    valid: pd.DataFrame

    @classmethod
    def of(cls, panel: Mapping[str, pd.DataFrame], keys: pd.MultiIndex, settings: FitSettings) -> Split:
        """Split rows by date, purged and embargoed.

        Raises:
            ValueError: a part has no label.
        """
        horizons, dates = settings.horizons, keys.get_level_values("datetime")
        calendar = pd.DatetimeIndex(sorted(set().union(*(bars.index for bars in panel.values()))))
        after = calendar[calendar > settings.train_until]
        embargo = max(horizons) + 1
        early = keys[dates <= settings.train_until]
        late = keys[dates >= after[embargo]] if len(after) > embargo else keys[:0]
        late = late[late.get_level_values("datetime") <= settings.valid_until]
        train, valid = (
            return_labels(panel, part, horizons, until).reindex(keys) if len(part) else None
            for part, until in ((early, settings.train_until), (late, settings.valid_until))
        )
        for what, part in (("training", train), ("validation", valid)):
            if part is None or not part.notna().any().all():
                raise ValueError(
                    f"No {what} date has {MIN_INSTRUMENTS} instruments with returns over {max(horizons)} bars. "
                    f"Pass more instruments, or other dates: training until {settings.train_until:%Y-%m-%d}, "
                    f"validation from {embargo} bars later until {settings.valid_until:%Y-%m-%d}."
                )
        assert train is not None
        assert valid is not None
        return cls(train, valid)


def fit_head(
    hidden: np.ndarray,
    keys: pd.MultiIndex,
    panel: Mapping[str, pd.DataFrame],
    settings: FitSettings,
    *,
    lookback: int,
    markets: Sequence[str],
    checkpoint: str | None = None,
    weights_sha256: str | None = None,
    frequency: str = "1day",
    name: str = "head",
) -> ReturnHead:
    """Fit a head on the hidden states of a frozen checkpoint.

    Args:
        hidden: (N, d_model) float32, see `KronosPredictor.embed`.
        keys: (N,) (datetime, instrument) of the windows.
        panel: adjusted bars of these instruments; none after `settings.valid_until` is used.
        settings: kind, horizons and dates.
        lookback, frequency: lookback and bar frequency of the windows.
        markets: markets of the windows.
        checkpoint, weights_sha256: name and hash of the checkpoint that produced the hidden states.
        name: name of the head.

    Raises:
        ValueError: a part has no date with enough instruments.
        MissingExtra: LightGBM is missing.
    """
    info = HeadInfo(
        d_model=hidden.shape[1],
        horizons=settings.horizons,
        label=LABEL,
        lookback=lookback,
        frequency=frequency,
        markets=tuple(markets),
        trained_until=f"{settings.valid_until:%Y-%m-%d}",
        kind=settings.kind,
        checkpoint=checkpoint,
        weights_sha256=weights_sha256,
    )
    return fit_split(hidden, Split.of(panel, keys, settings), settings, info, name)


def fit_split(
    hidden: np.ndarray, split: Split, settings: FitSettings, info: HeadInfo, name: str = "head"
) -> ReturnHead:
    """Fit a head on labels of any kind; see `fit_head` for those of returns.

    Args:
        hidden: (N, d_model) float32.
        split: labels of these rows.
        settings: kind, horizons and seeds.
        info: description of the head; its metrics are replaced by those of the validation.
        name: name of the head.

    Raises:
        MissingExtra: LightGBM is missing.
    """
    fit = _ridge if settings.kind == "ridge" else _lightgbm
    head = fit(hidden, split, settings, info, name)
    outputs = head(hidden)
    figures = {
        f"validation_correlation_{h}": round(date_correlation(outputs[:, i], split.valid[h]), 5)
        for i, h in enumerate(settings.horizons)
    }
    counted = split.valid[settings.horizons[0]].dropna().index.get_level_values("datetime").nunique()
    head.info = replace(info, figures=figures | {"validation_dates": counted})
    return head


def date_correlation(score: np.ndarray, label: pd.Series) -> float:
    """Mean over dates of the correlation between scores and labels; rows without a label are left out."""
    known = label.notna().to_numpy()
    frame = pd.DataFrame({"score": score[known], "label": label[known]})
    frame = frame - frame.groupby(level="datetime").transform("mean")
    sums = (
        pd.DataFrame(
            {"both": frame["score"] * frame["label"], "s": frame["score"] ** 2, "l": frame["label"] ** 2}
        )
        .groupby(level="datetime")
        .sum()
    )
    scale = (sums["s"] * sums["l"]) ** 0.5
    return float((sums["both"] / scale.where(scale > 0)).fillna(0.0).mean())


def _ridge(hidden: np.ndarray, split: Split, settings: FitSettings, info: HeadInfo, name: str) -> ReturnHead:
    """Within-date ridge regression: what all instruments of a date share does not affect ranks."""
    weights, biases = [], []
    for horizon in settings.horizons:
        label = split.train[horizon]
        known = label.notna().to_numpy()
        states = pd.DataFrame(hidden[known].astype(np.float64), index=label.index[known])
        x = (states - states.groupby(level="datetime").transform("mean")).to_numpy()
        gram, target = x.T @ x, x.T @ label[known].to_numpy()
        values, vectors = np.linalg.eigh(gram)
        unit = np.trace(gram) / len(gram)
        found = [vectors @ ((vectors.T @ target) / (values + penalty * unit)) for penalty in PENALTIES]
        scores = [date_correlation(hidden @ w, split.valid[horizon]) for w in found]
        best = found[int(np.argmax(scores))]
        weights.append(best)
        biases.append(-float(hidden[known].mean(axis=0) @ best))
    return ReturnHead(info, np.array(weights, np.float32), np.array(biases, np.float32), name=name)


def _lightgbm(
    hidden: np.ndarray, split: Split, settings: FitSettings, info: HeadInfo, name: str
) -> ReturnHead:
    """One model per horizon and seed, stopped early on the validation dates."""
    lightgbm = import_lightgbm()
    trees = {}
    for horizon in settings.horizons:
        parts = []
        for label in (split.train[horizon], split.valid[horizon]):
            known = label.notna().to_numpy()
            parts.append((hidden[known], label[known].to_numpy()))
        models = []
        for seed in range(settings.seeds):
            train = lightgbm.Dataset(*parts[0])
            booster = lightgbm.train(
                TREES | {"seed": seed},
                train,
                num_boost_round=ROUNDS,
                valid_sets=[lightgbm.Dataset(*parts[1], reference=train)],
                callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
            )
            models.append(booster.model_to_string(num_iteration=booster.best_iteration))
        trees[horizon] = tuple(models)
    return ReturnHead(info, trees=trees, name=name)


def return_labels(
    panel: Mapping[str, pd.DataFrame], keys: pd.MultiIndex, horizons: Sequence[int], until: pd.Timestamp
) -> pd.DataFrame:
    """The label of each (datetime, instrument) and horizon.

    Bars are an instrument's own traded ones. A label of date t uses closes up to its bar t + 1 + h; if that bar
    is after `until`, the instrument is left out of that date's ranks.

    Args:
        panel: adjusted bars by instrument, indexed by time.
        keys: (N,) rows to label: the instruments of a date are ranked among each other.
        horizons: bars from close(t + 1).
        until: last time that any label may use.

    Returns:
        Frame indexed by `keys`, a float column for each horizon; NaN without a label.
    """
    parts = []
    for name in keys.get_level_values("instrument").unique():
        bars = panel[str(name)]
        bars = bars[bars.index <= until]
        close = bars["close"].astype(float)
        steps = pd.Series(np.log(close), close.index).diff()
        columns: dict[int | str, pd.Series] = {h: close.shift(-1 - h) / close.shift(-1) - 1 for h in horizons}
        columns["volatility"] = steps.rolling(VOLATILITY_BARS).std(ddof=0)
        parts.append(pd.DataFrame(columns).assign(instrument=name))
    table = pd.concat(parts).rename_axis("datetime").set_index("instrument", append=True).reindex(keys)
    return pd.DataFrame({h: _label(table[h], table["volatility"]) for h in horizons}, index=keys)


def centered_ranks(values: pd.Series) -> pd.Series:
    """Ranks within each date, ties averaged, from -0.5 (lowest) to 0.5 (highest); 0 for a single instrument."""
    by_date = values.groupby(level="datetime")
    counts = by_date.transform("count")
    return ((by_date.rank() - 1) / (counts - 1).clip(lower=1) - 0.5).where(counts > 1, 0.0)


def _label(returns: pd.Series, volatility: pd.Series) -> pd.Series:
    known = returns.notna() & volatility.notna()
    rank, style = centered_ranks(returns[known]), centered_ranks(volatility[known])
    sums = pd.DataFrame({"shared": rank * style, "own": style**2}).groupby(level="datetime").transform("sum")
    left = rank - (sums["shared"] / sums["own"].where(sums["own"] > 0, 1.0)) * style
    counts = left.groupby(level="datetime").transform("count")
    return (left * 12**0.5).where(counts >= MIN_INSTRUMENTS).reindex(returns.index)
