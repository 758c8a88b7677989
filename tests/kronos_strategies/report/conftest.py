"""Reports over simulated markets, by the real studies."""

import pytest

pytest.importorskip("plotly")
pytest.importorskip("jinja2")
pytest.importorskip("statsmodels")
pytest.importorskip("arch")

from kronos_strategies.report.report import Report
from tests.kronos_strategies.report.simulated import Simulated


@pytest.fixture(scope="session")
def simulated() -> Simulated:
    """A year of 40 names."""
    return Simulated(dates=260, names=40)


@pytest.fixture(scope="session")
def report(simulated) -> Report:
    """A report with every evaluation."""
    return Report(
        title="Kronos on csi300",
        sample_counts={"member rows": 12000, "no trade that day": 345, "compared": 11655},
        provenance={"model": "kronos-nano", "data sha256": "0f" * 32},
        warnings=["These data are simulated."],
        signal=simulated.signal(),
        distribution=simulated.distribution(),
        portfolio=simulated.portfolio(),
        versions=simulated.versions(),
    )
