"""The daily routine of docs/qlib.md, as it is printed there."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs" / "qlib.md"


def routine() -> str:
    (code,) = re.findall(
        r"<!-- tested in tests/kronos_strategies/qlib/test_daily_routine.py -->\n```python\n(.*?)```",
        DOCS.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    return code


def test_new_bars_become_todays_scores_and_orders(small_store, tmp_path, capsys):
    code = routine().replace("~/csi300", str(small_store)).replace("~/forecasts", str(tmp_path / "forecasts"))
    code = code.replace("SH600000", "SH609001").replace("SH600036", "SZ009003").replace("topk=50", "topk=4")
    assert code != routine()
    names: dict = {}
    exec(compile(code, "docs/qlib.md", "exec"), names)
    orders, weights = names["orders"], names["weights"]
    assert str(names["today"].date()) == "2023-06-30"  # the last day of the store
    assert weights.sum() == pytest.approx(0.98)
    assert orders.sum() == pytest.approx((0.98 - 0.08) * 1_000_000)
    assert orders["SH609001"] != 0
    assert "SZ" in capsys.readouterr().out
