from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from kronos_strategies.data.qlib_bins import read_calendar
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from kronos_strategies.forecast_view.inputs import read_forecast_bars
from kronos_strategies.forecast_view.run import forecast_bars
from kronos_strategies.forecast_view.summary import forecast_steps
from kronos_strategies.serve.data import offer_data
from kronos_strategies.serve.forecasts import ForecastRequest, Forecasts
from kronos_strategies.serve.jobs import Canceled, Job, JobRunner
from tests.kronos.builders import make_bars

from .conftest import HOSTILE, NAMES, TINY, asked, ended, load

DATE = make_bars(80).index[-6]


class Stopped(Job):
    """Cancels itself after the first of several instruments."""

    def progress(self, done: int, total: int) -> None:
        super().progress(done, total)
        if total > 1 and done == 1:
            self.cancel()


@pytest.fixture(scope="module")
def expected(folder: Path):
    """The forecast of `kronos forecast`."""
    bars = read_forecast_bars([folder / "daily"], as_of=f"{DATE:%Y-%m-%d}")
    predictor = load(TINY)
    return forecast_bars(
        predictor, bars, 5, 30, predictor.sampling.with_overrides(19, None, None, None, 0),
        own_calibration=predictor.calibration,
    )  # fmt: skip


def table(client: TestClient, key: str, name: str = "table") -> pd.DataFrame:
    text = client.get(f"/api/forecasts/{key}/{name}.csv").text
    return pd.read_csv(io.StringIO(text), parse_dates=["datetime", "timestamp"])


def test_the_ranked_table_and_the_steps_are_those_of_kronos_forecast(
    client: TestClient, forecast: Callable[..., str], expected
) -> None:
    key = forecast(as_of=f"{DATE:%Y-%m-%d}", rank=True)
    found, wanted = table(client, key), expected.table.reset_index()
    assert found["instrument"].tolist() == wanted["instrument"].tolist()
    assert sorted(found["instrument"]) == sorted(NAMES)
    numbers = wanted.select_dtypes("number").columns
    np.testing.assert_allclose(found[numbers], wanted[numbers], rtol=1e-6)
    steps = forecast_steps(expected.forecast, expected.bars.held_back).reset_index()
    mine = table(client, key, "steps").sort_values(["instrument", "step"])
    steps = steps.sort_values(["instrument", "step"])
    for column in ("close", "q05", "realized"):
        np.testing.assert_allclose(mine[column], steps[column], rtol=1e-6)
    lines = client.get(f"/api/forecasts/{key}").json()["settings"]
    assert lines[0].startswith("5 bars held back: MAE")
    assert lines[1:] == [str(expected.held_back), *expected.settings]


def test_bars_after_the_date_change_nothing(tmp_path: Path, runner: JobRunner) -> None:
    whole = {name: make_bars(80, seed) for seed, name in enumerate(("AAA", "BBB"))}
    tables = []
    for place, rows in (("now", slice(None)), ("then", slice(None, DATE))):
        (tmp_path / place).mkdir()
        for name, bars in whole.items():
            bars.loc[rows].to_csv(tmp_path / place / f"{name}.csv")
        forecasts = Forecasts(offer_data([tmp_path / place]), [TINY], load)
        request = ForecastRequest(**asked(as_of=f"{DATE:%Y-%m-%d}", rank=True))
        job = Job()
        forecasts.run(request, job)
        tables.append(job.result.whole.table)
    pd.testing.assert_frame_equal(*tables)


def test_without_ranking_only_the_chosen_instrument_is_forecast(
    client: TestClient, forecast: Callable[..., str]
) -> None:
    found = client.get(f"/api/forecasts/{forecast()}").json()
    assert [row[0] for row in found["rows"]] == ["AAA"]
    assert "score" not in found["heads"]
    assert any("training cutoff" in line or "calibration" in line for line in found["settings"])


def test_instruments_without_a_bar_on_the_date_are_not_ranked(tmp_path: Path) -> None:
    make_bars(80, 0).to_csv(tmp_path / "AAA.csv")
    make_bars(80, 1).drop(DATE).to_csv(tmp_path / "BBB.csv")
    make_bars(60, 2).to_csv(tmp_path / "CCC.csv")
    make_bars(80, 3).to_csv(tmp_path / "DDD.csv")
    job = Job()
    forecasts = Forecasts(offer_data([tmp_path]), [TINY], load)
    forecasts.run(ForecastRequest(**asked(as_of=f"{DATE:%Y-%m-%d}", rank=True)), job)
    ranked = job.result.ranked.table
    assert sorted(ranked.index.get_level_values("instrument")) == ["AAA", "DDD"]
    assert set(ranked.index.get_level_values("datetime")) == {DATE}


@pytest.mark.parametrize("other", ["Asia/Shanghai", "America/New_York"])
def test_bars_in_time_zones_are_ranked_at_the_moment_of_the_forecast(other: str, tmp_path: Path) -> None:
    index = pd.date_range("2024-03-04 09:00", periods=80, freq="h", tz="Asia/Shanghai", name="datetime")
    for seed, (name, zone) in enumerate({"AAA": "Asia/Shanghai", "DDD": other}.items()):
        make_bars(80, seed).set_axis(index.tz_convert(zone)).to_parquet(tmp_path / f"{name}.parquet")
    job = Job()
    forecasts = Forecasts(offer_data([tmp_path]), [TINY], load)
    forecasts.run(ForecastRequest(**asked(as_of="2024-03-07 10:00", rank=True)), job)
    ranked = job.result.ranked.table
    assert sorted(ranked.index.get_level_values("instrument")) == ["AAA", "DDD"]
    dates = ranked.index.get_level_values("datetime")
    assert set(dates) == {pd.Timestamp("2024-03-07 10:00", tz="Asia/Shanghai")}


