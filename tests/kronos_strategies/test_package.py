"""The public names of `import kronos_strategies`, and the modules that it loads."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import kronos
import kronos.compat
import kronos_strategies

ROOT = Path(__file__).parents[2]
PROJECT = dict(
    re.findall(r'^(\w+) = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
)
DOCUMENTED = re.findall(
    r"^::: ([\w.]+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE
)
HEAVY = ("torch", "qlib", "backtrader", "pandas", "numpy", "mlflow", "plotly")


@pytest.mark.integration
def test_importing_the_package_loads_no_heavy_dependency() -> None:
    script = f"import sys, kronos_strategies\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.integration
def test_every_public_name_is_imported_without_torch_or_an_engine() -> None:
    script = (
        "import sys, kronos_strategies as package\nfor name in package.__all__: getattr(package, name)\n"
        "print(*[m for m in ('torch', 'qlib', 'backtrader') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_exists_and_has_a_docstring() -> None:
    for name in kronos_strategies.__all__:
        public = getattr(kronos_strategies, name)
        assert public.__name__ == name
        assert public.__doc__
        assert public.__module__.startswith(kronos_strategies._MODULES[name])


def test_the_public_names_are_in_order_and_are_what_dir_shows() -> None:
    assert kronos_strategies.__all__ == sorted(kronos_strategies.__all__)
    assert set(dir(kronos_strategies)) == {*kronos_strategies.__all__, "__version__"}


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(
        AttributeError, match=r"no attribute 'KronosModle'.*ForecastStore.*kronos_strategies\.qlib"
    ):
        kronos_strategies.KronosModle  # noqa: B018 (the access is the test)


def test_the_reference_documents_every_public_name() -> None:
    for package in (kronos, kronos_strategies):
        assert {f"{package.__name__}.{name}" for name in package.__all__} <= set(DOCUMENTED)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_reference_documents_only_what_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    if module.startswith("kronos_strategies.qlib"):
        pytest.importorskip("qlib")
    if module.startswith("kronos_strategies.backtrader"):
        pytest.importorskip("backtrader")
    assert getattr(import_module(module), attribute).__doc__


def test_version_and_address_are_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert kronos.__version__ == kronos_strategies.__version__
    assert citation["version"] == PROJECT["version"]
    assert citation["repository-code"] == PROJECT["Repository"]
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"repo_url: {PROJECT['Repository']}\n" in site
    assert f"site_url: {PROJECT['Documentation']}\n" in site
