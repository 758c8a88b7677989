"""A report writes one page that needs nothing else, strict JSON, and CSVs that read back."""

import dataclasses
import json
import os
import re

import numpy as np
import pandas as pd
import pytest

from kronos_strategies.report import figures

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


def page_of(report, folder) -> str:
    """The saved page without plotly's own source."""
    text = report.save(folder)[0].read_text(encoding="utf-8")
    library = figures.plotly_js()
    assert text.count(library) == 1
    return text.replace(library, "")


def strict(text: str) -> dict:
    """JSON as the standard has it, without NaN and Infinity."""

    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_saves_the_page_first_and_everything_beside_it(report, tmp_path):
    paths = report.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == [
        "report.html", "metrics.json", "coefficients.csv", "returns.csv", "comparison.csv",
    ]  # fmt: skip
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)


def test_equal_reports_write_equal_bytes(report, tmp_path):
    first, second = report.save(tmp_path / "a"), report.save(tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_failed_write_leaves_the_old_file_whole(report, tmp_path, monkeypatch):
    old = [path.read_bytes() for path in report.save(tmp_path)]

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        dataclasses.replace(report, title="another").save(tmp_path)
    names = ("report.html", "metrics.json", "coefficients.csv", "returns.csv", "comparison.csv")
    assert [(tmp_path / name).read_bytes() for name in names] == old


def test_metrics_are_strict_json_in_the_given_order(report, tmp_path):
    metrics = {"z": np.float64(0.5), "a": np.nan, "b": -np.inf, "n": np.int64(7), "f": 2.0}
    path = dataclasses.replace(report, metrics=metrics).save(tmp_path)[1]
    read = strict(path.read_text(encoding="utf-8"))
    assert read == {"z": 0.5, "a": None, "b": None, "n": 7, "f": 2.0}
    assert list(read) == list(metrics)
    assert isinstance(read["n"], int)


def test_csvs_read_back_as_they_were(report, tmp_path):
    _, _, coefficients, returns, comparison = report.save(tmp_path)
    pd.testing.assert_frame_equal(
        pd.read_csv(coefficients, index_col="datetime", parse_dates=True),
        report.coefficients,
        check_freq=False,
        check_index_type=False,
    )
    pd.testing.assert_frame_equal(
        pd.read_csv(comparison, index_col="signal").rename_axis(None), report.comparison
    )
    read = pd.read_csv(returns, index_col="datetime", parse_dates=True)
    result = report.result
    assert list(read) == ["gross", "net", "benchmark", "equal weight", "turnover", "cost", "positions"]
    np.testing.assert_allclose(read["net"], result.returns["net"], rtol=1e-12)
    np.testing.assert_allclose(read["equal weight"], result.benchmarks["equal weight"], rtol=1e-12)
    assert (read["positions"] == 50).all()


def test_the_page_has_every_section(report, tmp_path):
    page = page_of(report, tmp_path)
    for section in (
        "verdict",
        "warnings",
        "metrics",
        "signal",
        "portfolio",
        "sample",
        "provenance",
        "definitions",
    ):
        assert page.count(f'id="{section}"') == 1
    for chart in ("cumulative-rankic-and-ic", "rankic-by-month", "wealth", "drawdown", "turnover", "costs"):
        assert page.count(f'id="{chart}"') == 1
        assert page.count(f'data-chart="{chart}"') == 1


def test_the_page_shows_what_the_report_holds(report, tmp_path):
    page = page_of(report, tmp_path)
    for shown in (
        "<title>Kronos on csi300</title>", "<h1>Kronos on csi300</h1>", "2023-01-02 to 2023-06-16, 120 bars",
        "above zero; it beats the naive 5-day reversal.", "These data are simulated.",
        "<dt>RankIC, mean</dt><dd>0.030</dd>", "<dt>Sharpe, net</dt><dd>1.23</dd>",
        "<dt>Max drawdown, net</dt><dd>−8.8%</dd>",
        ">12,000</td>", ">2.9%</td>", "kronos-nano", "0f" * 32,
    ):  # fmt: skip
        assert shown in page


def test_an_unknown_metric_is_shown_under_its_key(report, tmp_path):
    page = page_of(report, tmp_path)
    assert re.search(r"<code>forecast_seconds</code></td>.*?>81\.25</td>", page)


def test_the_portfolio_table_annualises_as_the_result_says(report, tmp_path):
    def shown(bars: int) -> str:
        result = dataclasses.replace(report.result, bars_per_year=bars)
        page = page_of(dataclasses.replace(report, result=result), tmp_path)
        assert f"a year is {bars} bars" in page
        return re.search(r"Net of costs</th><td[^>]*>([^<]*)<", page).group(1)

    net = report.result.returns["net"]
    for bars in (252, 120):
        assert shown(bars) == f"{100 * ((1 + net).prod() ** (bars / len(net)) - 1):.1f}%".replace("-", "−")


def test_what_is_undefined_is_a_dash(report, tmp_path):
    undefined = dict.fromkeys(report.metrics, np.nan)
    page = page_of(dataclasses.replace(report, metrics=undefined), tmp_path)
    assert page.count("<dd>–</dd>") == 12
    assert "RankIC is undefined" in page
    assert not re.search(r">\s*−?(nan|inf)", page, re.IGNORECASE)


def test_a_report_over_nothing_is_still_a_page(report, tmp_path):
    none = report.coefficients.index[:0]
    result = dataclasses.replace(
        report.result,
        returns=report.result.returns.loc[none],
        benchmarks=pd.DataFrame(index=none),
        turnover=report.result.turnover[none],
        cost=report.result.cost[none],
        positions=report.result.positions[none],
    )
    empty = dataclasses.replace(
        report, metrics={}, coefficients=report.coefficients.loc[none], comparison=report.comparison.iloc[:0],
        result=result, ledger={}, provenance={}, warnings=[],
    )  # fmt: skip
    page = page_of(empty, tmp_path)
    assert "no bars" in page
    assert "No verdict" in page
    assert 'id="warnings"' not in page


def test_everything_given_is_escaped(report, tmp_path):
    hostile = dataclasses.replace(
        report,
        title=HOSTILE,
        metrics={**report.metrics, HOSTILE: 1.0},
        comparison=report.comparison.rename(index={"5-day reversal": HOSTILE}).assign(**{HOSTILE: 1.0}),
        result=dataclasses.replace(
            report.result, benchmarks=report.result.benchmarks.rename(columns={"benchmark": HOSTILE})
        ),
        ledger={HOSTILE: 1},
        provenance={HOSTILE: HOSTILE},
        warnings=[HOSTILE],
    )
    page = page_of(hostile, tmp_path)
    assert "<img" not in page
    assert "alert(1)</script>" not in page
    assert page.count("<script") == page.count("</script>") == 8  # of each chart, plotly and ours
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_the_page_asks_for_nothing_outside_itself(report, tmp_path):
    page = page_of(report, tmp_path)
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|url\(|@import|<iframe|<base", page)
    assert set(re.findall(r'(?:src|href)="([^"#]*)', page)) <= {"data:,", ""}


def test_the_page_stays_under_eight_megabytes_over_ten_years(report, tmp_path):
    days = pd.bdate_range("2014-01-01", periods=2520, name="datetime")
    drawn = pd.DataFrame(np.random.default_rng(0).normal(0, 0.01, (2520, 6)), index=days)
    benchmarks = drawn[[2, 3, 4, 5]].rename(columns=str)
    result = dataclasses.replace(
        report.result, returns=drawn[[0, 1]].set_axis(["gross", "net"], axis=1), benchmarks=benchmarks,
        turnover=drawn[0].abs(), cost=drawn[1].abs(), positions=drawn[0],
    )  # fmt: skip
    coefficients = drawn[[0, 1]].set_axis(["ic", "rank_ic"], axis=1)
    path = dataclasses.replace(report, coefficients=coefficients, result=result).save(tmp_path)[0]
    assert path.stat().st_size < 8_000_000
