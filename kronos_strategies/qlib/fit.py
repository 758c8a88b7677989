"""What a KronosModel fits to a Qlib dataset besides its networks: a return head and a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import pandas as pd
from qlib.log import get_module_logger

from kronos.calibration import Calibration
from kronos.config import SampleConfig, check_numbers
from kronos.head import ReturnHead
from kronos.postprocessing import AUTO
from kronos.predictor import KronosPredictor
from kronos.training.bar_array import HORIZONS
from kronos.windows import Windows
from kronos_strategies.calibration import calibrate, collect
from kronos_strategies.data.qlib_bins import DAY, bar_frequency
from kronos_strategies.distributed import WorkerPool
from kronos_strategies.forecasters.protocol import Forecaster
from kronos_strategies.heads.fit import FitSettings, Kind, fit_head
from kronos_strategies.progress import progress_bar
from kronos_strategies.qlib.artifacts import read_price_panel
from kronos_strategies.qlib.data_access import Instruments, member_windows, traded_bars
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.store import ForecastStore, WindowSpec

SIMULATED = "simulated market"
logger = get_module_logger(__name__)


def market_name(dataset: KronosDataset) -> str:
    """Market name that a head records; simulated bars never get the name of a real market."""
    return SIMULATED if any("SIMULATED" in warning for warning in dataset.store_warnings) else dataset.market


def fit_head_on(
    dataset: KronosDataset,
    predictor: KronosPredictor,
    store: ForecastStore,
    *,
    kind: str,
    every: int,
    seeds: int,
) -> ReturnHead:
    """Fit a head on the members of the segments train and valid; hidden states are kept in the store.

    Args:
        dataset: dataset, whose hold is one of the horizons.
        predictor: predictor, whose weights do not change.
        store: forecast store that keeps the hidden states.
        kind: "ridge" or "lightgbm".
        every: bars between the dates to fit on.
        seeds: LightGBM models to average.

    Raises:
        ValueError: a segment is missing, or has too few instruments or dates.
    """
    (start, train_until), (_, valid_until) = dataset.spans_to_fit()
    settings = FitSettings(
        train_until, valid_until, cast(Kind, kind), tuple(sorted({*HORIZONS, dataset.hold})), seeds
    )
    market = market_name(dataset)
    return fit_members(
        dataset.spec,
        start,
        settings,
        predictor,
        store,
        market,
        every,
        instruments=dataset.instruments,
        freq=dataset.freq,
    )


def fit_members(
    spec: WindowSpec,
    start: pd.Timestamp,
    settings: FitSettings,
    predictor: KronosPredictor,
    store: ForecastStore,
    market: str,
    every: int,
    name: str | None = None,
    instruments: Instruments | None = None,
    freq: str = DAY,
) -> ReturnHead:
    """Fit a head on the instruments, those of the market `spec.universe` when omitted, from `start` on."""
    windows = member_windows(spec, start, settings.valid_until, instruments, freq, every)
    names = windows.index.get_level_values("instrument").unique()
    with progress_bar("embed", "windows") as progress:
        hidden = store.embeddings(predictor, windows, spec, progress)
    origin = predictor.checkpoint_info
    return fit_head(
        hidden,
        windows.index,
        traded_bars(list(names), settings.valid_until, freq),
        settings,
        lookback=spec.lookback,
        markets=(market,),
        checkpoint=origin.name if origin else None,
        weights_sha256=origin.sha256 if origin else None,
        frequency=bar_frequency(freq),
        name=name or f"{settings.kind} head on {origin.name if origin else 'a model'}",
    )


def every_date(windows: Windows, every: int) -> Windows:
    """The windows of each `every`-th date."""
    if every < 1:
        raise ValueError(f"every={every} is too small. Pass at least 1 day.")
    dates = pd.DatetimeIndex(windows.index.get_level_values("datetime"))
    return windows[dates.isin(dates.unique().sort_values()[::every])]


@dataclass(frozen=True)
class CalibrationSettings:
    """What a calibration is fitted to.

    Attributes:
        every: bars between the dates that are forecast and calibrated on.
        groups: "exchange", "volatility" or both, fitted separately, see
            `kronos_strategies.calibration.fit_calibration`.
    """

    every: int = 5
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_numbers(self)
        object.__setattr__(self, "groups", tuple(self.groups))
        if self.every < 1:
            raise ValueError(f"every={self.every} of fit_calibration is too small. Pass at least 1 bar.")

    @classmethod
    def of(cls, values: Mapping[str, Any], samples: int, calibration: str) -> CalibrationSettings:
        """From the settings of a model.

        Args:
            values: fields by name.
            samples: paths per window.
            calibration: the model's setting of that name.

        Raises:
            ValueError: an unknown name, nothing to calibrate, or another calibration is asked for.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"fit_calibration has unknown settings {unknown}. Choose from {known}.")
        if samples < 2:
            raise ValueError(
                f"fit_calibration needs paths, but samples={samples}. Set samples=2 or more, or remove "
                "fit_calibration."
            )
        if calibration != AUTO:
            raise ValueError(
                f"fit_calibration fits a calibration, but calibration='{calibration}' asks for another. Keep "
                "one of them."
            )
        return cls(**values)


def fit_calibration_on(
    dataset: KronosDataset,
    forecaster: Forecaster,
    store: ForecastStore,
    sampling: SampleConfig,
    settings: CalibrationSettings,
    pool: WorkerPool | None = None,
) -> Calibration:
    """Forecast dates of the segment valid, and fit to those outcomes that are known by its end.

    The segment train is left out: the paths of a model that was fine-tuned on it look better there than they are.

    Args:
        dataset: dataset with a segment valid.
        forecaster: forecaster of the paths, which does not change.
        store: forecast store that keeps the forecasts.
        sampling: sampling settings of the paths.
        settings: which dates are forecast, and the groups.
        pool: workers that share the dates; None for this process.

    Raises:
        ValueError: there is no segment valid, or too few of its outcomes are known by its end.
    """
    start, end = dataset.span("valid")
    windows = member_windows(dataset.spec, start, end, dataset.instruments, dataset.freq, settings.every)
    with progress_bar("forecast to calibrate", "windows") as progress:
        filled = store.fill(forecaster, windows, dataset.spec, sampling, progress, pool)
    market = read_price_panel(windows.index, dataset.freq)
    made = calibrate(
        collect(filled, market, dates=len(filled)),
        market,
        dataset.market,
        dataset.spec.lookback,
        end,
        groups=settings.groups,
    )
    logger.info(
        "Fitted calibration %s to %d dates until %s", made.id, made.fits[-1].dates, made.known_at[:10]
    )
    return made
