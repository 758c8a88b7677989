"""A browser to look at pages, and a store of random walks."""

import shutil

import pytest


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


@pytest.fixture(scope="session")
def walk_market():
    """Half a year of 24 instruments."""
    from kronos_strategies.data.simulate import MarketConfig, simulate_market

    return simulate_market(
        MarketConfig(seed=3, instruments=24, sectors=4, start="2022-09-01", end="2023-03-31")
    )


@pytest.fixture(scope="session")
def walk_folder(walk_market, tmp_path_factory):
    """A Qlib directory `qlib`, the same bars as `bars.parquet`, and a store `forecasts` of three months."""
    from kronos_strategies.data.qlib_store import write_store
    from kronos_strategies.store import ForecastStore

    from .backtest.walks import SPEC, RandomWalks, windows_of

    folder = tmp_path_factory.mktemp("backtest")
    write_store(
        walk_market.bars,
        folder / "qlib",
        membership={"csi300": walk_market.membership},
        benchmarks=walk_market.benchmark,
        source={"kind": "test", "region": "cn"},
    )
    walk_market.bars.to_parquet(folder / "bars.parquet")
    ForecastStore(folder / "forecasts").fill(
        RandomWalks(), windows_of(walk_market), SPEC, RandomWalks.sampling
    )
    return folder
