"""What the picture of a forecast shows, for every renderer: history, fan, sampled paths, median candles, truth."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kronos.bars import FEATURES, BarsWarning, check_bars, wall_clock
from kronos.forecast import Forecast
from kronos.panels import UNNAMED, Bars, iter_instruments

PATHS = 12  # sampled paths that are drawn
HISTORY = (40, 160)  # bars before the forecast: twice the horizon, within these limits
TICKS = 6


@dataclass(frozen=True)
class ForecastChart:
    """A forecast of one window; bars stand side by side, without gaps for nights and weekends.

    Attributes:
        instrument: its name.
        as_of: local timestamp of the last bar seen.
        model: name of the model.
        samples: number of paths of the forecast.
        labels: (T + H,) unique local times of the T bars seen and the H bars forecast.
        history: (T, 6) FEATURES of the bars seen.
        median: (H, 6) median over paths of each feature.
        fan: (H, 4) lower and upper close of the 50 % band, then of the 90 % band.
        paths: (P, H) closes of the first sampled paths.
        truth: (K, 6) FEATURES of the bars that follow, K <= H, counted in bars.
        has_volume: whether any bar has a volume.
    """

    instrument: str
    as_of: pd.Timestamp
    model: str
    samples: int
    labels: list[str]
    history: pd.DataFrame
    median: pd.DataFrame
    fan: np.ndarray
    paths: np.ndarray
    truth: pd.DataFrame
    has_volume: bool

    @property
    def title(self) -> str:
        """Instrument, time and model in one line."""
        when = self.labels[len(self.history) - 1]
        paths = f"{self.samples} path{'s' * (self.samples != 1)}"
        return f"{self.instrument}, forecast as of {when} by {self.model}, {paths}"

    @property
    def ahead(self) -> list[int]:
        """(H + 1,) positions from the last bar seen to the end of the horizon."""
        return list(range(len(self.history) - 1, len(self.labels)))

    @property
    def last_close(self) -> float:
        """The close that all paths start from."""
        return float(self.history["close"].iloc[-1])

    @property
    def ticks(self) -> list[int]:
        """Positions to label: beginnings of days, and middles of few ones; without several days, even distances."""
        days = [label[:10] for label in self.labels]
        starts = [place for place in range(1, len(days)) if days[place] != days[place - 1]]
        if not 2 <= len(starts) < len(days) - 1:
            step = max(1, len(days) // TICKS)
            return list(range(step // 2, len(days), step))
        starts = starts[:: -(-len(starts) // TICKS)]
        if len(starts) > TICKS // 2:
            return starts
        day = int(np.diff(starts).min())
        middles = [place + day // 2 for place in (starts[0] - day, *starts)]
        return sorted({*starts, *(place for place in middles if 0 < place < len(days) - 1)})

    def tick_text(self, place: int) -> str:
        """Date of a position where its day begins; else the time of day, with the date where no tick has one."""
        label = self.labels[place]
        day = f"{pd.Timestamp(label[:10]):%d %b}"
        if len(label) == 10:
            return f"{day}\n{label[:4]}"
        if self._begins_day(place):
            return day
        return label[11:16] if any(map(self._begins_day, self.ticks)) else f"{day}\n{label[11:16]}"

    def _begins_day(self, place: int) -> bool:
        return place > 0 and self.labels[place - 1][:10] != self.labels[place][:10]


def forecast_chart(
    forecast: Forecast,
    bars: Bars | None = None,
    instrument: str | None = None,
    history: int | None = None,
    paths: int = PATHS,
) -> ForecastChart:
    """Contents of the picture of one window.

    Args:
        forecast: forecast of any number of windows.
        bars: bars of the instrument in a form that `KronosPredictor.forecast` takes. Those up to the date of the
            forecast are history, later ones the truth that was held back. Without them only the last bar is known.
        instrument: which one to draw; not needed where there is one. Of several dates, the last is drawn.
        history: number of bars before the forecast; twice the horizon within HISTORY when omitted.
        paths: number of sampled paths to draw.

    Raises:
        ValueError: several instruments and none named, an unknown name, or bars that do not contain the last bar.
    """
    name, row = _choose(forecast, instrument)
    one = forecast[np.array([row])].without_zones()
    date = pd.Timestamp(one.index.get_level_values("datetime")[0])
    seen = pd.DataFrame(one.last_bar, index=pd.DatetimeIndex([date]), columns=list(FEATURES))
    later = seen.iloc[:0]
    has_volume = bool((seen["volume"] > 0).any())
    if bars is not None:
        own = _bars_of(bars, name)
        seen, later = own.loc[:date], own.loc[date:].iloc[1:]
        if not len(seen) or seen.index[-1] != date:
            raise ValueError(
                f"The bars of {name} have no bar at {date}, the time of the forecast. Pass the bars that it was "
                "made from."
            )
        has_volume = bool((own["volume"] > 0).any())
    count = min(max(HISTORY[0], 2 * one.horizon), HISTORY[1]) if history is None else max(1, history)
    seen = seen.iloc[-count:]
    inner, outer = one.band(0.5)[0], one.band(0.9)[0]
    times = pd.DatetimeIndex(seen.index).append(pd.DatetimeIndex(one.timestamps[0]))
    return ForecastChart(
        instrument=name,
        as_of=date,
        model=forecast.provenance.model,
        samples=forecast.samples,
        labels=_labels(pd.DatetimeIndex(times)),
        history=seen,
        median=pd.DataFrame(np.median(one.paths[0], axis=0), columns=list(FEATURES)),
        fan=np.concatenate([inner, outer], axis=1),
        paths=one.path("close")[0, : max(0, paths)],
        truth=later.iloc[: one.horizon],
        has_volume=has_volume,
    )


def _choose(forecast: Forecast, instrument: str | None) -> tuple[str, int]:
    """Name and row of the window to draw."""
    names = forecast.index.get_level_values("instrument").astype(str)
    known = sorted(set(names))
    if instrument is None and len(known) != 1:
        raise ValueError(
            f"The forecast has {len(known)} instruments, {', '.join(known[:3])} and so on. Name one: instrument=..."
        )
    name = known[0] if instrument is None else instrument
    if name not in known:
        raise ValueError(f"The forecast has no instrument '{name}'. It has {', '.join(known[:3])}.")
    dates = pd.DatetimeIndex(forecast.index.get_level_values("datetime"))
    rows = np.flatnonzero(names == name)
    return name, int(rows[np.argmax(dates[rows])])


def _bars_of(bars: Bars, name: str) -> pd.DataFrame:
    """The checked bars of an instrument by local time; a single frame has the name of any instrument."""
    found = dict(iter_instruments(bars))
    if list(found) == [UNNAMED]:
        found = {name: next(iter(found.values()))}
    if name not in found:
        raise ValueError(f"The bars have no instrument '{name}'. They have {', '.join(sorted(found)[:3])}.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BarsWarning)  # the forecast has warned of them
        checked = check_bars(found[name], f"bars of {name}")
    return checked.set_axis(wall_clock(pd.DatetimeIndex(checked.index)))


def _labels(times: pd.DatetimeIndex) -> list[str]:
    """ISO times, as short as the bars allow."""
    if (times == times.normalize()).all():
        return list(times.strftime("%Y-%m-%d"))
    minutes = (times == times.floor("min")).all()
    return list(times.strftime("%Y-%m-%d %H:%M" if minutes else "%Y-%m-%d %H:%M:%S.%f"))
