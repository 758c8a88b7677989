import subprocess
import sys

import pytest

from .conftest import run


@pytest.mark.parametrize(
    "command",
    [[], ["data"], ["data", "import"], ["data", "simulate"], ["forecast"], ["picks"], ["store", "fill"]],
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
