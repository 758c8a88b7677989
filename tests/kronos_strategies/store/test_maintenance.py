"""Contents, damage and garbage of a store are listed."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from kronos_strategies.store import ForecastStore
from kronos_strategies.store.files import try_lock
from kronos_strategies.store.maintenance import (
    EMBEDDINGS,
    FORECASTS,
    HEADS,
    collect_garbage,
    contents,
    find_folders,
    verify_store,
)
from kronos_strategies.store.settings import MANIFEST
from tests.kronos.builders import make_head, make_panel

from .conftest import NAMES, SAMPLING, SPEC, windows_of


@pytest.fixture(scope="module")
def filled(tmp_path_factory, predictor) -> Path:
    """A store of 15 dates of forecasts, and of outputs of a head and hidden states on three. Change a copy."""
    folder = tmp_path_factory.mktemp("filled")
    store, windows = ForecastStore(folder), windows_of(make_panel(60, *NAMES))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kronos_strategies.forecasting.CHUNK_WINDOWS", 8)
        store.fill(predictor, windows, SPEC, SAMPLING)
        store.head_outputs(predictor, make_head(predictor.model.config.d_model), windows[:12], SPEC)
        store.embeddings(predictor, windows[:12], SPEC)
    return folder


@pytest.fixture
def folder(filled, tmp_path) -> Path:
    """A copy of that store, with its times, to damage."""
    return shutil.copytree(filled, tmp_path, dirs_exist_ok=True)


def shard(folder: Path, date: str = "2024-02-14") -> Path:
    (path,) = folder.glob(f"*/*/date={date}/*.parquet")
    return path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def state(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_a_store_lists_dates_windows_and_bytes_of_each_folder(folder):
    found = {each.kind: contents(each) for each in find_folders(folder)}
    assert set(found) == {FORECASTS, HEADS, EMBEDDINGS}
    assert (len(found[FORECASTS].dates), found[FORECASTS].windows) == (15, 60)
    assert (len(found[EMBEDDINGS].dates), found[EMBEDDINGS].windows) == (3, 12)
    assert found[FORECASTS].dates[0] == pd.Timestamp("2024-02-12")
    assert found[FORECASTS].size == sum(path.stat().st_size for path in folder.glob("*/*/date=*/*.parquet"))
    assert all(each.model.startswith("kronos-nano-") for each in find_folders(folder))


def test_an_intact_store_has_no_problem_and_no_garbage(folder):
    found = verify_store(folder)
    assert (found.folders, found.files, found.problems) == (3, 21, ())
    assert found.size == sum(path.stat().st_size for path in folder.rglob("*.parquet"))
    before = state(folder)
    assert collect_garbage(folder, dry_run=False) == []
    assert state(folder) == before


@pytest.mark.parametrize("kind", [FORECASTS, HEADS, EMBEDDINGS])
def test_a_flipped_bit_in_any_kind_of_file_is_a_problem_named_by_its_path(folder, kind):
    (stored,) = (each for each in find_folders(folder) if each.kind == kind)
    (path,) = stored.date_folders()[1].glob("*.parquet")
    flip(path)
    (problem,) = verify_store(folder).problems
    assert problem.path == path
    assert "checksum" in problem.reason


def test_a_truncated_file_and_a_lost_date_are_problems(folder):
    path = shard(folder)
    path.write_bytes(path.read_bytes()[:100])
    shard(folder, "2024-02-15").unlink()
    found = verify_store(folder).problems
    assert [each.reason for each in found] == [
        "its bytes do not match its checksum", "1 of 15 dates in its manifest are missing"
    ]  # fmt: skip


def test_damaged_and_unfinished_files_are_deleted_and_the_next_fill_computes_them(folder, spy, windows):
    flip(shard(folder))
    unfinished = shard(folder, "2024-02-15").with_name(".0123-4567.parquet.ab12.tmp")
    unfinished.write_bytes(b"half")
    (manifest,) = folder.glob(f"*/*/{MANIFEST}")
    manifest.with_name(f".{MANIFEST}.ab12.tmp").write_bytes(b"{")
    before = state(folder)
    planned = collect_garbage(folder, dry_run=True)
    assert state(folder) == before, "a dry run deletes nothing"
    assert collect_garbage(folder, dry_run=False) == planned
    assert sorted(each.path.name for each in planned) == sorted(
        [f".{MANIFEST}.ab12.tmp", unfinished.name, Path(next(p for p in before if "date=2024-02-14" in p)).name,
         "date=2024-02-14"]
    )  # fmt: skip
    assert verify_store(folder).problems == ()
    assert json.loads(manifest.read_text())["data"]["dates"] == 14
    assert ForecastStore(folder).fill(spy, windows, SPEC, SAMPLING).computed == 1
    after = state(folder)
    assert after.keys() - before.keys() == set()
    assert before.keys() - after.keys() == {
        str(path.relative_to(folder)) for path in (unfinished, manifest.with_name(f".{MANIFEST}.ab12.tmp"))
    }


def test_of_two_intact_files_of_a_date_the_newer_one_stays(folder):
    path = shard(folder)
    older = path.with_name(f"{'0' * 16}-{path.name[17:]}")
    older.write_bytes(path.read_bytes())
    os.utime(older, (1, 1))
    (garbage,) = collect_garbage(folder, dry_run=False)
    assert garbage.path == older
    assert path.exists()


def test_a_date_that_a_process_is_writing_is_left_alone(folder):
    flip(shard(folder))
    (stored,) = (each for each in find_folders(folder) if each.kind == FORECASTS)
    lock = try_lock(stored.folder, "2024-02-14")
    assert lock is not None
    assert collect_garbage(folder, dry_run=False) == []
    lock.release()
    assert len(collect_garbage(folder, dry_run=False)) == 2


def test_a_folder_of_an_earlier_format_is_garbage_and_one_of_a_later_format_is_not(folder):
    (manifest,) = folder.glob(f"*/*/{MANIFEST}")
    content = json.loads(manifest.read_text())
    for written, count in ((5, 0), (3, 1)):
        content["settings"]["format"] = written
        manifest.write_text(json.dumps(content))
        assert len(verify_store(folder).problems) == 1
        assert len(collect_garbage(folder, dry_run=False)) == count
    assert not manifest.parent.exists()
    assert len(find_folders(folder)) == 2


def test_files_that_are_not_of_the_store_are_kept(folder):
    foreign = shard(folder).parent / "notes.txt"
    foreign.write_text("mine")
    flip(shard(folder))
    assert len(collect_garbage(folder, dry_run=False)) == 1
    assert foreign.read_text() == "mine"


def test_a_damaged_manifest_is_written_again_by_the_next_fill(folder, spy, windows, caplog):
    (manifest,) = folder.glob(f"*/*/{MANIFEST}")
    for content in ("", "{", "[1]", "\x00" * 10):
        manifest.write_text(content)
        assert [each.path for each in verify_store(folder).problems] == [manifest]
        assert ForecastStore(folder).fill(spy, windows, SPEC, SAMPLING).computed == 0
        assert verify_store(folder).problems == ()


def test_a_damaged_date_is_computed_again_with_a_line_that_says_so(folder, predictor, windows, caplog):
    flip(shard(folder))
    with caplog.at_level(logging.WARNING):
        ForecastStore(folder).fill(predictor, windows, SPEC, SAMPLING)
        assert "date=2024-02-14 is damaged" in caplog.text
        caplog.clear()
        ForecastStore(folder).fill(predictor, windows, SPEC, SAMPLING)
        assert caplog.text == ""
        (hidden,) = folder.glob("*/embeddings/*/date=2024-02-12/*.parquet")
        flip(hidden)
        ForecastStore(folder).embeddings(predictor, windows[:12], SPEC)
    assert "date=2024-02-12 is damaged" in caplog.text
    assert verify_store(folder).problems == ()


def test_a_path_that_is_not_a_folder_is_refused_by_name(tmp_path):
    for call in (find_folders, verify_store, lambda store: collect_garbage(store, dry_run=True)):
        with pytest.raises(FileNotFoundError, match="nothing is not a folder"):
            call(tmp_path / "nothing")


def test_a_link_to_elsewhere_is_neither_verified_nor_deleted(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "precious.parquet").write_text("mine")
    forecasts = shard(folder).parents[1]
    (forecasts / "date=2024-06-01").symlink_to(outside, target_is_directory=True)
    assert verify_store(folder).problems == ()
    assert collect_garbage(folder, dry_run=False) == []
    assert (outside / "precious.parquet").read_text() == "mine"


def test_a_folder_that_is_not_a_date_is_a_problem_and_does_not_stop_the_list(folder):
    odd = shard(folder).parents[1] / "date=soon"
    odd.mkdir()
    (odd / "a.parquet").write_text("x")
    assert [each.reason for each in verify_store(folder).problems] == ["its name is not a date"]
    (stored,) = (each for each in find_folders(folder) if each.kind == FORECASTS)
    assert len(contents(stored).dates) == 15
