import dataclasses

from kronos_strategies.data import simulate
from kronos_strategies.data.qlib_store import read_summary, write_store
from kronos_strategies.data.simulate import (
    MarketConfig,
    data_warnings,
    default_store,
    ensure_store,
    simulate_market,
    write_simulated,
)
from kronos_strategies.data.validation import LISTING, listing_spans

SMALL = MarketConfig(instruments=12, end="2021-06-30")


def test_the_default_store_lies_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_store() == tmp_path / "kronos-strategies" / "simulated-v2"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_store() == tmp_path / ".cache" / "kronos-strategies" / "simulated-v2"


def test_the_store_is_made_on_first_use_and_then_kept(tmp_path):
    path = ensure_store(tmp_path / "deep" / "store")
    made = read_summary(path)
    assert made.source == {"kind": "simulation", "version": 2, "config": dataclasses.asdict(MarketConfig())}

    manifest = path / "kronos_store.json"
    written = manifest.stat().st_mtime_ns
    ensure_store(path)
    assert manifest.stat().st_mtime_ns == written


def test_a_simulated_store_says_so_and_how_to_give_real_bars(tmp_path):
    write_simulated(tmp_path / "store", SMALL, "csi300")
    (notice,) = data_warnings(tmp_path / "store")
    assert "SIMULATED" in notice
    assert "kronos data import" in notice


def test_the_loser_of_a_race_uses_the_winners_store(monkeypatch, tmp_path):
    path = tmp_path / "store"

    def while_the_other_finishes(config):
        monkeypatch.undo()
        write_simulated(path, SMALL, "csi300")
        return simulate_market(config)

    monkeypatch.setattr(simulate, "simulate_market", while_the_other_finishes)
    assert ensure_store(path) == path
    assert read_summary(path).source["config"] == dataclasses.asdict(SMALL)
    assert [child.name for child in tmp_path.iterdir()] == ["store"]


def test_a_store_of_real_bars_is_not_called_simulated(bars, tmp_path):
    write_store(bars, tmp_path / "store", membership={"m": listing_spans(bars)}, source={"kind": "import"})
    assert data_warnings(tmp_path / "store") == []
    assert data_warnings(tmp_path / "no store") == []


def test_a_store_without_dated_membership_warns_of_survivors(bars, tmp_path):
    source = {"kind": "import", "membership": LISTING}
    write_store(bars, tmp_path / "store", membership={"m": listing_spans(bars)}, source=source)
    (notice,) = data_warnings(tmp_path / "store")
    assert "survivors" in notice
    assert "--membership" in notice
