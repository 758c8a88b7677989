from __future__ import annotations

import os
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from kronos_strategies.forecast_view.page import render_page
from kronos_strategies.serve.app import make_app
from kronos_strategies.serve.forecasts import Forecasts
from kronos_strategies.serve.jobs import JobRunner
from kronos_strategies.serve.reports import Reports, file_inside

from .conftest import PORT, asked

PAGE = (
    '<!doctype html><title>{title}</title><p class="eyebrow">Kronos report</p>'
    '<nav><a href="#{section}">x</a></nav>'
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder of pages, next to a secret."""
    folder = tmp_path / "out"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "report.html").write_text(PAGE.format(title="A &lt;run&gt;", section="signal"))
    (folder / "run" / "metrics.json").write_text("{}")
    (folder / "compare.html").write_text(PAGE.format(title="B against A", section="versions"))
    (folder / "other.html").write_text("<title>not ours</title>")
    (folder / "notes.txt").write_text("private")
    (tmp_path / "secret.html").write_text(PAGE.format(title="secret", section="signal"))
    (tmp_path / "out-secret").mkdir()
    (tmp_path / "out-secret" / "report.html").write_text("secret")
    return folder


def pages_of(client: TestClient) -> dict[str, dict]:
    return {page["title"]: page for page in client.get("/api/reports").json()["pages"]}


@pytest.fixture
def client(out: Path, forecasts: Forecasts, runner: JobRunner) -> TestClient:
    app = make_app(forecasts, Reports(None, [out]), runner, PORT)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}")


def test_pages_of_this_project_are_listed_by_kind_and_others_are_not(client: TestClient) -> None:
    pages = pages_of(client)
    assert {title: (page["kind"], page["source"]) for title, page in pages.items()} == {
        "A <run>": ("report", "run/report.html"),
        "B against A": ("comparison", "compare.html"),
    }


def test_the_page_of_a_forecast_is_recognized(out: Path, client: TestClient, forecasts: Forecasts) -> None:
    from kronos_strategies.serve.forecasts import ForecastRequest
    from kronos_strategies.serve.jobs import Job

    job = Job()
    forecasts.run(ForecastRequest(**asked()), job)
    (out / "picture.html").write_text(render_page([job.result.drawn.chart("AAA")]), encoding="utf-8")
    assert pages_of(client)["AAA"]["kind"] == "forecast"


def test_a_page_is_sent_in_a_sandbox_with_the_files_next_to_it(client: TestClient) -> None:
    address = pages_of(client)["A <run>"]["address"]
    page = client.get(address)
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith(
        "sandbox allow-scripts allow-downloads; default-src"
    )
    assert "allow-same-origin" not in page.headers["content-security-policy"]
    assert client.get(address.replace("report.html", "metrics.json")).json() == {}


def test_an_address_works_before_the_list_is_loaded(out: Path, client: TestClient) -> None:
    address = pages_of(client)["A <run>"]["address"]
    fresh = Reports(None, [out])
    _, _, key, path = address.split("/")
    assert fresh.find(key, path) == (out / "run" / "report.html").resolve()


@pytest.mark.parametrize(
    "path",
    [
        "../secret.html", "../../secret.html", "..%2f..%2fsecret.html", "%2e%2e/%2e%2e/secret.html",
        "%252e%252e%252fsecret.html", "..\\..\\secret.html", "..%5c..%5csecret.html", "%00", "report.html%00.csv",
        "/etc/hostname", "%2fetc%2fhostname", "../notes.txt", "../../out-secret/report.html", "", ".", "..",
        "a" * 5000,
    ],
)  # fmt: skip
def test_nothing_outside_of_the_folder_of_a_page_is_sent(path: str, client: TestClient) -> None:
    key = pages_of(client)["A <run>"]["address"].split("/")[2]
    answer = client.get(f"/reports/{key}/{path}")
    assert answer.status_code == 404
    assert "secret" not in answer.text.replace("There is no such page.", "")
    assert client.get(f"/reports/unknown/{path}").status_code == 404


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_out_of_a_folder_are_neither_listed_nor_sent(out: Path, client: TestClient) -> None:
    (out / "link.html").symlink_to(out.parent / "secret.html")
    (out / "run" / "link.html").symlink_to(out.parent / "secret.html")
    (out / "away").symlink_to(out.parent / "out-secret")
    pages = pages_of(client)
    assert "secret" not in pages
    key = pages["A <run>"]["address"].split("/")[2]
    assert client.get(f"/reports/{key}/link.html").status_code == 404
    assert file_inside(out, "away/report.html") is None
    assert file_inside(out, "link.html") is None
    assert file_inside(out, "compare.html") == (out / "compare.html").resolve()


def test_missing_folders_and_stores_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder of reports"):
        Reports(None, [tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match=r"There is no record of runs at .*mlflow\.db.*--tracking"):
        Reports(f"sqlite:///{tmp_path / 'mlflow.db'}")


def record(tracking: str, name: str, page: str, artifacts: Path) -> str:
    """A run with a report, as KronosRecord keeps it."""
    from mlflow.tracking import MlflowClient

    store = MlflowClient(tracking)
    experiment = store.create_experiment(name, artifact_location=artifacts.as_uri())
    run = store.create_run(experiment, run_name=name)
    store.log_metric(run.info.run_id, "rank_ic", 0.05)
    folder = artifacts / run.info.run_id / "artifacts" / "kronos"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(page)
    return run.info.run_id


@pytest.mark.integration
def test_runs_with_a_report_are_listed_and_only_those_inside_are_linked(
    tmp_path: Path, forecasts: Forecasts, runner: JobRunner
) -> None:
    pytest.importorskip("qlib")
    place = tmp_path / "study"
    place.mkdir()
    tracking = f"sqlite:///{place / 'mlflow.db'}"
    page = PAGE.format(title="Kronos on csi300", section="signal")
    inside = record(tracking, "inside", page, place / "mlruns")
    outside = record(tracking, "outside", page, tmp_path / "elsewhere")
    app = make_app(forecasts, Reports(tracking, [place]), runner, PORT)
    client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
    listed = client.get("/api/reports").json()
    found = {each["source"]: each for each in listed["pages"]}
    assert set(found) == {
        f"run {inside[:8]} of inside",
        f"run {outside[:8]} of outside",
    }  # files are not repeated
    linked = found[f"run {inside[:8]} of inside"]
    assert (linked["title"], linked["metrics"]) == ("Kronos on csi300", {"rank_ic": 0.05})
    assert client.get(linked["address"]).text == page
    assert found[f"run {outside[:8]} of outside"]["address"] is None
    assert "name theirs with --reports" in listed["notes"][0]
    both = Reports(tracking, [tmp_path / "elsewhere"]).pages()[0]
    assert all(each.file is not None for each in both)
