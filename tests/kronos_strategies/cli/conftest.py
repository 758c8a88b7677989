"""The command line, run in this process."""

from contextlib import redirect_stderr, suppress
from io import StringIO

import pytest

from kronos_strategies.cli import main


@pytest.fixture(scope="session", autouse=True)
def gym_loaded():
    """Gym, which Qlib imports, writes once per process that it is old: not into the output of the first command."""
    with suppress(ImportError), redirect_stderr(StringIO()):
        import gym  # noqa: F401


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
