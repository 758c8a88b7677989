import subprocess
import sys

import pandas as pd
import pytest

from .conftest import run


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["data"],
        ["data", "import"],
        ["data", "simulate"],
        ["data", "download"],
        ["data", "fetch"],
        ["forecast"],
        ["store", "fill"],
    ],
)
def test_every_help_has_an_example(command, capsys):
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert f"For example: kronos {command[0] if command else 'data'}" in out


def test_help_loads_nothing_heavy():
    script = (
        "import sys\nfrom kronos_strategies.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(f'{heavy}' if (heavy := {'pandas', 'torch', 'qlib', 'pyarrow'} & set(sys.modules)) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_offline_forbids_downloads_with_any_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # set back after the test
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    bars = tmp_path / "bars.csv"
    days = pd.bdate_range("2024-01-01", periods=40)
    price = dict.fromkeys(("open", "high", "low", "close"), 10.0)
    pd.DataFrame({"datetime": days, "instrument": "A", "volume": 1.0} | price).to_csv(bars, index=False)
    code, _, err = run(
        capsys, "forecast", bars, "--horizon", 2, "--model", "acme/tiny", "--tokenizer", "acme/t", "--offline"
    )
    assert code == 2
    assert "downloads are off: --offline" in err
    assert "hf download" in err
