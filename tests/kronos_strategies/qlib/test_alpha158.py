"""The Alpha158 features of windows are those of Qlib's handler."""

import numpy as np
import pandas as pd
from qlib.contrib.data.handler import Alpha158

from kronos.windows import Windows
from kronos_strategies.forecasters.alpha158 import BARS, NAMES, alpha158
from kronos_strategies.qlib.data_access import StoreBars, member_windows
from kronos_strategies.store import WindowSpec

START, END = pd.Timestamp("2023-03-01"), pd.Timestamp("2023-04-28")


def traded_daily(windows: Windows) -> np.ndarray:
    """Windows of instruments that trade on all days that features read: Qlib counts suspended days, too."""
    names = windows.index.get_level_values("instrument")
    bars = StoreBars.read(sorted(set(names)), END, start=START - pd.Timedelta(days=2 * BARS)).frame
    suspended = bars["close"].isna() | bars["volume"].eq(0)
    whole = ~suspended.groupby(level="instrument").any()
    return names.isin(whole.index[whole])


def test_features_of_windows_are_those_of_the_handler(in_store):
    windows = member_windows(WindowSpec("csi300", 90, 1, BARS), START, END)
    windows = windows[traded_daily(windows)]
    assert len(windows) > 100
    handler = Alpha158(
        instruments="csi300", start_time=START, end_time=END, infer_processors=[], learn_processors=[]
    )
    theirs = handler.fetch(col_set="feature").reindex(windows.index)[list(NAMES)].to_numpy()
    ours = alpha158(windows)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    # Qlib computes in float32: differences are far below what a tree can tell apart.
    apart = np.nanmax(np.abs(ours - theirs), axis=0) / (np.nanstd(theirs, axis=0) + 1e-3)
    assert dict(zip(NAMES, apart, strict=True))[NAMES[int(apart.argmax())]] < 1e-3
