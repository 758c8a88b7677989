"""The terminal shows the metrics of the page, and a dash where they are undefined."""

import dataclasses

import numpy as np

from kronos_strategies.report.export import show_report
from kronos_strategies.report.formatting import decimals_2, signed
from kronos_strategies.report.summary import report_warnings


def test_the_summary_has_the_main_metrics_every_warning_and_the_files_written(report, capsys):
    show_report(report, ["some/report.html"])
    out = capsys.readouterr().out
    own = report.signal.table.iloc[0]
    for figure in (
        signed(own["rank_ic"]),
        signed(own["rank_ic_low"]),
        decimals_2(report.portfolio.sharpe.sharpe),
    ):
        assert figure in out
    for warning in report_warnings(report):
        assert f"Warning: {warning}" in out
    assert out.rstrip().endswith("some/report.html")


def test_what_is_undefined_is_a_dash_and_an_absent_part_is_left_out(report, capsys):
    none = report.signal.table.assign(rank_ic=np.nan, rank_ic_low=np.nan, rank_ic_high=np.nan)
    study = dataclasses.replace(report.signal, table=none)
    show_report(dataclasses.replace(report, signal=study, portfolio=None, distribution=None), [])
    out = capsys.readouterr().out
    assert "nan" not in out
    assert "–" in out
    assert "Portfolio" not in out
