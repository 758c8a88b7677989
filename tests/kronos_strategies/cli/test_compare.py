"""`kronos compare` as a user, or a CI, runs it on files of scores."""

import json
import re

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("arch")

from kronos_strategies.evaluation.comparison.comparison import compare_versions
from kronos_strategies.evaluation.comparison.version import Version
from tests.kronos_strategies.evaluation.comparison.planted import drawn, rows, version

from .conftest import run

INDEX = rows(dates=150)
LABEL = drawn(INDEX, 0)
SCORES = {
    "old": version("old", LABEL, 0.1, 1).score,
    "new": version("new", LABEL, 0.3, 2).score,
    "bad": version("bad", LABEL, -0.1, 3).score,
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Scores, a copy of the old ones, and labels, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, score in {**SCORES, "copy": SCORES["old"]}.items():
        score.rename("score").to_frame().to_parquet(f"{name}.parquet")
    LABEL.rename("label").to_frame().to_parquet("label.parquet")
    return tmp_path


def compare(capsys, *names, **options):
    """Run `kronos compare` with the labels; an option given as a list is repeated."""
    given = {"labels": "label.parquet", **options}
    flags = [
        word
        for name, values in given.items()
        for value in (values if isinstance(values, list) else [values])
        for word in (f"--{name.replace('_', '-')}", value)
    ]
    return run(capsys, "compare", *(f"{name}.parquet" for name in names), *flags)


def line(out: str, version: str, block: int = 0) -> list[str]:
    """Cells of a version's row in one of the tables."""
    found = re.findall(rf"^ ?{version} .*$", out, flags=re.M)
    return re.split(r"  +", found[block].strip())


def test_the_command_prints_one_table_per_metric_and_exits_with_0(files, capsys):
    code, out, err = compare(capsys, "old", "new")
    assert (code, err) == (0, "")
    assert re.findall(r"^(ic|rank_ic|spread) *$", out, flags=re.M) == ["ic", "rank_ic", "spread"]
    truth = compare_versions([Version("old", SCORES["old"]), Version("new", SCORES["new"])], LABEL, 1).table
    row = truth.query("version == 'new' and metric == 'rank_ic'").iloc[0]
    cells = line(out, "new", block=1)
    assert [cells[0], cells[1], cells[2]] == ["new", f"{row['mean']:.3f}", f"{row['difference']:.3f}"]
    assert cells[3] == f"{row['difference_low']:.3f} to {row['difference_high']:.3f}"
    assert cells[4:] == ["<0.001", "<0.001", "yes", f"{row['detectable']:.3f}"]
    assert line(out, "old", block=1)[2:4] == ["reference", "–"]
    assert "Sample: 4,500 rows of any version, 4,500 compared, on 150 dates" in out


def test_json_has_the_metrics_of_the_python_function(files, capsys):
    code, out, _ = compare(capsys, "old", "new", json="out/figures.json", gate=["rank_ic>=-0.005", "ic>=0"])
    result = json.loads((files / "out/figures.json").read_text(), parse_constant=pytest.fail)
    truth = compare_versions([Version("old", SCORES["old"]), Version("new", SCORES["new"])], LABEL, 1)
    gates = result.pop("gates")
    assert {key: result[key] for key in result if key != "provenance"} == {
        key: value for key, value in truth.as_dict().items() if key != "provenance"
    }
    assert [(gate["gate"], gate["version"], gate["passed"]) for gate in gates] == [
        ("rank_ic>=-0.005", "new", True),
        ("ic>=0", "new", True),
    ]
    assert gates[0]["difference"] == result["metrics"]["rank_ic"]["new"]["difference"] < gates[0]["bound"]
    assert result["provenance"]["new"]["file"] == "new.parquet"
    assert "Wrote out/figures.json" in out
    assert code == 0


def test_a_worse_version_fails_the_gate_after_everything_is_written(files, capsys):
    code, out, err = compare(capsys, "old", "new", "bad", gate="rank_ic>=-0.005", json="figures.json")
    assert (code, err) == (1, "")
    assert re.search(r"Passed rank_ic>=-0.005: 'new' differs by \+0\.1\d+, at most \+0\.2\d+ at 95 %", out)
    assert re.search(r"Failed rank_ic>=-0.005: 'bad' differs by -0\.\d+, at most -0\.1\d+ at 95 %", out)
    gates = json.loads((files / "figures.json").read_text())["gates"]
    assert [gate["passed"] for gate in gates] == [True, False]


def test_identical_versions_have_a_difference_of_exactly_zero_and_pass(files, capsys):
    code, _, _ = compare(capsys, "old", "copy", gate=["rank_ic>=0", "spread>=0"], json="figures.json")
    result = json.loads((files / "figures.json").read_text())
    assert code == 0
    assert [figures["copy"]["difference"] for figures in result["metrics"].values()] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("reference", ["old", "old.parquet"])
def test_the_reference_may_be_any_version_by_name_or_file(reference, files, capsys):
    code, out, _ = compare(capsys, "bad", "old", reference=reference, gate="ic>=-0.01")
    assert code == 1
    assert line(out, "old")[2] == "reference"
    assert "Failed ic>=-0.01: 'bad'" in out


def test_labels_overlap_by_their_horizon(files, capsys):
    _, out, _ = compare(capsys, "old", "new", label_horizon=10, json="figures.json")
    result = json.loads((files / "figures.json").read_text())
    assert (result["label_horizon"], result["overlap"]) == (10, 10)
    assert result["metrics"]["ic"]["new"]["method"] == "non-overlapping, n=15"
    assert "Note: 150 dates have 15 non-overlapping labels" in out


def test_a_label_spans_fewer_dates_where_these_are_bars_apart(files, capsys):
    compare(capsys, "old", "new", label_horizon=10, every=5, json="figures.json")
    result = json.loads((files / "figures.json").read_text())
    assert (result["label_horizon"], result["overlap"]) == (10, 2)
    assert result["metrics"]["ic"]["new"]["method"].startswith("EWC")


def test_labels_of_several_horizons_make_a_decay(files, capsys):
    pd.DataFrame({"1": LABEL, "5": LABEL + drawn(INDEX, 5)}).to_parquet("labels.parquet")
    compare(capsys, "old", "new", labels="labels.parquet", label_horizon=5, json="figures.json")
    decay = json.loads((files / "figures.json").read_text())["decay"]
    assert [(row["version"], row["horizon"]) for row in decay] == [
        ("old", 1),
        ("old", 5),
        ("new", 1),
        ("new", 5),
    ]
    assert decay[2]["rank_ic"] > decay[3]["rank_ic"] > 0


def test_files_of_other_layouts_and_more_rows_give_the_same_metrics(files, capsys):
    compare(capsys, "old", "new", json="one.json")
    extra = drawn(rows(dates=10, names=3, start="2010-01-04"), 4)
    more = pd.concat([SCORES["new"], extra]).reorder_levels([1, 0]).rename_axis([None, None]).sort_index()
    more.rename("prediction").to_frame().to_parquet("new.parquet")
    SCORES["old"].rename("score").reset_index().sample(frac=1, random_state=0).to_parquet("old.parquet")
    compare(capsys, "old", "new", json="other.json")
    one, other = (json.loads((files / name).read_text()) for name in ("one.json", "other.json"))
    assert one["metrics"] == other["metrics"]
    assert other["sample_counts"]["rows of any version"] - one["sample_counts"]["rows of any version"] == 30
    assert other["sample_counts"]["no score of 'old'"] == 30
    assert other["sample_counts"]["compared"] == one["sample_counts"]["compared"]


def test_constant_scores_and_dates_with_one_instrument_are_counted_and_reported(files, capsys):
    odd, days = SCORES["new"].copy(), INDEX.levels[0]
    odd.loc[days[0]] = 1.0
    odd.loc[days[1], "N001":] = np.nan
    odd.rename("score").to_frame().to_parquet("odd.parquet")
    code, out, _ = compare(capsys, "old", "odd", json="figures.json")
    figures = json.loads((files / "figures.json").read_text())["metrics"]["rank_ic"]
    assert (figures["old"]["undefined"], figures["odd"]["undefined"]) == (1, 2)
    assert "29 no score of 'odd'" in out
    assert "Note: 'odd' is constant on 1 of 150 dates" in out
    assert "Note: 1 of 150 dates have fewer than 10 common instruments" in out
    assert code == 0


def test_the_page_names_the_versions(files, capsys):
    pytest.importorskip("jinja2")
    code, out, err = compare(capsys, "old", "new", html="pages/versions.html")
    assert (code, err) == (0, "")
    page = (files / "pages/versions.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "new against old" in page
    assert "Wrote pages/versions.html" in out


def test_names_are_printed_as_they_are(files, capsys):
    SCORES["new"].rename("score").to_frame().to_parquet("[bold]x.parquet")
    _, out, _ = compare(capsys, "old", "[bold]x", gate="ic>=-1")
    assert "[bold]x" in out
    assert "'[bold]x' differs" in out


def save(series: pd.Series, name: str) -> None:
    series.rename("score").to_frame().to_parquet(name)


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (["old.parquet"], r"1 version\(s\) cannot be compared. Pass two or more"),
        ([], r"0 version\(s\)"),
        (
            ["old.parquet", "old.parquet"],
            r"old.parquet and old.parquet would have the same name 'old'. Name one",
        ),
        (
            ["old.parquet", "other/old.parquet"],
            r"old.parquet and other/old.parquet would have the same name 'old'",
        ),
        (["old.parquet", "none.parquet"], r"none.parquet is not a file"),
        (["old.parquet", "text.parquet"], r"text.parquet is not a parquet file"),
        (
            ["old.parquet", "late.parquet"],
            r"no common date: 2022-06-01 to .*'old'; 2032-06-01 to .*'late'",
        ),
        (["old.parquet", "empty.parquet"], r"scores of 'empty' have no finite value in 4,500 rows"),
        (["old.parquet", "two.parquet"], r"two.parquet has 2 columns of values, 'x', 'y'"),
        (["old.parquet", "twice.parquet"], r"scores of 'twice' have .* twice"),
        (
            ["old.parquet", "new.parquet", "--reference", "gone"],
            r"reference 'gone' is not one of the versions.*'old', 'new'",
        ),
        (["old.parquet", "new.parquet", "--gate", "rank_ic"], r"'rank_ic' is not a gate.*'rank_ic>=-0.005'"),
        (["old.parquet", "new.parquet", "--gate", "crps>=0"], r"an unknown metric"),
        (["old.parquet", "new.parquet", "--gate", "ic<=0"], r"wrong sign"),
        (["old.parquet", "new.parquet", "--label-horizon", "0"], r"label_horizon=0"),
        (["old.parquet", "new.parquet", "--every", "0"], r"every=0: dates must be at least 1 bar apart"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tokens, says, files, capsys):
    (files / "other").mkdir()
    save(SCORES["old"], "other/old.parquet")
    save(SCORES["old"] * np.nan, "empty.parquet")
    save(pd.concat([SCORES["old"], SCORES["old"].iloc[:1]]), "twice.parquet")
    late = INDEX.set_levels(INDEX.levels[0] + pd.DateOffset(years=10), level=0)
    save(SCORES["old"].set_axis(late), "late.parquet")
    pd.DataFrame({"x": LABEL, "y": LABEL}).to_parquet("two.parquet")
    (files / "text.parquet").write_text("no parquet")
    code, out, err = run(capsys, "compare", *tokens, "--labels", "label.parquet", "--json", "figures.json")
    assert code == 2
    assert re.search(says, err), err
    assert len(err.strip().splitlines()) == 1
    assert out == ""
    assert not (files / "figures.json").exists()


def test_a_gate_that_cannot_be_tested_exits_2_after_everything_is_written(files, capsys):
    code, out, err = compare(capsys, "old", "new", label_horizon=100, gate="ic>=0", json="figures.json")
    assert code == 2
    assert re.search(r"cannot be checked.*too few", err)
    assert "detect" in out
    assert json.loads((files / "figures.json").read_text())["gates"] == []


def test_an_upper_case_or_other_suffix_is_a_file_of_scores_too(files, capsys):
    (files / "new.parquet").rename(files / "new.PQ")
    code, _, err = run(capsys, "compare", "old.parquet", "new.PQ", "--labels", "label.parquet")
    assert (code, err) == (0, "")


def test_scores_without_labels_are_refused(files, capsys):
    code, _, err = run(capsys, "compare", "old.parquet", "new.parquet")
    assert code == 2
    assert "--labels" in err


def test_names_of_versions_with_markup_are_text_on_the_page(files, capsys):
    plotly_js = pytest.importorskip("plotly.offline").get_plotlyjs()
    pytest.importorskip("jinja2")
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    code, _, err = run(
        capsys, "compare", f"{hostile}=old.parquet", "=1+1=new.parquet", "--labels", "label.parquet",
        "--html", "versions.html",
    )  # fmt: skip
    assert (code, err) == (0, "")
    page = (files / "versions.html").read_text(encoding="utf-8").replace(plotly_js, "")
    assert "<img" not in page
    assert "alert(1)</script>" not in page
    assert page.count("<script") == page.count("</script>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
