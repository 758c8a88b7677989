"""Contents of a picture, all within their panels."""

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")
import matplotlib
from matplotlib import pyplot
from matplotlib.figure import Figure

from kronos_strategies.backtrader import KronosBand, KronosIndicator, save_plot
from tests.kronos.builders import make_bars, make_panel
from tests.kronos_strategies.backtrader.builders import FIVE, SETTINGS, pandas_feeds, session_bars


class Trading(bt.Strategy):
    """Buys and sells each feed in turns."""

    def __init__(self):
        for data in self.datas:
            KronosIndicator(data, **SETTINGS)
            KronosBand(data, **SETTINGS)

    def prenext(self):
        self.next()

    def next(self):
        for data in self.datas:
            if len(data) and len(data) % 9 == 0:
                (self.close if self.getposition(data).size else self.buy)(data=data)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a run and returns the figure."""
    figures = []
    honest = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: figures.append(self) or honest(self, *a, **k)
    )

    def draw(panel, mode=None, **options) -> Figure:
        cerebro = bt.Cerebro()
        for name, feed in pandas_feeds(panel, **options).items():
            cerebro.adddata(feed, name=name)
        cerebro.addstrategy(Trading)
        assert save_plot(cerebro.run(**(mode or {}))[0], tmp_path / "run.png").stat().st_size > 10_000
        return figures[-1]

    return draw


def panels(figure: Figure) -> list[str]:
    return [axes.get_legend().get_texts()[0].get_text() for axes in figure.axes]


def labels(figure: Figure) -> list[str]:
    figure.canvas.draw()
    return [tick.get_text() for tick in figure.axes[-1].get_xticklabels()]


def late_panel() -> dict[str, pd.DataFrame]:
    panel = make_panel(80, "A", "LATE", "GAPS", "OVER", "E")
    panel["LATE"] = panel["LATE"].iloc[30:]
    panel["GAPS"] = panel["GAPS"].drop(panel["GAPS"].index[[40, 41, 42, 60]])
    panel["OVER"] = panel["OVER"].iloc[:50]
    return panel


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_feed_has_its_panel_and_its_indicators_panel(drawn, count):
    figure = drawn(dict(list(late_panel().items())[:count]))
    assert len(figure.axes) == 2 + 2 * count
    assert [name for name in panels(figure) if name.endswith("(1 Day)")] == [
        f"{name} (1 Day)" for name in list(late_panel())[:count]
    ]


@pytest.mark.parametrize("mode", [{}, {"runonce": False}])
def test_marks_are_at_the_bars_that_traded(drawn, mode):
    panel = late_panel()
    figure = drawn(panel, mode)
    days = panel["A"].index
    for name, bars in panel.items():
        axes = next(
            axes
            for axes, title in zip(figure.axes, panels(figure), strict=True)
            if title == f"{name} (1 Day)"
        )
        found = []
        for line in axes.get_lines():
            if line.get_marker() in ("^", "v"):
                ys = np.asarray(line.get_ydata(), float)
                found += np.asarray(line.get_xdata())[np.isfinite(ys)].tolist()
        assert sorted(found) == [days.get_loc(day) for day in bars.index[9::9]], name


@pytest.mark.parametrize(
    "options", [{"seed": 0}, {"seed": 1, "tz": "America/New_York"}, {"seed": 2, "aware": True}]
)
def test_marks_and_legends_stay_within_their_panels(drawn, options):
    bars = session_bars(4, 30, options["seed"])
    figure = drawn(
        {"A": bars.tz_localize("UTC") if options.get("aware") else bars}, tz=options.get("tz"), **FIVE
    )
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_ylim()
        for line in axes.get_lines():
            ys = np.asarray(line.get_ydata(), float)
            if line.get_linestyle() == "None" and np.isfinite(ys).any():
                assert low < np.nanmin(ys)
                assert np.nanmax(ys) < high
        box, panel = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert panel.x0 <= box.x0
        assert box.x1 <= panel.x1
        assert panel.y0 <= box.y0
        assert box.y1 <= panel.y1 + 1


@pytest.mark.parametrize("count", [1, 3])
def test_legends_cover_no_line(drawn, count):
    figure = drawn(make_panel(60, *"ABC"[:count]))
    figure.canvas.draw()
    for axes in figure.axes:
        legend = axes.get_legend().get_window_extent()
        for line in axes.get_lines():
            x, y = (np.asarray(values, float) for values in line.get_data())
            points = axes.transData.transform(np.column_stack([x, y])[np.isfinite(y)])
            below = points[:, 1] < legend.y0
            above = points[:, 1] > axes.get_window_extent().y1  # outside of the panel
            assert (below | above | (points[:, 0] > legend.x1)).all()


def test_one_day_is_labeled_with_its_hours_and_once_with_its_date(drawn):
    bars = make_bars(60).set_axis(pd.date_range("2024-03-04 14:35", periods=60, freq="5min"))
    shown = labels(drawn({"A": bars}, tz="America/New_York", **FIVE))
    assert shown[0] == "09:35\n2024-03-04"
    assert shown[1:] == ["10:00", "11:00", "12:00", "13:00", "14:00"]


def test_times_are_those_of_a_frame_with_a_time_zone(drawn):
    bars = session_bars(1, 60).tz_localize("Asia/Tokyo")
    assert labels(drawn({"A": bars}, **FIVE))[0] == "09:35\n2024-03-04"


def test_days_are_labeled_with_different_dates(drawn):
    for bars in (make_bars(60), session_bars(30, 12)):
        shown = labels(drawn({"A": bars}, **({} if len(bars) == 60 else FIVE)))
        assert 3 <= len(shown) <= 10
        assert len(set(shown)) == len(shown)
        assert all(len(each) == 10 for each in shown)


def test_open_figures_stay_as_they_are(drawn):
    pyplot.close("all")  # what other tests of this process left open
    mine = pyplot.figure()
    pyplot.plot([1, 2], [3, 4])
    screen = matplotlib.get_backend()
    drawn({"A": make_bars(40)})
    assert pyplot.get_fignums() == [mine.number]
    assert pyplot.gcf() is mine
    assert len(mine.axes) == 1
    assert matplotlib.get_backend() == screen
    pyplot.close(mine)
