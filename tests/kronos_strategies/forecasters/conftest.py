"""The small simulated store of the Qlib tests."""

import importlib.util

if importlib.util.find_spec("qlib"):
    from tests.kronos_strategies.qlib.conftest import (  # noqa: F401
        empty_record,
        in_store,
        small_market,
        small_store,
    )
