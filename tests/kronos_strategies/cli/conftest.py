"""The command line, run in this process."""

import pytest

from kronos_strategies.cli import main


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory, monkeypatch):
    """A working directory for each test, where a record of runs may be made; MLflow sets the variable itself."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def run(capsys, *tokens) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `kronos TOKENS`."""
    try:
        main([str(token) for token in tokens])
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()
