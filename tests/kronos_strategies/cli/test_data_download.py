import hashlib
import json
import sys

import pandas as pd
import pytest

from kronos_strategies.data import community_build
from kronos_strategies.data.community_build import ARCHIVE
from tests.kronos_strategies.data.file_server import serving
from tests.kronos_strategies.data.test_community_build import pack, store_files

from .conftest import run


@pytest.fixture(autouse=True)
def online(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_download_says_how_it_was_verified_and_what_to_run_next(tmp_path, capsys):
    content = pack(store_files(tmp_path / "made"))
    to = tmp_path / "csi300"
    with serving() as server:
        server.files["/mirror.tar.gz"] = content
        server.breaks = [len(content) // 2]
        url = f"{server.address}/mirror.tar.gz"
        code, out, err = run(capsys, "data", "download", "csi300", "--to", to, "--url", url)
        assert (code, err.strip()) == (0, "")
        flat = " ".join(out.split())
        assert "Note: the hash is not verified, as none is published" in flat
        assert hashlib.sha256(content).hexdigest() in out.replace("\n", "")
        assert f"Next: KRONOS_QLIB_DATA={to}" in out
        assert "kronos_csi300.yaml" in out
        options = ["--url", url, "--overwrite", "--sha256", hashlib.sha256(content).hexdigest()]
        code, out, _ = run(capsys, "data", "download", "csi300", "--to", to, *options)
        assert code == 0
        assert "the hash is verified: as --sha256 says" in " ".join(out.split())
    assert (to / "calendars" / "day.txt").is_file()


def test_without_a_connection_the_reason_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(community_build, "RELEASES", "http://127.0.0.1:9/releases")
    code, out, err = run(capsys, "data", "download", "csi300", "--to", tmp_path / "csi300")
    assert (code, out) == (2, "")
    assert "127.0.0.1 cannot be reached" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = run(capsys, "data", "download", "csi300", "--to", tmp_path / "csi300", "--offline")
    assert code == 2
    assert "--offline or HF_HUB_OFFLINE forbids downloads" in err
    assert not (tmp_path / "csi300").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--release", "2024-01-01", "--url", "https://x/y"], "each name an archive"),
        (["--sha256", "abc"], "not a hash of 64"),
        (["--url", "http://example.com/x.tar.gz"], "is not https"),
        (["--file", "nowhere.tar.gz"], "There is no file"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_asked(options, message, tmp_path, capsys):
    code, _, err = run(capsys, "data", "download", "csi300", "--to", tmp_path / "csi300", *options)
    assert code == 2
    assert message in err


def test_an_archive_on_the_disk_is_unpacked_without_a_connection(tmp_path, capsys):
    file = tmp_path / ARCHIVE
    file.write_bytes(pack(store_files(tmp_path / "made")))
    to = tmp_path / "csi300"
    code, _, err = run(capsys, "data", "download", "csi300", "--to", to, "--file", file, "--offline")
    assert (code, err.strip()) == (0, "")
    assert file.exists()
    assert json.loads((to / "kronos_download.json").read_text())["source"] == str(file)


def test_fetched_bars_are_imported_by_the_command_that_is_printed(tmp_path, capsys, monkeypatch):
    pytest.importorskip("akshare")
    days = pd.bdate_range("2024-01-01", "2024-03-29")

    def asked(symbol, period, start_date, end_date, adjust=""):
        """The columns of akshare's function."""
        if symbol != "600519":
            return pd.DataFrame()
        close = 1710.0 * (2 if adjust else 1)
        prices = {"开盘": close, "收盘": close, "最高": close + 1, "最低": close - 1}
        return pd.DataFrame(
            {"日期": days.date, "股票代码": symbol} | prices | {"成交量": 20000, "成交额": 3.42e9}
        )

    monkeypatch.setattr("akshare.stock_zh_a_hist", asked)
    to = tmp_path / "bars"
    span = ["--start", "2024-01-01", "--end", "2024-03-29", "--to", to]
    code, out, err = run(
        capsys, "data", "fetch", "--source", "akshare", "--symbols", "600519", "999999", *span
    )
    assert (code, err.strip()) == (0, "")
    flat = " ".join(out.split())
    assert "nothing of 999999: no bars in the span." in flat
    assert "dates of Shanghai" in flat
    command = out.rpartition("Next: ")[2].split()
    assert command[:3] == ["kronos", "data", "import"]
    code, out, err = run(capsys, *command[1:])
    assert (code, err.strip()) == (0, "")
    assert "1 instruments" in out


def test_a_source_without_its_library_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ccxt", None)
    span = ["--start", "2024-01-01", "--end", "2024-01-31", "--to", tmp_path]
    code, _, err = run(capsys, "data", "fetch", "--source", "ccxt", "--symbols", "BTC/USDT", *span)
    assert code == 2
    assert err.strip() == "--source ccxt needs its library: pip install 'kronos-strategies[ccxt]'"
