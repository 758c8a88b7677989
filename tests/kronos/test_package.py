"""The modules that `import kronos` loads, and its public names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kronos


def loads_torch(statement: str) -> bool:
    """Whether a fresh interpreter has torch after `statement`."""
    script = f"import sys\n{statement}\nprint('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return run.stdout.strip() == "True"


@pytest.mark.integration
@pytest.mark.parametrize(
    "statement",
    [
        "import kronos",
        "import kronos.bars, kronos.windows, kronos.forecast, kronos.config",
        "import kronos.calibration, kronos.paths, kronos.postprocessing, kronos_strategies.calibration",
        "from kronos import ReturnHead",
    ],
)
def test_bars_windows_forecasts_and_settings_need_no_torch(statement: str) -> None:
    assert not loads_torch(statement)


@pytest.mark.integration
def test_a_network_brings_torch_in_with_its_first_use() -> None:
    assert loads_torch("import kronos; kronos.Kronos")


def test_every_public_name_exists_and_has_the_same_name_in_its_module() -> None:
    for name in kronos.__all__:
        assert getattr(getattr(kronos, name), "__name__", name) == name


def test_the_public_names_are_listed_in_order_and_are_what_dir_shows() -> None:
    constants_first = sorted(kronos.__all__, key=lambda name: (not name.isupper(), name))
    assert kronos.__all__ == constants_first
    assert dir(kronos) == sorted([*kronos.__all__, "__version__"])  # as Python sorts it


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Chronos'.*KronosPredictor"):
        kronos.Chronos  # noqa: B018 (the access is the test)
