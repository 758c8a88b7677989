"""A store at a URL: in memory, and on an S3 server on loopback."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("upath", reason="universal_pathlib is not installed")

from kronos.utils import MissingExtra
from kronos_strategies.distributed import worker_pool
from kronos_strategies.store import CorruptFileError, ForecastSet, ForecastStore
from kronos_strategies.store.files import date_files
from kronos_strategies.store.location import as_location, is_remote, is_url

from .conftest import SAMPLING, SPEC, Spy, windows_of


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a server on loopback, which other processes find, too."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        as_location("s3://bucket").mkdir()
        yield "s3://bucket"
    running.stop()


@pytest.fixture(params=["memory", "s3"])
def url(request) -> str:
    """An empty folder of each kind."""
    base = request.getfixturevalue("s3") if request.param == "s3" else "memory://stores"
    return f"{base}/{request.node.name.partition('[')[0]}"


def content(store: str | Path) -> dict[str, bytes]:
    """Bytes of each file of forecasts."""
    location = as_location(store)
    sets = ForecastStore(store).forecast_sets()
    files = [path for each in sets for path in date_files(each.folder)]
    return {str(path)[len(str(location)) :]: path.read_bytes() for path in files}


def test_a_store_at_a_url_holds_the_bytes_of_a_local_one(url, tmp_path, predictor, windows):
    remote, local = ForecastStore(url), ForecastStore(tmp_path)
    there, here = (store.fill(predictor, windows, SPEC, SAMPLING) for store in (remote, local))
    assert content(url) == content(tmp_path)
    assert (there.computed, len(there.forecast_set)) == (15, 15)
    assert there.forecast_set.dates.equals(here.forecast_set.dates)
    assert there.forecast_set.size == here.forecast_set.size
    assert there.forecast_set.manifest == here.forecast_set.manifest
    pd.testing.assert_frame_equal(there.forecast_set.frame(), here.forecast_set.frame())
    for ours, theirs in zip(there, here, strict=True):
        np.testing.assert_array_equal(ours.paths, theirs.paths)
    again = ForecastSet(str(there.forecast_set.folder))
    assert again.settings == here.forecast_set.settings
    assert not list(there.forecast_set.folder.glob("_locks/*")), "no locks"


def test_a_second_fill_computes_only_what_is_missing_or_changed(url, spy, panel, windows):
    store = ForecastStore(url)
    store.fill(spy, windows_of(panel, "2024-02-23"), SPEC, SAMPLING)
    spy.asked.clear()
    assert store.fill(spy, windows, SPEC, SAMPLING).computed == 5
    panel["AAA"].loc["2024-02-26", "volume"] *= 2
    spy.asked.clear()
    filled = store.fill(spy, windows_of(panel), SPEC, SAMPLING)
    assert len(filled.found.changed) == filled.computed == 5
    assert len(date_files(filled.forecast_set.folder)) == 15, "older objects are removed"


def test_an_incomplete_object_is_found_on_reading_and_an_unknown_one_is_replaced(url, predictor, windows):
    filled = ForecastStore(url).fill(predictor, windows, SPEC, SAMPLING)
    first, second, *_ = date_files(filled.forecast_set.folder)
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match=r"is damaged: its bytes do not match"):
        filled.forecast_set.read(filled.forecast_set.dates[0])
    (second.parent / "notes.parquet").write_bytes(b"1")
    again = ForecastStore(url).fill(predictor, windows, SPEC, SAMPLING)
    assert again.found.damaged == (filled.forecast_set.dates[1],)
    assert len(list(second.parent.glob("*"))) == 1


def test_two_objects_of_the_same_windows_are_one_date(url, predictor, windows):
    """Without locks, processors that round differently may both store a date."""
    filled = ForecastStore(url).fill(predictor, windows, SPEC, SAMPLING)
    file, *_ = date_files(filled.forecast_set.folder)
    (file.parent / f"{file.name[:17]}{'f' * 16}.parquet").write_bytes(b"1")
    assert ForecastStore(url).fill(Spy(predictor), windows, SPEC, SAMPLING).computed == 0
    assert len(filled.forecast_set.dates) == 15
    assert len(filled.forecast_set.read(filled.forecast_set.dates[0])) == 4


@pytest.mark.integration
def test_worker_processes_fill_a_bucket_with_the_bytes_of_one_process(s3, tmp_path, predictor, windows):
    url = f"{s3}/workers"
    filled = ForecastStore(url).fill(predictor, windows, SPEC, SAMPLING, pool=worker_pool(2))
    assert filled.computed == 15
    ForecastStore(tmp_path).fill(predictor, windows, SPEC, SAMPLING)
    assert content(url) == content(tmp_path)


def test_a_bucket_that_does_not_exist_is_one_sentence(s3, predictor, windows):
    with pytest.raises(OSError, match=r"^s3://nowhere/x.* cannot be reached: .*Check the URL") as caught:
        ForecastStore("s3://nowhere/x").fill(predictor, windows, SPEC, SAMPLING)
    assert "\n" not in str(caught.value)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match=r"^s4://bucket cannot be opened: .*s3://bucket/name"):
        ForecastStore("s4://bucket")


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("s3://b/x", "s3fs", "s3"), ("gs://b/x", "gcsfs", "gcs"), ("s3://b/x", "upath", "s3")],
)
def test_a_missing_package_is_one_sentence_with_its_extra(monkeypatch, url, module, extra):
    found = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == module:
            raise ImportError(f"No module named '{module}'", name=module)
        return found(name, *arguments, **options)

    from fsspec.registry import _registry

    for protocol in ("s3", "gs"):
        monkeypatch.delitem(_registry, protocol, raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"^{url} needs .*pip install 'kronos-strategies\[{extra}\]'"):
        ForecastStore(url)


def test_a_local_folder_is_a_path_and_a_url_is_not(tmp_path):
    assert as_location("~/forecasts") == Path("~/forecasts").expanduser()
    assert as_location(tmp_path) is not None
    assert not is_remote(as_location(tmp_path))
    assert as_location("file:///tmp/a") == Path("/tmp/a")
    assert is_remote(as_location("memory://a/b"))
    assert [is_url(text) for text in ("s3://a", "C:\\a", "a/b://c", "file:///a")] == [
        True,
        False,
        False,
        True,
    ]
