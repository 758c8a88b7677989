import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from kronos.io.files import file_record
from kronos.training.config import Source
from kronos_strategies.data.qlib_bins import read_calendar, read_market
from kronos_strategies.data.qlib_store import read_summary, write_store
from kronos_strategies.data.training import QlibBars
from kronos_strategies.data.validation import listing_spans
from tests.kronos.builders import make_bars

from .conftest import run

CONFIGS = Path(__file__).parents[3] / "configs"


def next_of(out: str) -> tuple[dict[str, str], list[str]]:
    """Settings and words of the command that is printed last."""
    words = shlex.split(out.rpartition("Next: ")[2])
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    return settings, [word for word in words if "=" not in word]


def write_bars(file: Path, names: list[str], days: int = 300) -> Path:
    dates = pd.bdate_range("2023-01-02", periods=days)
    rng = np.random.default_rng(0)
    frames = []
    for name in names:
        close = 50 * np.exp(rng.normal(0, 0.02, days).cumsum())
        bars = {
            "instrument": name,
            "datetime": dates,
            "open": close,
            "high": close * 1.01,
            "low": close * 0.99,
        }
        frames.append(pd.DataFrame({**bars, "close": close, "volume": 1000.0}))
    pd.concat(frames).to_csv(file, index=False)
    return file


