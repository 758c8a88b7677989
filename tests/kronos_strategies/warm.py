"""Scripts in processes of their own that need not load Qlib, MLflow and torch again, which takes five seconds each.

A server loads them once and forks for each script. A process forked from it differs from one that the shell starts
only in what is loaded already; it has its own memory, environment, folder, output, exit hooks and exit code.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT = 600  # seconds that a script may take
FORKS = (
    sys.platform == "linux"
)  # elsewhere each script loads everything itself: macOS libraries do not survive a fork
LOADED = (
    "qlib.cli.run",
    "qlib.contrib.strategy",
    "mlflow.store.tracking.sqlalchemy_store",
    "kronos_strategies.cli",
    "kronos_strategies.comparison_inputs",
    "kronos_strategies.qlib.record",
    "lightgbm",
    "accelerate",
)


class Script:
    """A running script.

    Args:
        words: a file of Python code and its arguments.
        folder: its working directory.
        environment: all of its environment variables.
    """

    def __init__(self, words: Sequence[object], folder: Path, environment: Mapping[str, str]) -> None:
        self.words = [str(word) for word in words]
        self.output = tempfile.TemporaryDirectory()
        self.files = [Path(self.output.name, name) for name in ("stdout", "stderr")]
        for file in self.files:
            file.touch()
        self.process: subprocess.Popen[str] | None = None
        self.code: int | None = None
        if FORKS:
            more = {"folder": str(folder), "files": [str(file) for file in self.files]}
            self.pid = _ask(words=self.words, environment=dict(environment), **more)
        else:
            with self.files[0].open("w") as out, self.files[1].open("w") as err:
                command = [sys.executable, *self.words]
                self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self.code is None:
            self.code = self.process.poll() if self.process else _ask(pid=self.pid, wait=False)
        return self.code

    def kill(self) -> None:
        """End it at once, as `kill -9` does."""
        if self.process:
            self.process.kill()
        elif self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def finished(self) -> subprocess.CompletedProcess[str]:
        """Its exit code and output, once it has ended."""
        if self.poll() is None:
            self.code = self.process.wait(LIMIT) if self.process else _ask(pid=self.pid, wait=True)
        with self.output:
            out, err = (file.read_text() for file in self.files)
        return subprocess.CompletedProcess(self.words, int(self.code or 0), out, err)


def run_warm(
    words: Sequence[object], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end; see `Script`."""
    return Script(words, folder, environment).finished()


@cache
def _server() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.kronos_strategies.warm"]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("KRONOS_", "MLFLOW_"))}
    server = subprocess.Popen(
        command, cwd=ROOT, env=plain, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)  # it ends at the end of its input
    return server


def _ask(**what: object) -> Any:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(what) + "\n")
    server.stdin.flush()
    line = server.stdout.readline()
    if not line:
        raise RuntimeError(f"The server of warm processes has ended with code {server.wait()}.")
    return json.loads(line)


def _serve() -> list[str]:
    """Answer each line with the id of the process that it starts, or with the exit code that it asks for.

    Returns in the processes that it starts, with their words.
    """
    before = set(os.environ)
    gc.disable()
    for name in LOADED:
        # Without an extra some are absent; Qlib's Gym says that it is old.
        with suppress(ImportError), redirect_stderr(StringIO()):
            importlib.import_module(name)
    set_by_imports = {name: value for name, value in os.environ.items() if name not in before}
    gc.enable()
    gc.freeze()  # neither this process nor those forked from it look through these objects again
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        if "pid" in asked:
            ended, status = os.waitpid(asked["pid"], 0 if asked["wait"] else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif (answer := os.fork()) == 0:
            asked["environment"] = set_by_imports | asked["environment"]
            _become(**asked)
            return asked["words"]
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    sys.exit()


def _become(words: list[str], folder: str, environment: dict[str, str], files: list[str]) -> None:
    """Turn this process into one that was started with these words."""
    signal.alarm(LIMIT)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    sys.argv = words
    sys.path[0] = str(Path(words[0]).parent)
    sys.path[1:1] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]


if __name__ == "__main__":
    runpy.run_path(_serve()[0], run_name="__main__")
