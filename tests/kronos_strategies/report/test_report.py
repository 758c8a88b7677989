"""A report writes one page that needs nothing else, strict JSON, and CSVs that read back."""

import dataclasses
import html
import json
import os
import re

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.evaluation.portfolio.evaluation import evaluate_portfolio
from kronos_strategies.report.export import render, save_report
from kronos_strategies.report.figures.base import plotly_js
from tests.kronos_strategies.report.simulated import Simulated

pytestmark = pytest.mark.integration

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
SECTIONS = ("signal", "distribution", "portfolio", "versions")
CSVS = {
    "signal": {
        "coefficients", "baselines", "rank_ic_decay", "rank_ic_by_lag", "rank_ic_by_year", "rank_ic_by_group",
        "neutralized_rank_ic", "quantiles", "quantiles_by_date", "turnover",
    },
    "distribution": {"distribution_by_date", "pit", "volatility_bins", "rank_ic_by_num_paths", "fan_charts"},
    "portfolio": {
        "returns", "weights", "performance", "active", "drawdowns", "months", "costs", "exposure", "tilts",
        "qlib_metrics",
    },
    "versions": {"versions", "versions_by_date", "versions_by_year", "versions_decay", "versions_baselines"},
}  # fmt: skip


def page_of(report) -> str:
    """The page without plotly's own source."""
    text, library = render(report), plotly_js()
    assert text.count(library) == 1
    return text.replace(library, "")


def strict(text: str) -> dict:
    """JSON as the standard has it, without NaN and Infinity."""

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_saving_writes_the_page_first_and_all_other_files_next_to_it(report, tmp_path):
    paths = save_report(report, tmp_path / "new" / "folder")
    names = [path.name for path in paths]
    assert names[:2] == ["report.html", "metrics.json"]
    assert set(names[2:]) == {f"{name}.csv" for of in CSVS.values() for name in of}
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(names)


def test_a_command_quoted_in_a_warning_is_set_as_code(report):
    page = page_of(
        dataclasses.replace(report, warnings=["Run `kronos data import --to <DIR>` & rank again."])
    )
    assert "<li>Run <code>kronos data import --to &lt;DIR&gt;</code> &amp; rank again.</li>" in page


@pytest.mark.parametrize("absent", SECTIONS)
def test_an_evaluation_that_is_none_has_no_section_no_entry_and_no_file(report, tmp_path, absent):
    less = dataclasses.replace(report, **{absent: None})
    page = page_of(less)
    for section in SECTIONS:
        assert page.count(f'<section id="{section}"') == (section != absent)
        assert page.count(f'href="#{section}"') == (section != absent)
    names = {path.stem for path in save_report(less, tmp_path)}
    assert names & CSVS[absent] == set()


def test_a_report_without_an_evaluation_is_still_a_page(report, tmp_path):
    empty = dataclasses.replace(
        report,
        signal=None,
        distribution=None,
        portfolio=None,
        versions=None,
        sample_counts={},
        provenance={},
        warnings=[],
    )
    page = page_of(empty)
    assert "no dates" in page
    assert "No score was evaluated" in page
    assert 'id="warnings"' not in page
    assert 'id="sample"' not in page
    assert [path.name for path in save_report(empty, tmp_path)] == ["report.html", "metrics.json"]