@pytest.fixture
def files(tmp_path):
    """Bars with two bad rows, an index and a membership file."""
    days = pd.bdate_range("2024-01-01", periods=30)
    price = {"open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 100.0}
    bars = pd.concat(
        [pd.DataFrame({"instrument": name, "datetime": days} | price) for name in ("AAA", "BBB")]
    )
    bars.iloc[[3, 40], bars.columns.get_loc("close")] = [float("nan"), -1.0]
    paths = {name: tmp_path / f"{name}.csv" for name in ("bars", "index", "members")}
    bars.to_csv(paths["bars"], index=False)
    bars.tail(15).assign(instrument="IDX").to_csv(paths["index"], index=False)
    paths["members"].write_text("instrument,start,end\nAAA,2024-01-02,2024-01-05\nAAA,2024-01-10,\n")
    return paths


def test_import_writes_a_store_and_shows_the_row_counts(files, tmp_path, capsys):
    to = tmp_path / "my store"
    options = ["--to", to, "--benchmark", files["index"], "--membership", files["members"], "--market", "two"]
    code, out, err = run(capsys, "data", "import", files["bars"], *options)
    assert (code, err.strip()) == (0, "")
    for part in ("60", "missing price", "AAA 2024-01-04", "price not positive", "58"):
        assert part in out
    understood = "bars.csv: columns by name; AAA, BBB; 60 bars of 1day, 2024-01-01 to 2024-02-09; "
    understood += "missing values: 1 in close"
    assert understood in out
    assert (
        f"KRONOS_QLIB_DATA='{to}' KRONOS_MARKET=two KRONOS_BENCHMARK=IDX KRONOS_TOPK=1 KRONOS_N_DROP=1" in out
    )
    assert f"KRONOS_TEST_END=2024-02-09 qrun {CONFIGS / 'kronos_us.yaml'}" in out

    summary = read_summary(to)
    assert (summary.rows, summary.benchmarks, summary.markets) == (58, ("IDX",), {"all": 2, "two": 1})
    assert read_market(to, "two")["start"].dt.day.tolist() == [2, 10]
    assert summary.source["bars"] == {
        "files": [file_record(files["bars"])],
        "understood": [understood],
        "rows_read": 60,
        "dropped": {"missing price": 1, "price not positive": 1},
    }
    assert summary.source["region"] == "us"
    assert summary.source["membership"] == file_record(files["members"])


def test_options_of_import_reach_the_reader(tmp_path, capsys):
    days = pd.bdate_range("2024-01-01", periods=12, tz="Asia/Shanghai").tz_convert("UTC")
    bars = pd.DataFrame(
        {"when": days, "code": "1", "open": 10.0, "high": 11.0, "low": 9.0, "last": 10.5, "vol": 5}
    )
    (tmp_path / "bars").mkdir()
    bars.to_csv(tmp_path / "bars" / "a.csv", index=False)
    command = ["data", "import", tmp_path / "bars", "--to", tmp_path / "store", "--pad-codes", "6"]
    command += ["--columns", "close=last", "datetime=when", "--timezone", "Asia/Shanghai"]
    code, out, err = run(capsys, *command)
    assert (code, err.strip()) == (0, "")
    assert "a.csv: columns by name; 000001; 12 bars of 1day, 2024-01-01 to 2024-01-16; " in out
    assert "converted to Asia/Shanghai; codes padded to 6 digits" in out
    assert str(read_calendar(tmp_path / "store")[0].date()) == "2024-01-01"


def test_a_store_without_volume_is_read_back_without(tmp_path, capsys):
    days = pd.bdate_range("2024-01-01", periods=12)
    bars = pd.DataFrame({"date": days, "open": 10.0, "high": 11.0, "low": 9.0, "close": 10.5, "volume": 0})
    bars.to_csv(tmp_path / "EURUSD.csv", index=False)
    assert run(capsys, "data", "import", tmp_path / "EURUSD.csv", "--to", tmp_path / "store")[0] == 0
    (series,) = QlibBars(Source(tmp_path / "store")).series()
    assert (series.instrument, len(series.bars), "volume" in series.bars) == ("EURUSD", 12, False)


def test_without_a_membership_file_the_output_warns_of_survivors(files, tmp_path, capsys):
    _, out, _ = run(capsys, "data", "import", files["bars"], "--to", tmp_path / "store")
    assert "prone to survivorship" in out


def test_simulate_writes_a_store_and_says_so(tmp_path, capsys):
    to = tmp_path / "store"
    code, out, err = run(capsys, "data", "simulate", "--to", to, "--instruments", 10, "--seed", 3)
    assert (code, err.strip()) == (0, "")
    assert "not evidence of alpha" in out
    assert f"KRONOS_QLIB_DATA={to} KRONOS_TOPK=1 KRONOS_N_DROP=1 qrun {CONFIGS / 'kronos_csi300.yaml'}" in out
    assert read_summary(to).source["config"]["seed"] == 3
    assert len(read_calendar(to)) > 700


def test_overwrite_is_needed_to_replace_a_store(files, tmp_path, capsys):
    command = ["data", "import", files["bars"], "--to", tmp_path / "store"]
    assert run(capsys, *command)[0] == 0
    code, _, err = run(capsys, *command)
    assert code == 2
    assert "already contains a data directory" in err
    assert run(capsys, *command, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (
            ["data", "import", "nix.csv", "--to", "store"],
            "nix.csv is neither a file nor a folder of bars. Check the path.",
        ),
        (["data", "import", "--to", "store"], "requires an argument"),
        (
            ["data", "import", "{bars}", "--to", "store", "--market", "CSI 300"],
            "'CSI 300' cannot name a market",
        ),
        (["data", "import", "{members}", "--to", "store"], "lacks the columns"),
        (["data", "import", "{bars}", "--to", "{index}"], "is not a data directory that"),
        (["data", "simulate", "--to", "store", "--instruments", "1"], "instruments=1 is too small"),
        (["data", "simulate", "--to", "store", "--seed", "x"], "--seed"),
        (["data", "simulate"], "--to"),
        (["dota"], "dota"),
        (
            ["data", "import", "{bars}", "--to", "store", "--columns", "close"],
            "columns=close is not a column",
        ),
        (
            ["data", "import", "{bars}", "--to", "store", "--columns", "last=close"],
            "columns has unknown names ['last']",
        ),
        (
            ["data", "import", "{bars}", "--to", "store", "--timezone", "Mars"],
            "timezone=Mars is not a time zone",
        ),
        (["data", "import", "{bars}", "--to", "store", "--pad-codes", "0"], "pad_codes=0 is not a number"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tokens, says, files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *(token.format(**files) for token in tokens))
    assert code == 2
    assert says in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "store").exists()


US, CHINA = [f"T{i:02d}" for i in range(24)], [f"SH6000{i:02d}" for i in range(24)]


@pytest.mark.parametrize(
    ("names", "options", "expected"),
    [
        (US, (), ("us", None, 0.0005, "kronos_us.yaml", "us")),
        (CHINA, (), ("cn", 0.095, 0.0015, "kronos_csi300.yaml", "csi300")),
        ([f"{1000 + i}.TW" for i in range(24)], (), ("tw", 0.095, 0.004425, "kronos_csi300.yaml", "tw")),
        ([f"C{i:02d}USDT" for i in range(24)], (), ("us", None, 0.0005, "kronos_us.yaml", "crypto")),
        (CHINA, ("--region", "us", "--market", "mine"), ("us", None, 0.0005, "kronos_us.yaml", "mine")),
    ],
)
def test_the_next_command_trades_by_the_rules_of_the_region_from_any_folder(
    tmp_path, capsys, monkeypatch, names, options, expected
):
    render_template = pytest.importorskip("qlib.cli.run").render_template
    region, limit, cost, file, market = expected
    bars, index = write_bars(tmp_path / "bars.csv", names), write_bars(tmp_path / "index.csv", ["IDX"])
    monkeypatch.chdir(tmp_path)
    command = ["data", "import", bars, "--to", "store", "--benchmark", index, *options]
    code, out, err = run(capsys, *command)
    assert (code, err.strip()) == (0, "")
    settings, (program, config) = next_of(out)
    assert (program, Path(config)) == ("qrun", CONFIGS / file)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    workflow = yaml.safe_load(render_template(config))
    assert Path(workflow["qlib_init"]["provider_uri"]) == tmp_path / "store"
    assert workflow["qlib_init"]["region"] == region
    assert workflow["task"]["dataset"]["kwargs"]["market"] == market
    config = workflow["task"]["record"][2]["kwargs"]["config"]
    exchange = config["backtest"]["exchange_kwargs"]
    assert (exchange["limit_threshold"], exchange["close_cost"]) == (limit, cost)
    assert config["backtest"]["benchmark"] == "IDX"
    assert (config["strategy"]["kwargs"]["topk"], config["strategy"]["kwargs"]["n_drop"]) == (4, 1)


def test_the_next_command_of_an_import_is_one_that_the_workflow_accepts(tmp_path, capsys, monkeypatch):
    """A short store without an index: the mean of the market, and a lookback that its bars allow."""
    render_template = pytest.importorskip("qlib.cli.run").render_template
    import qlib

    from kronos_strategies.qlib.checks import check_task
    from kronos_strategies.qlib.dataset import KronosDataset

    bars = write_bars(tmp_path / "bars.csv", US, days=60)
    _, out, _ = run(capsys, "data", "import", bars, "--to", tmp_path / "store")
    settings, (_, config) = next_of(out)
    assert settings["KRONOS_LOOKBACK"] == "30"
    assert "KRONOS_BENCHMARK" in settings
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    workflow = yaml.safe_load(render_template(config))
    qlib.init(**workflow["qlib_init"] | {"skip_if_reg": False})
    check_task(workflow["task"])
    dataset = KronosDataset(**workflow["task"]["dataset"]["kwargs"])
    assert len(dataset.windows())
    assert not any("rules of region" in warning for warning in dataset.store_warnings)


def test_rules_of_another_region_than_the_stores_are_warned_of(tmp_path, capsys):
    qlib = pytest.importorskip("qlib")
    from kronos_strategies.qlib.dataset import KronosDataset

    run(capsys, "data", "import", write_bars(tmp_path / "bars.csv", US), "--to", tmp_path / "store")
    qlib.init(provider_uri=str(tmp_path / "store"), region="cn", kernels=1, skip_if_reg=False)
    dataset = KronosDataset({"test": ("2023-10-02", None)}, market="us")
    (warning,) = [each for each in dataset.store_warnings if "region" in each]
    assert "rules of region 'cn'" in warning
    assert "Set KRONOS_REGION=us" in warning


def test_new_days_are_appended(tmp_path, capsys):
    whole = pd.read_csv(write_bars(tmp_path / "all.csv", US))
    days = sorted(whole["datetime"].unique())
    for name, part in {"old": days[:250], "new": days[240:]}.items():
        whole[whole["datetime"].isin(part)].to_csv(tmp_path / f"{name}.csv", index=False)
    to = tmp_path / "store"
    assert run(capsys, "data", "import", tmp_path / "old.csv", "--to", to, "--market", "mine")[0] == 0
    code, out, err = run(capsys, "data", "import", tmp_path / "new.csv", "--to", to, "--append")
    assert (code, err.strip()) == (0, "")
    assert read_summary(to).rows == 300 * 24
    assert f"KRONOS_TEST_END={days[-1]}" in out
    assert "KRONOS_MARKET=mine" in out
    code, _, err = run(capsys, "data", "import", tmp_path / "new.csv", "--to", tmp_path / "other", "--append")
    assert (code, "has no kronos_store.json" in err) == (2, True)


def test_a_store_that_would_lose_days_or_its_benchmark_says_so_before(tmp_path, capsys):
    bars, index = write_bars(tmp_path / "bars.csv", US), write_bars(tmp_path / "index.csv", ["IDX"])
    few = write_bars(tmp_path / "few.csv", US, days=5)
    run(capsys, "data", "import", bars, "--to", tmp_path / "store", "--benchmark", index)
    code, out, _ = run(capsys, "data", "import", few, "--to", tmp_path / "store", "--overwrite")
    assert code == 0
    assert "has 300 days, 2023-01-02 to 2024-02-23, and is replaced by 5 days" in out
    assert "loses its benchmark IDX" in out
    assert out.index("loses its benchmark") < out.index("sha256")


def test_the_target_is_checked_before_files_are_read(tmp_path, capsys, monkeypatch):
    to = tmp_path / "store"
    run(capsys, "data", "import", write_bars(tmp_path / "bars.csv", US, days=30), "--to", to)
    monkeypatch.setattr("kronos_strategies.data.importer.import_bars", None)  # every call fails
    code, _, err = run(capsys, "data", "import", tmp_path / "bars.csv", "--to", to)
    assert code == 2
    assert "already contains a data directory. Choose another folder, add days (--append)" in err


def test_verify_names_a_damaged_file_and_exits_with_2(capsys, tmp_path):
    bars = make_bars(30).reset_index().assign(instrument="AAA")
    to = tmp_path / "my store"
    write_store(bars, to, membership={"m": listing_spans(bars)}, source={})
    code, out, _ = run(capsys, "data", "verify", to)
    assert (code, "files of" in out, "are intact" in out) == (0, True, True)
    path = to / "features/aaa/close.day.bin"
    path.write_bytes(path.read_bytes()[:-4])
    code, _, err = run(capsys, "data", "verify", to)
    assert code == 2
    assert f"{path} is damaged or missing" in err
    assert run(capsys, "data", "verify", tmp_path)[0] == 2
