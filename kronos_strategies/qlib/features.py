"""Kronos as features of Qlib's own models: hidden states of windows and statistics of paths, next to Alpha158.

Rows and labels are those of Qlib's own handlers. Kronos adds columns; a row dated t reads bars up to close(t).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from qlib.contrib.data.handler import check_transform_proc
from qlib.contrib.data.loader import Alpha158DL
from qlib.data import D
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import QlibDataLoader
from qlib.utils import time_to_slc_point

from kronos.config import as_integer
from kronos_strategies.evaluation.warnings import training_overlap_warnings
from kronos_strategies.forecasters.registry import parse_name
from kronos_strategies.qlib.checks import check_lookback
from kronos_strategies.qlib.data_access import (
    DAY,
    Config,
    Instruments,
    instruments_of,
    member_windows,
    universe_name,
)
from kronos_strategies.qlib.dataset import label_expression, trade_spec
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.signal import signals
from kronos_strategies.store import WindowSpec

ALPHA158, EMBEDDING, PATHS = "alpha158", "embedding", "paths"
FEATURES = (ALPHA158, EMBEDDING, PATHS)
LEARN_PROCESSORS = (  # as in Alpha158: rows without a label are not learned from, labels are standardized by date
    {"class": "DropnaLabel"},
    {"class": "CSZScoreNorm", "kwargs": {"fields_group": "label"}},
)


class FeatureLoader(QlibDataLoader):
    """Qlib's features and labels of some instruments, with the columns of Kronos.

    Rows are Qlib's. Columns of Kronos are NaN on rows without a window: the instrument does not trade on that bar,
    or has too few bars yet.

    Args:
        features: any of FEATURES, see `KronosFeatures`.
        model: reads windows, samples paths and has the forecast store; None for features of Qlib alone.
        spec: specification of the windows; its universe is that of the instruments that are loaded.
        hold, deal_price: trade that the label and the statistics of paths refer to.
        filter_pipe: Qlib filters of a market.
        freq: Qlib's name of the bar frequency.
    """

    def __init__(
        self,
        features: Sequence[str],
        model: KronosModel | None,
        spec: WindowSpec,
        hold: int,
        deal_price: str,
        filter_pipe: Sequence[object] | None = None,
        freq: str = DAY,
    ) -> None:
        config: dict[str, Any] = {"feature": Alpha158DL.get_feature_config()} if ALPHA158 in features else {}
        super().__init__(config | {"label": ([label_expression(hold, deal_price)], ["LABEL0"])}, freq=freq)
        self.features, self.model, self.spec = tuple(features), model, spec
        self.hold, self.deal_price, self.filters = hold, deal_price, filter_pipe

    def load(
        self,
        instruments: Instruments | None = None,
        start_time: object = None,
        end_time: object = None,
    ) -> pd.DataFrame:
        """Frame indexed (datetime, instrument), columns ("feature", ...) and ("label", "LABEL0")."""
        config = instruments_of("all" if instruments is None else instruments, self.filters)
        start, end = (time_to_slc_point(time) for time in (start_time, end_time))
        rows = super().load(config, start, end)
        parts = [part.reindex(rows.index) for part in self._kronos(config, start, end)]
        own = [pd.concat({"feature": part}, axis=1) for part in parts]
        return pd.concat([rows.drop(columns="label", level=0), *own, rows[["label"]]], axis=1)

    def _kronos(
        self, config: Config, start: pd.Timestamp | None, end: pd.Timestamp | None
    ) -> Iterator[pd.DataFrame]:
        """Columns of Kronos by (datetime, instrument) of the windows, float32."""
        if self.model is None:
            return
        spec = replace(self.spec, universe=universe_name(config, self.freq))
        calendar = D.calendar(freq=self.freq)
        first = pd.Timestamp(calendar[0] if start is None else start)
        last = pd.Timestamp(calendar[-1] if end is None else end)
        windows = member_windows(spec, first, last, config, self.freq)
        if EMBEDDING in self.features:
            hidden = self.model.embeddings(windows, spec)
            yield pd.DataFrame(hidden, windows.index, [f"HIDDEN{i}" for i in range(hidden.shape[1])])
        if PATHS in self.features:
            sampled = self.model.forecasts(windows, spec)
            read = map(self.model.postprocessing, sampled)
            found = [signals(each, self.hold, self.deal_price, levels=self.model.levels) for each in read]
            yield pd.concat(found).astype(np.float32).rename(columns=lambda name: f"PATHS_{name.upper()}")


class KronosFeatures(DataHandlerLP):
    """Handler with hidden states of Kronos and statistics of its sampled paths as features, and with Alpha158.

    It takes the place of `Alpha158` in a workflow file. Rows and processors are those of Alpha158; a row without a
    window has no value of Kronos (NaN), as Alpha158 has none on a suspended bar. A row dated t is known at
    close(t). Hidden states and paths are computed once and kept in the forecast store of `model`.

    Args:
        instruments: a market, symbols, or a dict, as Qlib's handlers take them.
        start_time: first bar.
        end_time: last bar.
        features: any of "alpha158", Qlib's 158 features; "embedding", the model's last hidden state at the last bar
            of each window, columns HIDDEN0, HIDDEN1, ...; "paths", the columns of
            `kronos_strategies.signal.SIGNALS`, as PATHS_SCORE, PATHS_VOLATILITY, ...
        model: arguments of `KronosModel`: checkpoint, store, samples, workers, ...
        lookback: traded bars that the model reads.
        min_bars: traded bars that a window needs, `lookback` when omitted.
        hold: bars that a position is held: the label is price[t+1+hold] / price[t+1] - 1.
        horizon: bars to sample, hold + 1 when omitted.
        deal_price: price of the label: "close", "open", or "vwap" where the data has it.
        filter_pipe: Qlib filters of the market.
        freq: Qlib's name of the bar frequency.
        infer_processors, learn_processors, process_type, fit_start_time, fit_end_time, drop_raw: as in Alpha158.

    Raises:
        ValueError: settings do not fit each other.
    """

    def __init__(
        self,
        instruments: Instruments = "csi300",
        start_time: object = None,
        end_time: object = None,
        features: Sequence[str] = (ALPHA158, EMBEDDING),
        model: Mapping[str, Any] | None = None,
        lookback: int = 90,
        min_bars: int | None = None,
        hold: int = 1,
        horizon: int | None = None,
        deal_price: str = "close",
        filter_pipe: Sequence[object] | None = None,
        freq: str = DAY,
        infer_processors: Sequence[object] = (),
        learn_processors: Sequence[object] = LEARN_PROCESSORS,
        process_type: str = DataHandlerLP.PTYPE_A,
        fit_start_time: object = None,
        fit_end_time: object = None,
        drop_raw: bool = False,
    ) -> None:
        self.features = _checked_features(features)
        self.hold, spec = trade_spec(lookback, min_bars, hold, horizon, deal_price)
        kronos = _reader(self.features, model or {}, spec)
        fit = (fit_start_time, fit_end_time)
        super().__init__(
            instruments=instruments,
            start_time=start_time,
            end_time=end_time,
            data_loader=FeatureLoader(self.features, kronos, spec, self.hold, deal_price, filter_pipe, freq),
            infer_processors=check_transform_proc(list(infer_processors), *fit),
            learn_processors=check_transform_proc(list(learn_processors), *fit),
            process_type=process_type,
            drop_raw=drop_raw,
        )

    def training_overlap_warnings(self, first: pd.Timestamp) -> list[str]:
        """Whether the checkpoint may have been trained on the test dates, which start at `first`."""
        model = self.data_loader.model
        known = None if model is None else model.provenance
        return [] if known is None else training_overlap_warnings(known, first)


class PurgedDataset(DatasetH):
    """DatasetH that learns from no label that is known only after the segment's end.

    A label that spans several bars reaches past the last bars of a segment: into the validation or test dates when
    these follow at once. Those bars are left out of what a model learns from; predictions are made on all bars.

    Args:
        handler: handler or its configuration.
        segments: segments of dates.
        label_bars: bars from a date to the last price of its label; hold + 1 of `KronosFeatures` when omitted.
        freq: Qlib's name of the bar frequency.

    Raises:
        ValueError: label_bars below 1, or omitted with another handler.
    """

    def __init__(
        self,
        handler: object,
        segments: Mapping[str, Sequence[object]],
        label_bars: int | None = None,
        freq: str = DAY,
    ) -> None:
        super().__init__(handler, dict(segments))
        if label_bars is None:
            if not isinstance(self.handler, KronosFeatures):
                raise ValueError(
                    f"label_bars of a {type(self.handler).__name__} is unknown. Pass the bars that its label "
                    "spans, e.g. 2 for Ref($close, -2) / Ref($close, -1) - 1."
                )
            label_bars = self.handler.hold + 1
        if (label_bars := as_integer("label_bars", label_bars)) < 1:
            raise ValueError(f"label_bars={label_bars} is too small. Pass at least 1.")
        self.label_bars, self.freq = label_bars, freq

    def _prepare_seg(self, slc: object, **kwargs: Any) -> pd.DataFrame:
        """Rows of a segment; Qlib's subclasses override the same method."""
        if kwargs.get("data_key") == DataHandlerLP.DK_L and isinstance(slc, slice | tuple | list):
            start, end = (slc.start, slc.stop) if isinstance(slc, slice) else slc
            slc = slice(start, self._last_labeled(end))
        return super()._prepare_seg(slc, **kwargs)

    def _last_labeled(self, end: object) -> pd.Timestamp:
        """The last bar whose label is known by the end of a segment."""
        calendar = pd.DatetimeIndex(D.calendar(freq=self.freq))
        known = calendar if end is None else calendar[calendar <= time_to_slc_point(end)]
        if len(known) <= self.label_bars:
            raise ValueError(
                f"No label over {self.label_bars} bars is known by {end}. Choose a later end of the segment."
            )
        return pd.Timestamp(known[-1 - self.label_bars])


def _checked_features(features: Sequence[str]) -> tuple[str, ...]:
    names = (features,) if isinstance(features, str) else tuple(features)
    if unknown := [name for name in names if name not in FEATURES]:
        raise ValueError(f"features has the unknown '{unknown[0]}'. Choose any of {list(FEATURES)}.")
    if not names:
        raise ValueError(f"features is empty. Choose any of {list(FEATURES)}.")
    return names


def _reader(features: tuple[str, ...], model: Mapping[str, Any], spec: WindowSpec) -> KronosModel | None:
    """The model that computes the features; None where none is of Kronos, so that no checkpoint is loaded."""
    if not {EMBEDDING, PATHS} & set(features):
        return None
    made = KronosModel(**{"samples": 0, **model})
    if PATHS in features and made.samples == 0:
        raise ValueError(
            "The feature 'paths' needs sampled paths, but samples=0. Set samples of `model`, e.g. to 10 "
            "(KRONOS_SAMPLES), or leave 'paths' out."
        )
    check_lookback(spec.lookback, made.max_context if parse_name(made.checkpoint) is None else None)
    return made
