"""`kronos store fill` as a user runs it, on a small simulated store and the tiny reference checkpoint."""

import re
import shlex
import shutil

import pandas as pd
import pytest

pytest.importorskip("qlib")

from kronos.predictor import KronosPredictor
from kronos_strategies.comparison_inputs import load_input
from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from kronos_strategies.qlib.dataset import KronosDataset
from kronos_strategies.qlib.model import KronosModel
from kronos_strategies.store import ForecastStore
from tests.kronos.builders import headed_pair, make_panel
from tests.kronos_strategies.qlib.conftest import TINY, use_store
from tests.kronos_strategies.store.conftest import NAMES, SAMPLING, SPEC, windows_of

from .conftest import run

SPAN = ("2023-03-01", "2023-03-08")  # six trading days
SETTINGS = ("--model", TINY, "--samples", 2, "--lookback", 30, "--horizon", 3, "--device", "cpu")


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """A Qlib data directory of 24 simulated names."""
    market = simulate_market(
        MarketConfig(seed=3, instruments=24, sectors=4, start="2022-07-01", end="2023-04-28")
    )
    folder = tmp_path_factory.mktemp("bars") / "qlib store"
    write_store(
        market.bars,
        folder,
        membership={"csi300": market.membership},
        benchmarks=market.benchmark,
        source={"kind": "simulation"},
    )
    return folder


@pytest.fixture(autouse=True)
def no_settings_of_mine(monkeypatch):
    monkeypatch.delenv("KRONOS_QLIB_DATA", raising=False)


def forecast(capsys, store, bars, *more, start=SPAN[0], end=SPAN[1], **changes):
    span = ("--start", start, "--end", end)
    settings = dict(zip(SETTINGS[::2], SETTINGS[1::2], strict=True))
    settings |= {f"--{name}": value for name, value in changes.items()}
    words = (word for pair in settings.items() for word in pair)
    return run(capsys, "store", "fill", store, *span, "--data", bars, *words, *more)


def row(out: str, name: str) -> str:
    """A value of the table."""
    (found,) = re.findall(rf"│ +{name} +│ (.*?) *│", out)
    return found


def test_the_command_fills_a_store_and_prints_counts_and_the_next_command(bars, tmp_path, capsys):
    code, out, err = forecast(capsys, tmp_path / "forecasts", bars)
    assert (code, err.strip()) == (0, "")
    (stored,) = ForecastStore(tmp_path / "forecasts").forecast_sets()
    assert row(out, "dates") == "6, 2023-03-01 to 2023-03-08"
    assert (row(out, "already there"), row(out, "computed")) == ("0", "6")
    assert re.fullmatch(r"[\d,]+ windows/s, [\d,]+ in [\d.]+ s", row(out, "speed"))
    assert re.fullmatch(r"[\d.]+ kB", row(out, "on disk"))
    assert list(stored.dates) == list(pd.bdate_range(*SPAN))
    assert stored.manifest["settings"]["window_spec"] == {
        "universe": "csi300",
        "lookback": 30,
        "horizon": 3,
        "min_bars": 30,
    }
    assert "SIMULATED" in out


def test_the_next_command_scores_the_market_from_the_store_and_computes_nothing(
    bars, tmp_path, capsys, monkeypatch
):
    _, out, _ = forecast(capsys, tmp_path / "forecasts", bars)
    (command,) = re.findall(r"Next: (.*qrun .*configs/kronos_csi300.yaml)", out)
    settings = dict(word.split("=", 1) for word in shlex.split(command)[:-2])
    assert settings == {
        "KRONOS_QLIB_DATA": str(bars),
        "KRONOS_STORE": str(tmp_path / "forecasts"),
        "KRONOS_MODEL": str(TINY),
        "KRONOS_DEVICE": "cpu",
        "KRONOS_SAMPLES": "2",
        "KRONOS_LOOKBACK": "30",
        "KRONOS_HORIZON": "3",
        "KRONOS_HOLD": "2",
        "KRONOS_TOPK": "3",
        "KRONOS_N_DROP": "1",
        "KRONOS_TEST_START": SPAN[0],
        "KRONOS_TEST_END": SPAN[1],
    }
    use_store(bars)
    dataset = KronosDataset({"test": SPAN}, lookback=30, horizon=3)
    model = KronosModel(str(TINY), device="cpu", samples=2, store=settings["KRONOS_STORE"])
    monkeypatch.setattr(KronosPredictor, "forecast", None)  # every call fails
    assert model.predict(dataset).index.equals(dataset.windows().index)


def test_a_later_end_computes_the_new_dates(bars, tmp_path, capsys):
    forecast(capsys, tmp_path, bars, end="2023-03-03")
    _, out, _ = forecast(capsys, tmp_path, bars)
    assert (row(out, "already there"), row(out, "computed")) == ("3", "3")
    _, out, _ = forecast(capsys, tmp_path, bars)
    assert (row(out, "already there"), row(out, "computed")) == ("6", "0")
    assert "speed" not in out


