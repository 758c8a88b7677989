"""What the page forecasts: the chosen instrument first, then all instruments of its date, in one batch to rank."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from kronos.bars import FEATURES, BarsWarning
from kronos.calibration import Calibration
from kronos.config import SampleConfig
from kronos.postprocessing import PathOptions
from kronos.utils import MissingExtra
from kronos_strategies.forecast_view.inputs import AllBars, divide_bars
from kronos_strategies.forecast_view.pictures import HEADS, format_cell, table_heads
from kronos_strategies.forecast_view.run import BarsForecast, forecast_bars
from kronos_strategies.forecasters.protocol import Forecaster
from kronos_strategies.heads.selection import HeadReader, load_readers
from kronos_strategies.serve.data import Data
from kronos_strategies.serve.jobs import Job

try:
    from pydantic import BaseModel, ConfigDict, Field
except ImportError as error:
    raise MissingExtra("The page needs FastAPI: pip install 'kronos-strategies[serve]'") from error

MAX_HORIZON, MAX_SAMPLES = 250, 500
MAX_BYTES = 2**29  # of the paths of one forecast


class ForecastRequest(BaseModel):
    """A forecast that the page asks for; names are those that it was offered.

    Attributes:
        data: key of the bars.
        instrument: instrument to draw.
        as_of: last date or time that the forecast may use; the last bar when None.
        model: name of the checkpoint.
        calibration: "auto", "none" or a file of the command line.
        horizon: number of bars to forecast.
        samples: paths per instrument.
        lookback: number of bars that the model reads; as in `kronos forecast` when None.
        rank: whether all instruments of the date are forecast, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    instrument: str
    model: str
    as_of: str | None = None
    calibration: str = "auto"
    horizon: Annotated[int, Field(ge=1, le=MAX_HORIZON)] = 10
    samples: Annotated[int, Field(ge=1, le=MAX_SAMPLES)] = 30
    lookback: Annotated[int, Field(ge=2, le=4096)] | None = None
    rank: bool = False


@dataclass
class ForecastResult:
    """A forecast of the page, as far as it is done.

    Attributes:
        instrument: the instrument asked for.
        drawn: forecast of that instrument alone.
        ranked: forecast of all instruments of the date, `instrument` included; None before it is done.
        warnings: sentences of the bars that a reader must not miss, in addition to those of the forecast.
    """

    instrument: str
    drawn: BarsForecast
    ranked: BarsForecast | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def whole(self) -> BarsForecast:
        """What is forecast so far: all instruments, or else the one."""
        return self.ranked or self.drawn

    def as_dict(self) -> dict[str, Any]:
        """The table and what a reader must know of it, as text for the page."""
        table = self.whole.table
        heads = table_heads(table)
        names = table.index.get_level_values("instrument")
        rows = [
            [str(name), *(format_cell(head, value) for head, value in zip(heads, values, strict=True))]
            for name, values in zip(names, table[heads].to_numpy(float), strict=True)
        ]
        scores = [made.held_back for made in (self.drawn, self.ranked) if made is not None]
        return {
            "instrument": self.instrument,
            "heads": ["instrument", *(HEADS[head] for head in heads)],
            "rows": rows,
            "settings": [*(str(score) for score in scores if score is not None), *self.whole.settings],
            "warnings": list(dict.fromkeys([*self.warnings, *self.whole.warnings])),
        }


class Forecasts:
    """Computes the forecasts of the page.

    Args:
        data: bars by key.
        models: names of checkpoints or other forecasters; the first one is loaded at once, others on first use.
        load: loads a forecaster by its name.
        calibrations: choices in addition to "auto" and "none", each the path of a file.
        calendar: exchange whose sessions have the timestamps to forecast; as in `kronos forecast` when None.

    Raises:
        FileNotFoundError: no such checkpoint or calibration.
        ValueError: it does not load.
    """

    def __init__(
        self,
        data: Mapping[str, Data],
        models: Sequence[str],
        load: Callable[[str], Forecaster],
        calibrations: Sequence[str] = (),
        calendar: str | None = None,
    ) -> None:
        self.data, self.models, self.calendar = data, tuple(models), calendar
        self.calibrations = ("auto", "none", *calibrations)
        self._load = load
        self._loaded: dict[str, tuple[Forecaster, list[HeadReader]]] = {}
        for file in calibrations:
            Calibration.read(file)
        self._predictor(self.models[0])

    def check(self, asked: ForecastRequest) -> None:
        """Require choices that the page offers.

        Raises:
            ValueError: another one.
        """
        for name, value, offered in (
            ("data", asked.data, list(self.data)),
            ("model", asked.model, self.models),
            ("calibration", asked.calibration, self.calibrations),
        ):
            if value not in offered:
                raise ValueError(f"{name} '{value}' is not offered. Choose one of the list.")

    def run(self, asked: ForecastRequest, job: Job) -> None:
        """Forecast in a job, whose result is a `ForecastResult`.

        It reports "drawn" when the chosen instrument is done, and "done" at the end.

        Raises:
            ValueError: bars cannot be read, or do not reach the lookback.
            Canceled: the job is canceled.
        """
        job.progress(0, 1)
        data = self.data[asked.data]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", BarsWarning)
            drawn = self._forecast(asked, data.read([asked.instrument]), asked.as_of, job)
            result = ForecastResult(asked.instrument, drawn, warnings=_texts(caught))
            job.result = result
            job.report("drawn")
            if asked.rank:
                date = drawn.table.index[0][0]
                bars = data.read(sorted({asked.instrument, *data.members(date)}))
                traded = [name for name, each in bars.bars.items() if date in each.index]
                _check_size(len(traded), asked)
                result.ranked = self._forecast(asked, bars.select(traded), str(date), job)
            result.warnings = _texts(caught)

    def _forecast(self, asked: ForecastRequest, bars: AllBars, as_of: str | None, job: Job) -> BarsForecast:
        predictor, readers = self._predictor(asked.model)
        divided = divide_bars(bars, as_of, asked.lookback)
        sampling: SampleConfig = predictor.sampling.with_overrides(asked.samples, None, None, None, 0)
        return forecast_bars(
            predictor, divided, asked.horizon, asked.lookback, sampling, self.calendar,
            PathOptions(asked.calibration), predictor.calibration, readers, progress=job.progress,
        )  # fmt: skip

    def _predictor(self, model: str) -> tuple[Forecaster, list[HeadReader]]:
        if model not in self._loaded:
            predictor = self._load(model)
            self._loaded[model] = predictor, load_readers(predictor, (), self._load)
        return self._loaded[model]


def _texts(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """The sentences about bars among warnings."""
    return [str(each.message) for each in caught if issubclass(each.category, BarsWarning)]


def _check_size(instruments: int, asked: ForecastRequest) -> None:
    size = 4 * len(FEATURES) * instruments * asked.samples * asked.horizon
    if size > MAX_BYTES:
        raise ValueError(
            f"{asked.samples} paths over {asked.horizon} bars of {instruments:,} instruments need "
            f"{size / 2**30:.1f} GiB. Choose fewer paths or a shorter horizon, or do not rank."
        )