def test_equal_reports_write_equal_bytes(report, tmp_path):
    first, second = save_report(report, tmp_path / "a"), save_report(report, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_failed_write_leaves_the_old_file_whole(report, tmp_path, monkeypatch):
    paths = save_report(report, tmp_path)
    old = [path.read_bytes() for path in paths]

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_report(dataclasses.replace(report, title="another"), tmp_path)
    assert [path.read_bytes() for path in paths] == old


def test_metrics_are_those_of_every_evaluation_as_strict_json(report, tmp_path):
    read = strict(save_report(report, tmp_path)[1].read_text(encoding="utf-8"))
    assert list(read) == list(report.metrics)
    for name, value in report.metrics.items():
        assert read[name] is None if not np.isfinite(value) else read[name] == pytest.approx(value), name
    assert read["rank_ic"] == pytest.approx(report.signal.rank_ic.mean)
    assert read["sharpe"] == pytest.approx(report.portfolio.sharpe.sharpe)
    assert {"coverage_90_h1", "qlike_h5"} <= set(read)


def test_csvs_read_back_as_they_were(report, tmp_path):
    paths = {path.stem: path for path in save_report(report, tmp_path)}
    coefficients = pd.read_csv(
        paths["coefficients"], index_col=["score", "datetime"], parse_dates=["datetime"]
    )
    own = coefficients.loc[report.signal.name]
    pd.testing.assert_frame_equal(
        own,
        report.signal.by_date[report.signal.name],
        check_freq=False,
        check_index_type=False,
        check_names=False,
    )
    baselines = pd.read_csv(paths["baselines"], index_col="score")
    np.testing.assert_allclose(
        baselines["rank_ic_difference_low"], report.signal.table["rank_ic_difference_low"], rtol=1e-12
    )
    returns = pd.read_csv(paths["returns"], index_col="datetime", parse_dates=True)
    assert list(returns) == ["gross", "net", "benchmark", "equal weight", "turnover", "cost"]
    np.testing.assert_allclose(returns["net"], report.portfolio.result.returns["net"], rtol=1e-12)
    weights = pd.read_csv(paths["weights"])
    assert len(weights) == len(report.portfolio.result.weights)
    versions = pd.read_csv(paths["versions"])
    np.testing.assert_allclose(versions["p_holm"], report.versions.table["p_holm"], rtol=1e-12)
    by_date = pd.read_csv(paths["versions_by_date"], index_col=["metric", "datetime"])
    assert list(by_date) == list(report.versions.versions)


def test_the_page_shows_what_the_report_holds(report):
    page = page_of(report)
    for shown in (
        "<title>Kronos on csi300</title>", "<h1>Kronos on csi300</h1>", "These data are simulated.",
        ">12,000</td>", ">2.9%</td>", "kronos-nano", "0f" * 32, "5-day reversal",
        f"<dd>{report.signal.rank_ic.mean:.3f}</dd>", f"{report.portfolio.sharpe.dsr:.1%}",
    ):  # fmt: skip
        assert shown in page


def test_a_calibrated_pit_is_that_of_as_many_paths(report):
    ten = dataclasses.replace(report, distribution=dataclasses.replace(report.distribution, samples=10))
    assert "with 10 independent paths 0.500 ± 0.316" in html.unescape(page_of(ten))


def test_every_metric_is_listed_under_its_name_and_has_a_label(report):
    page = page_of(report)
    for name in report.metrics:
        assert re.search(rf"<code>{re.escape(name)}</code></td><td class=\"soft\">[^<]+</td>", page), name


def test_the_sample_counts_of_a_comparison_is_shown_once(report):
    same = dataclasses.replace(report, sample_counts=report.versions.sample_counts)
    assert page_of(same).count(">compared</th>") == 1
    assert page_of(report).count(">compared</th>") == 2


def test_qlibs_own_metrics_are_in_their_own_table_only(report):
    page = page_of(report)
    inside = page[page.index('<table id="qlib-metrics"') :]
    inside = inside[: inside.index("</table>")]
    for name in report.portfolio.qlib_metrics:
        assert name in inside
        assert not re.search(rf"(?<!qlib_){name}", page.replace(inside, ""))


def test_everything_given_is_escaped(report):
    signal, portfolio, versions = report.signal, report.portfolio, report.versions
    rename = {"5-day reversal": HOSTILE}
    hostile = dataclasses.replace(
        report,
        title=HOSTILE,
        sample_counts={HOSTILE: 1},
        provenance={HOSTILE: HOSTILE},
        warnings=[HOSTILE],
        signal=dataclasses.replace(
            signal,
            table=signal.table.rename(index=rename),
            by_date={rename.get(name, name): frame for name, frame in signal.by_date.items()},
            decay=signal.decay.replace({"score": rename}),
            by_group=signal.by_group.replace({"exposure": {"industry": HOSTILE}}),
            neutral=signal.neutral.rename(index={"size": HOSTILE}),
        ),
        distribution=dataclasses.replace(
            report.distribution,
            fan_charts=report.distribution.fan_charts.assign(instrument=HOSTILE).iloc[:50],
        ),
        portfolio=dataclasses.replace(
            portfolio,
            performance=portfolio.performance.rename(index={"benchmark": HOSTILE}),
            active=portfolio.active.rename(index={"benchmark": HOSTILE}),
            tilts=portfolio.tilts.rename(columns={"size": HOSTILE}),
            qlib_metrics={HOSTILE: 1.0},
        ),
        versions=dataclasses.replace(
            versions,
            sample_counts={HOSTILE: 1},
            warnings=[HOSTILE],
            provenance={name: {HOSTILE: HOSTILE} for name in versions.versions},
            table=versions.table.replace({"metric": {"crps_h5": HOSTILE}}),
            by_date={
                HOSTILE if name == "crps_h5" else name: frame for name, frame in versions.by_date.items()
            },
            by_year=versions.by_year.replace({"metric": {"crps_h5": HOSTILE}}),
        ),
    )
    text, library = render_of(hostile), plotly_js()
    page = text.replace(library, "")
    assert "<img" not in page
    assert "alert(1)</script>" not in page
    assert page.count("<script") == page.count("</script>")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def render_of(report) -> str:
    """The page of a report whose metrics are not asked for, since its studies no longer agree on names."""

    class Named(type(report)):
        @property
        def metrics(self) -> dict[str, float]:
            return {HOSTILE: 1.0}

    return render(Named(**{f.name: getattr(report, f.name) for f in dataclasses.fields(report)}))


def test_the_page_requests_no_external_resource(report):
    page = page_of(report)
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|url\(|@import|<iframe|<base", page)
    assert set(re.findall(r'(?:src|href)="([^"#]*)', page)) <= {"data:,", ""}


def test_ids_are_unique(report):
    page = page_of(report)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_undefined_values_are_a_dash_or_a_sentence(report):
    signal = report.signal
    nothing = {name: frame * np.nan for name, frame in signal.by_date.items()}
    undefined = dataclasses.replace(
        signal,
        by_date=nothing,
        rank_ic=dataclasses.replace(signal.rank_ic, mean=np.nan, low=np.nan, high=np.nan, t=np.nan, p=np.nan),
        table=signal.table * np.nan,
        decay=signal.decay.iloc[:0],
        lags=signal.lags.iloc[:0],
        by_year=signal.by_year.iloc[:0],
        by_group=signal.by_group.iloc[:0],
        neutral=signal.neutral * np.nan,
        quantiles=dataclasses.replace(
            signal.quantiles,
            means=signal.quantiles.means * np.nan,
            top_minus_bottom_by_date=signal.turnover * np.nan,
        ),
        turnover=signal.turnover * np.nan,
        autocorrelation=signal.autocorrelation * np.nan,
    )
    page = page_of(
        dataclasses.replace(report, signal=undefined, distribution=None, portfolio=None, versions=None)
    )
    assert "RankIC is undefined" in page
    assert page.count("</b> is omitted.") == 11
    assert "data-chart" not in page.replace("script[data-chart]", "").replace("dataset.chart", "")
    assert not re.search(r">\s*[−+]?(nan|inf)", page, re.IGNORECASE)


def test_a_backtest_without_bars_has_no_charts(report):
    result = report.portfolio.result
    none = result.returns.index[:0]
    empty = evaluate_portfolio(
        dataclasses.replace(
            result, returns=result.returns.loc[none], benchmarks=result.benchmarks.loc[none],
            turnover=result.turnover[none], cost=result.cost[none], weights=result.weights.iloc[:0],
        )
    )  # fmt: skip
    page = page_of(
        dataclasses.replace(report, signal=None, distribution=None, versions=None, portfolio=empty)
    )
    assert "no bars" in page
    assert "The Sharpe ratio of the portfolio is undefined" in page
    assert page.count("</b> is omitted.") == 8


@pytest.mark.slow
def test_four_years_of_300_instruments_stay_under_eight_megabytes(report):
    large = Simulated(dates=1000, names=300)
    page = render(
        dataclasses.replace(
            report, signal=large.signal(), portfolio=large.portfolio(), versions=large.versions()
        )
    )
    assert len(page.encode()) < 8_000_000
