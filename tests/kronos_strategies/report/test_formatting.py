import numpy as np
import pytest

from kronos_strategies.report.formatting import (
    bars,
    count,
    decimals,
    decimals_4,
    general,
    interval,
    listing,
    percent,
    probability,
    signed,
    signed_percent,
)


@pytest.mark.parametrize("show", [decimals, percent, count, general, decimals_4, signed, signed_percent])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_missing_number_is_a_dash(show, value):
    assert show(value) == "–"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (decimals(0.0396), "0.040"),
        (decimals(-1.005, 2), "−1.00"),
        (decimals(-0.0001), "0.000"),
        (percent(-0.1234), "−12.3%"),
        (percent(0.0), "0.0%"),
        (count(np.int64(1234567)), "1,234,567"),
        (general(81.2512), "81.25"),
        (general(-0.0000123456), "−1.235e−05"),
        (general(480), "480"),
        (signed(0.01), "+0.0100"),
        (signed(-0.01), "−0.0100"),
        (signed(0.0), "0.0000"),
        (signed_percent(0.0123), "+1.23%"),
        (probability(0.0004), "< 0.001"),
        (probability(0.0456), "0.046"),
        (probability(np.nan), "–"),
        (interval(-0.1, 0.2, decimals), "−0.100 to 0.200"),
        (interval(-0.1, np.nan, decimals), "–"),
        (bars(1), "1 bar"),
        (bars(5), "5 bars"),
    ],
)
def test_numbers_read_well(shown, text):
    assert shown == text


@pytest.mark.parametrize(
    ("words", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_words_are_listed(words, text):
    assert listing(words) == text
