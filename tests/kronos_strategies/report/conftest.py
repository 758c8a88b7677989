"""Reports over simulated markets, by the real studies; and a browser to look at their pages."""

import shutil

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
    """Of every study."""
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


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium with its chromedriver; apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={profile}", "--window-size=1280,900",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    session = webdriver.Chrome(options, webdriver.ChromeService(executable_path=driver))
    yield session
    session.quit()
