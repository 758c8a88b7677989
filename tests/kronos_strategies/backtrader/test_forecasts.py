"""What is forecast once and found again, and what is said meanwhile."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos.predictor import KronosPredictor
from kronos.windows import Windows
from kronos_strategies.backtrader import forecasts, hub
from kronos_strategies.backtrader.forecasts import ForecastSettings
from kronos_strategies.backtrader.seat import Schedule
from tests.kronos.builders import make_panel
from tests.kronos_strategies.backtrader.builders import run

SETTINGS = ForecastSettings("kronos-nano", 20, 3, 4, None, None, None, 0, "cpu", None, None, None)


@pytest.fixture(autouse=True)
def forget():
    forecasts._MEMORY.clear()


def windows_of(*names: str, bars: int = 24) -> Windows:
    return Windows.rolling(make_panel(bars, *names), 20, 3, "B")


def test_numbers_of_bars_may_be_numpys():
    theirs = replace(SETTINGS, lookback=np.int64(20), horizon=np.int32(3))
    assert theirs == SETTINGS
    assert {type(theirs.lookback), type(theirs.horizon)} == {int}  # as the store writes them
    assert Schedule(20, np.int64(5)).span(26) == 1
    for wrong in (True, 2.5, "5", None):
        with pytest.raises(ValueError, match=f"lookback={wrong!r} is no number of bars"):
            replace(SETTINGS, lookback=wrong)
        with pytest.raises(ValueError, match=f"every={wrong!r} is no number of bars"):
            Schedule(20, wrong)


def test_only_windows_that_are_new_are_forecast(asked):
    few, all_of_them = windows_of("A"), windows_of("A", "B")
    SETTINGS.outlooks(few, ("A",))
    found = SETTINGS.outlooks(all_of_them, ("A", "B"))
    assert [len(windows) for windows in asked] == [5, 5]
    forecasts._MEMORY.clear()
    np.testing.assert_array_equal(found, SETTINGS.outlooks(all_of_them, ("A", "B")))


def test_other_settings_are_other_forecasts(asked):
    windows = windows_of("A")
    for settings in (SETTINGS, replace(SETTINGS, T=0.5)) * 2:
        settings.outlooks(windows, ("A",))
    assert len(asked) == 2


def test_a_window_of_another_date_is_another_window(asked):
    panel = make_panel(20, "A")
    later = {"A": panel["A"].set_axis(panel["A"].index + pd.DateOffset(years=28))}  # the same weekdays
    SETTINGS.outlooks(Windows.rolling(panel, 20, 3, "B"), ("A",))
    SETTINGS.outlooks(Windows.rolling(later, 20, 3, "B"), ("A",))
    assert len(asked) == 2


def test_networks_without_a_digest_may_have_changed_and_are_not_remembered(monkeypatch, asked):
    honest = KronosPredictor.provenance
    monkeypatch.setattr(
        KronosPredictor, "provenance", lambda *known: replace(honest(*known), weights_sha256=None)
    )
    first = SETTINGS.outlooks(windows_of("A"), ("A",))
    np.testing.assert_array_equal(SETTINGS.outlooks(windows_of("A"), ("A",)), first)
    assert [len(windows) for windows in asked] == [5, 5]
    assert not forecasts._MEMORY


def test_memory_is_bounded_and_the_oldest_go_first(monkeypatch, asked):
    monkeypatch.setattr(forecasts, "REMEMBERED", 3)
    SETTINGS.outlooks(windows_of("A"), ("A",))
    (memory,) = forecasts._MEMORY.values()
    assert len(memory) == 3
    SETTINGS.outlooks(windows_of("A")[2:], ("A",))
    assert len(asked) == 1


def test_what_is_remembered_counts_as_done():
    reported: list[tuple[int, int]] = []
    SETTINGS.outlooks(windows_of("A"), ("A",))
    SETTINGS.outlooks(windows_of("A", "B"), ("A", "B"), lambda *counts: reported.append(counts))
    assert reported[0] == (5, 10)
    assert reported[-1] == (10, 10)


def test_runonce_reports_all_planned_windows(monkeypatch):
    reported: list[tuple[int, int]] = []

    @contextmanager
    def watched(what, unit):
        yield lambda *counts: reported.append(counts)

    monkeypatch.setattr(hub, "progress_bar", watched)
    run(make_panel(45, "A", "B"))
    assert {total for _, total in reported} == {12}
    assert reported[-1] == (12, 12)
