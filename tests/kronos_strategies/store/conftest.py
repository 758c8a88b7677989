"""A few instruments, the bundled checkpoint, and small chunks, so that a store of many dates takes seconds."""

from collections.abc import Callable

import pandas as pd
import pytest

from kronos.config import SampleConfig
from kronos.forecast import Forecast, Provenance
from kronos.paths import Candles
from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.store import WindowSpec
from tests.kronos.builders import make_panel

NAMES = ("AAA", "BBB", "CCC", "DDD")
SPEC = WindowSpec("four", lookback=20, horizon=3, min_bars=20)
SAMPLING = SampleConfig(samples=3, seed=1)
CALENDAR = pd.bdate_range("2024-01-02", periods=60)
SINCE = "2024-02-12"


def windows_of(panel: dict[str, pd.DataFrame], until: str | None = "2024-03-01") -> Windows:
    """The windows that the tests store: 15 dates by default."""
    return Windows.rolling(panel, SPEC.lookback, SPEC.horizon, CALENDAR, start=SINCE, end=until)


class Spy:
    """A forecaster that counts its calls, and runs a callback before each chunk."""

    def __init__(
        self, inner: KronosPredictor, before: Callable[[Windows], None] = lambda windows: None
    ) -> None:
        self.inner = inner
        self.before = before
        self.asked: list[pd.MultiIndex] = []

    def forecast(
        self,
        windows: Windows,
        sampling: SampleConfig | None = None,
        progress: Callable[[int], None] | None = None,
        candles: Candles = "valid",
    ) -> Forecast:
        self.before(windows)
        self.asked.append(windows.index)
        return self.inner.forecast(windows, sampling, progress, candles)

    def provenance(self, sampling: SampleConfig, data_sha256: str) -> Provenance:
        return self.inner.provenance(sampling, data_sha256)

    @property
    def dates(self) -> list[pd.Timestamp]:
        """Dates forecast so far, in the order of forecasting."""
        return [date for keys in self.asked for date in keys.get_level_values("datetime").unique()]


@pytest.fixture(scope="session")
def predictor() -> KronosPredictor:
    return KronosPredictor.from_pretrained("kronos-nano", device="cpu")


@pytest.fixture
def spy(predictor: KronosPredictor) -> Spy:
    return Spy(predictor)


@pytest.fixture
def panel() -> dict[str, pd.DataFrame]:
    return make_panel(60, *NAMES)


@pytest.fixture
def windows(panel: dict[str, pd.DataFrame]) -> Windows:
    return windows_of(panel)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """A chunk holds two dates of four windows."""
    monkeypatch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 8)
    return 8
