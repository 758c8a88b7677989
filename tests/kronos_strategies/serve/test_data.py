from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from kronos_strategies.data.qlib_store import write_store
from kronos_strategies.data.simulate import MarketConfig, simulate_market
from kronos_strategies.serve.data import FileData, QlibData, offer_data
from tests.kronos.builders import make_bars

from .conftest import NAMES


def test_each_path_is_a_choice_and_a_qlib_directory_has_one_per_market(folder: Path, tmp_path: Path) -> None:
    market = simulate_market(
        MarketConfig(seed=3, instruments=6, sectors=2, start="2022-07-01", end="2022-12-30")
    )
    write_store(
        market.bars, tmp_path / "store", membership={"csi300": market.membership}, source={"kind": "test"}
    )
    offered = offer_data([folder / "daily", tmp_path / "store"])
    assert list(offered) == ["0", "1", "2"]
    assert [Path(data.label).name for data in offered.values()] == ["daily", "store · csi300", "store · all"]
    spans = offered["1"].listing().spans
    assert {span.instrument for span in spans} == set(market.membership["instrument"])
    date = pd.Timestamp("2022-11-01")
    assert offered["1"].members(date) == sorted(
        span.instrument for span in spans if span.first <= date <= span.last
    )
    names = [span.instrument for span in spans[:2]]
    read = offered["1"].read(names)
    assert (list(read.bars), read.calendar is not None) == (names, True)


def test_files_are_listed_with_their_first_and_last_bar(folder: Path) -> None:
    listing = FileData(folder / "daily").listing()
    index = make_bars(80).index
    assert [span.instrument for span in listing.spans] == sorted(NAMES)
    assert {(span.first, span.last) for span in listing.spans} == {(index[0], index[-1])}
    assert not listing.intraday
    assert FileData(folder / "intraday").listing().intraday


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "AAA.csv"
    make_bars(30).to_csv(file)
    data = FileData(tmp_path)
    first = data.read(["AAA"]).bars["AAA"]
    assert data.read(["AAA"]).bars["AAA"] is first
    make_bars(40).to_csv(file)
    assert len(data.read(["AAA"]).bars["AAA"]) == 40
    make_bars(30, 1).to_csv(tmp_path / "BBB.csv")
    assert [span.instrument for span in data.listing().spans] == ["AAA", "BBB"]


def test_members_of_a_date_are_those_with_a_bar_then(tmp_path: Path) -> None:
    make_bars(30).to_csv(tmp_path / "AAA.csv")
    make_bars(20).to_csv(tmp_path / "BBB.csv")
    data, index = FileData(tmp_path), make_bars(30).index
    assert data.members(index[10]) == ["AAA", "BBB"]
    assert data.members(index[25]) == ["AAA"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_out_of_a_folder_or_a_pattern_are_not_followed(tmp_path: Path) -> None:
    make_bars(30).to_csv(tmp_path / "secret.csv")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "LINK.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(FileNotFoundError, match="contains only links to other places"):
        FileData(inside)
    make_bars(30).to_csv(inside / "AAA.csv")
    for path in (inside, inside / "*.csv"):
        assert [span.instrument for span in FileData(path).listing().spans] == ["AAA"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_bars_of_a_qlib_directory_outside_of_it_are_not_read(tmp_path: Path) -> None:
    market = simulate_market(
        MarketConfig(seed=3, instruments=6, sectors=2, start="2022-07-01", end="2022-12-30")
    )
    store = tmp_path / "store"
    write_store(market.bars, store, membership={"csi300": market.membership}, source={"kind": "test"})
    data = QlibData(store, "csi300")
    name = data.listing().spans[0].instrument
    moved = tmp_path / "elsewhere"
    (store / "features" / name.lower()).rename(moved)
    (store / "features" / name.lower()).symlink_to(moved)
    with pytest.raises(ValueError, match="has no instrument"):
        data.read([name])
    with pytest.raises(ValueError, match="has no instrument '\\*'"):
        data.read(["*"])


def test_wrong_paths_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is neither a file nor a folder"):
        offer_data([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="There are no bars to forecast"):
        offer_data([])
    (tmp_path / "model" / "settings").mkdir(parents=True)
    (tmp_path / "model" / "settings" / "_manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is a forecast store"):
        offer_data([tmp_path])