def test_a_market_of_a_qlib_directory_is_ranked_by_its_members_of_the_date(tmp_path: Path) -> None:
    market = simulate_market(
        MarketConfig(seed=3, instruments=6, sectors=2, start="2022-07-01", end="2022-12-30")
    )
    store = tmp_path / "store"
    write_store(market.bars, store, membership={"csi300": market.membership}, source={"kind": "test"})
    data = offer_data([store])
    date, later = read_calendar(store)[-20], read_calendar(store)[-15]
    name = data["0"].members(date)[0]
    job = Job()
    request = asked(instrument=name, as_of=f"{date:%Y-%m-%d}", rank=True)
    Forecasts(data, [TINY], load).run(ForecastRequest(**request), job)
    ranked = job.result.ranked.table
    traded = market.bars.loc[market.bars["datetime"] == date, "instrument"]
    members = sorted(set(data["0"].members(date)) & set(traded))
    assert sorted(ranked.index.get_level_values("instrument")) == members
    assert 1 < len(members) < market.bars["instrument"].nunique()
    assert set(ranked["timestamp"]) == {later}


def test_every_ranked_instrument_has_a_chart_with_what_followed(
    client: TestClient, forecast: Callable[..., str]
) -> None:
    key = forecast(as_of=f"{DATE:%Y-%m-%d}", rank=True)
    for name in NAMES:
        chart = client.get(f"/api/forecasts/{key}/chart", params={"instrument": name}).json()
        assert chart["title"].startswith(f"{name}, forecast as of {DATE:%Y-%m-%d}")
        names = [trace["name"] for trace in chart["figure"]["data"] if "name" in trace]
        assert {"90% band", "bars", "held back", "median of paths"} <= set(names)
    assert client.get(f"/api/forecasts/{key}/chart", params={"instrument": "ZZZ"}).status_code == 422


def test_a_chart_carries_no_markup_of_a_name(client: TestClient, forecast: Callable[..., str]) -> None:
    key = forecast(instrument=HOSTILE)
    figure = client.get(f"/api/forecasts/{key}/chart", params={"instrument": HOSTILE}).text.partition(
        "figure"
    )[2]
    assert "<img" not in figure


def test_a_canceled_forecast_keeps_the_chosen_instrument(forecasts: Forecasts) -> None:
    job = Stopped()
    with pytest.raises(Canceled):
        forecasts.run(ForecastRequest(**asked(rank=True)), job)
    assert job.result.whole.table.index.get_level_values("instrument").tolist() == ["AAA"]


def test_a_time_of_day_holds_back_the_bars_after_it(client: TestClient, forecast: Callable[..., str]) -> None:
    key = forecast(data="1", instrument="EEE", as_of="2024-07-01 14:00")
    chart = client.get(f"/api/forecasts/{key}/chart", params={"instrument": "EEE"}).json()
    assert "as of 2024-07-01 14:00" in chart["title"]
    assert table(client, key)["timestamp"].tolist() == [pd.Timestamp("2024-07-01 14:25")]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"data": "../../etc"}, "data '../../etc' is not offered. Choose one of the list."),
        ({"model": "/etc/passwd"}, "model '/etc/passwd' is not offered. Choose one of the list."),
        ({"calibration": "/etc/passwd"}, "calibration '/etc/passwd' is not offered. Choose one of the list."),
        ({"samples": 0}, "samples: Input should be greater than or equal to 1."),
        ({"samples": 10**9}, "samples: Input should be less than or equal to 500."),
        ({"horizon": 251}, "horizon: Input should be less than or equal to 250."),
        ({"path": "/etc"}, "path: Extra inputs are not permitted."),
    ],
)
def test_unknown_choices_are_refused_before_anything_is_computed(
    change: dict, sentence: str, client: TestClient
) -> None:
    answer = client.post("/api/forecasts", json=asked(**change))
    assert (answer.status_code, answer.json()) == (422, {"error": sentence})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"instrument": "ZZZ"}, "has no instrument 'ZZZ'"),
        ({"as_of": "soon"}, "soon is not a date or time"),
        ({"as_of": "2000-01-01"}, "No instrument has 30 bars by 2000-01-01"),
    ],
)
def test_an_error_of_the_bars_is_an_event(
    change: dict, sentence: str, client: TestClient, runner: JobRunner
) -> None:
    key = client.post("/api/forecasts", json=asked(**change)).json()["id"]
    ended(runner, key)
    last = client.get(f"/api/forecasts/{key}/events").text.strip().rpartition("event: ")[2]
    assert last.startswith("failed")
    assert sentence in last
    assert client.get(f"/api/forecasts/{key}").json() == {
        "error": "This forecast has nothing to show. Make it again."
    }


def test_too_many_paths_to_keep_are_refused_after_the_chosen_instrument(
    forecasts: Forecasts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kronos_strategies.serve.forecasts.MAX_BYTES", 4 * 6 * 5 * 19 * len(NAMES) - 1)
    job = Job()
    with pytest.raises(ValueError, match=r"19 paths over 5 bars of 4 instruments need .* Choose fewer paths"):
        forecasts.run(ForecastRequest(**asked(rank=True)), job)
    assert job.result.ranked is None
    assert len(job.result.whole.table) == 1


def test_an_unknown_checkpoint_or_calibration_is_refused_at_the_start(folder: Path) -> None:
    data = offer_data([folder / "daily"])
    with pytest.raises(ValueError, match="nowhere' is not a folder"):
        Forecasts(data, [str(folder / "nowhere")], load)
    with pytest.raises(FileNotFoundError, match="There is no calibration"):
        Forecasts(data, [TINY], load, ["nowhere.json"])
