"""Imports of the adapter, and its error without Backtrader."""

import subprocess
import sys

import pytest

import kronos_strategies.backtrader as adapter


def after(statement: str, *modules: str) -> list[str]:
    """Those of `modules` that a fresh interpreter has loaded after `statement`."""
    script = f"import sys\n{statement}\nprint(*[m for m in {modules!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_rest_of_the_package_does_not_import_backtrader():
    assert after("import kronos_strategies", "backtrader", "torch") == []


def test_the_adapter_imports_neither_torch_nor_matplotlib():
    statement = "from kronos_strategies.backtrader import KronosIndicator, KronosBand, ForecastData"
    assert after(statement, "backtrader", "torch", "matplotlib", "qlib") == ["backtrader"]


def test_without_backtrader_the_error_names_the_extra():
    script = "import sys; sys.modules['backtrader'] = None; import kronos_strategies.backtrader"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("kronos.utils.MissingExtra")
    assert last.endswith("pip install 'kronos-strategies[backtrader]'")


@pytest.mark.parametrize("name", adapter.__all__)
def test_every_public_name_exists_and_has_a_docstring(name):
    assert getattr(adapter, name).__doc__


def test_the_public_names_are_in_order():
    assert adapter.__all__ == sorted(adapter.__all__)