def test_every_other_date_is_forecast_as_it_is_among_all(bars, tmp_path, capsys):
    code, out, _ = forecast(capsys, tmp_path / "every", bars, "--every", 2)
    assert code == 0
    assert "Next:" not in out  # a backtest of the span would forecast the other dates
    assert forecast(capsys, tmp_path / "all", bars)[0] == 0
    (some,), (every_one,) = (ForecastStore(tmp_path / name).forecast_sets() for name in ("every", "all"))
    assert list(some.dates) == list(every_one.dates[::2])
    for date in some.dates:
        (path,), (other,) = (
            (each.folder / f"date={date:%Y-%m-%d}").glob("*.parquet") for each in (some, every_one)
        )
        assert path.name.partition("-")[0] == other.name.partition("-")[0]  # the hash of the same windows


def test_recomputed_dates_are_counted_separately(bars, tmp_path, capsys):
    forecast(capsys, tmp_path, bars)
    (path,) = tmp_path.glob("*/*/date=2023-03-02/*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    (other,) = tmp_path.glob("*/*/date=2023-03-03/*.parquet")
    other.rename(other.with_name("f" * 16 + other.name[16:]))
    _, out, _ = forecast(capsys, tmp_path, bars)
    assert row(out, "computed") == "2"
    assert row(out, "because bars changed") == row(out, "because files were damaged") == "1"


def test_float16_paths_have_their_own_folder_and_the_next_command_asks_for_it(bars, tmp_path, capsys):
    _, out, _ = forecast(capsys, tmp_path, bars, "--float16")
    assert "KRONOS_STORE_DTYPE=float16" in out
    (stored,) = ForecastStore(tmp_path).forecast_sets()
    assert stored.settings.dtype == "float16"


def test_workers_store_the_same_bytes_and_are_shown(bars, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 40)
    _, out, _ = forecast(capsys, tmp_path / "alone", bars)
    assert "processes" not in out
    code, out, err = forecast(capsys, tmp_path / "shared", bars, workers=2)
    assert (code, err.strip()) == (0, "")
    assert re.fullmatch(r"2 processes of \d+ threads?", row(out, "workers"))
    assert row(out, "computed") == "6"
    alone, shared = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*/*/date=*/*")}
        for name in ("alone", "shared")
    )
    assert shared == alone
    assert len(alone) == 6


def test_a_missing_ray_cluster_is_one_sentence(bars, tmp_path, capsys):
    pytest.importorskip("ray", reason="Ray is not installed")
    code, _, err = forecast(capsys, tmp_path, bars, ray="127.0.0.1:9", workers=2)
    assert code == 2
    assert re.match(r"There is no Ray cluster at '127.0.0.1:9' \(.*Start one with `ray start --head`", err)
    assert len(err.strip().splitlines()) == 1


def test_a_store_may_be_a_url_which_the_next_command_and_a_comparison_read(bars, tmp_path, capsys):
    pytest.importorskip("upath")
    url = "memory://forecasts/a b"
    code, out, _ = forecast(capsys, url, bars)
    assert code == 0
    assert f"KRONOS_STORE='{url}'" in out
    (stored,) = ForecastStore(url).forecast_sets()
    assert len(stored) == 6
    found = load_input(f"one={stored.folder}", "unused", bars, hold=2)
    assert found.version.name == "one"
    assert found.version.score.index.get_level_values("datetime").nunique() == 6


def test_ctrl_c_keeps_what_is_done_and_says_how_to_resume(bars, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 1)
    honest, calls = KronosPredictor.forecast, iter([False, False, True])

    def interrupted(self, *arguments, **options):
        if next(calls):
            raise KeyboardInterrupt
        return honest(self, *arguments, **options)

    monkeypatch.setattr(KronosPredictor, "forecast", interrupted)
    code, _, err = forecast(capsys, tmp_path, bars)
    assert code == 130, err
    assert "Run the same command again" in err
    monkeypatch.setattr(KronosPredictor, "forecast", honest)
    _, out, _ = forecast(capsys, tmp_path, bars)
    assert (row(out, "already there"), row(out, "computed")) == ("2", "4")


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (["--market", "csi3000"], r"no market 'csi3000'. It has \['all', 'csi300'\]"),
        (["--start", "2030-01-01", "--end", "2030-02-01"], r"has no trading day.*--start and --end"),
        (["--start", "2023-03-08", "--end", "2023-03-01"], r"has no trading day"),
        (["--end", "2023-05-20"], r"ends after the data directory.*2023-04-28.*--end"),
        (["--start", "March"], r"--start"),
        (["--samples", "0"], r"--samples 0 leaves nothing to compute: the checkpoint has no return head"),
        (["--samples", "-1"], r"samples=-1 gives no path"),
        (["--score", "head"], r"score='head' needs a return head"),
        (["--horizon", "0"], r"horizon=0"),
        (["--workers", "0"], r"workers=0 cannot compute"),
        (["--gpus-per-worker", "1"], r"gpus_per_worker=1.0 is for Ray"),
        (["--lookback", "1"], r"lookback=1"),
        (["--lookback", "2000"], r"lookback=2000 is more than the model's context of 512 bars"),
        (["--device", "abacus"], r"device 'abacus'"),
        (["--model", "./nowhere"], r"nowhere"),
        (["--data", "./nowhere"], r"is not a Qlib data directory.*kronos data import"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(bars, tmp_path, capsys, monkeypatch, tokens, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    given = {
        "--start": SPAN[0],
        "--end": SPAN[1],
        "--data": bars,
        **dict(zip(SETTINGS[::2], SETTINGS[1::2], strict=True)),
        **dict(zip(tokens[::2], tokens[1::2], strict=True)),
    }
    code, _, err = run(capsys, "store", "fill", "store", *(word for pair in given.items() for word in pair))
    assert code == 2
    assert re.search(says, err), err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_a_file_in_place_of_the_store_is_refused(bars, tmp_path, capsys):
    (tmp_path / "file").touch()
    code, _, err = forecast(capsys, tmp_path / "file", bars)
    assert code == 2
    assert "is a file" in err


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The tiny checkpoint with a random head for 30 bars."""
    return headed_pair(TINY, tmp_path_factory.mktemp("pair") / "headed", 48, lookback=30)


def test_the_outputs_of_a_head_are_stored_next_to_the_paths(bars, pair, tmp_path, capsys):
    _, out, _ = forecast(capsys, tmp_path, bars, model=pair)
    assert "return head" in out
    assert len(list(tmp_path.glob("*/heads/*/date=*/*.parquet"))) == 6
    assert len(list(tmp_path.glob("*/*/date=*/*.parquet"))) == 6


def test_without_samples_the_head_alone_is_computed_and_the_next_command_finds_it(
    bars, pair, tmp_path, capsys, monkeypatch
):
    code, out, _ = forecast(capsys, tmp_path, bars, model=pair, samples=0, horizon=10)
    assert code == 0
    assert not list(tmp_path.glob("*/*/_manifest.json"))
    assert "KRONOS_SAMPLES=0" in out
    use_store(bars)
    monkeypatch.setattr(KronosPredictor, "embed", None)  # every call fails
    dataset = KronosDataset({"test": SPAN}, lookback=30, hold=5)
    model = KronosModel(str(pair), device="cpu", samples=0, store=str(tmp_path))
    assert model.predict(dataset).index.equals(dataset.windows().index)


def test_no_command_is_printed_that_would_be_refused(bars, tmp_path, capsys):
    """A store without future days: signals of its last bar have no day to trade on."""
    store = tmp_path / "store"
    shutil.copytree(bars, store)
    (store / "calendars" / "day_future.txt").unlink()
    code, out, _ = forecast(capsys, tmp_path / "forecasts", store, start="2023-04-25", end="2023-04-28")
    assert code == 0
    assert "KRONOS_TEST_END=2023-04-27 qrun" in out.replace("KRONOS_TOPK=3 KRONOS_N_DROP=1 ", "")
    assert "a backtest must end by 2023-04-27" in out
    _, out, _ = forecast(capsys, tmp_path / "forecasts", store, start="2023-04-28", end="2023-04-28")
    assert row(out, "dates").startswith("1, 2023-04-28")
    assert "Next:" not in out
    _, out, _ = forecast(capsys, tmp_path / "short", bars, "--horizon", 1)
    assert "Next:" not in out  # a trade takes two days


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store of four windows on each of 15 dates, made without a command."""
    folder = tmp_path_factory.mktemp("filled") / "a store"
    predictor = KronosPredictor.from_pretrained("kronos-nano", device="cpu")
    ForecastStore(folder).fill(predictor, windows_of(make_panel(60, *NAMES)), SPEC, SAMPLING)
    return folder


def test_ls_shows_model_settings_market_span_windows_and_size(capsys, filled):
    code, out, _ = run(capsys, "store", "ls", filled)
    assert code == 0
    for text in ("kronos-nano-", "forecasts", "lookback=20", "seed=1", "four", "2024-02-12", "60", "kB"):
        assert text in out
    code, out, _ = run(capsys, "store", "ls", filled.parent / "absent")
    assert code == 2


def test_verify_exits_with_1_at_damage_and_gc_deletes_it(capsys, filled, tmp_path):
    folder = shutil.copytree(filled, tmp_path / "a store")
    code, out, _ = run(capsys, "store", "verify", folder)
    assert (code, "15 files in 1 folders" in out, "0 problems" in out) == (0, True, True)
    (path,) = folder.glob("*/*/date=2024-02-14/*.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    code, out, _ = run(capsys, "store", "verify", folder)
    assert code == 1
    assert f"damaged {path}: its bytes do not match its checksum" in out
    code, out, _ = run(capsys, "store", "gc", folder, "--dry-run")
    assert code == 0
    assert "2 files and folders can be deleted" in out
    assert f"kronos store gc '{folder}'" in out
    assert path.exists()
    code, out, _ = run(capsys, "store", "gc", folder)
    assert (code, path.exists(), path.parent.exists()) == (0, False, False)
    assert run(capsys, "store", "verify", folder)[0] == 0
