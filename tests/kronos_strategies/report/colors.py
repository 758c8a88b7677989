"""How well two colors stand apart, as WCAG 2 has it."""

import re

import numpy as np


def contrast(a: str, b: str) -> float:
    """Contrast from 1 to 21 of two colors written "#rrggbb" or "rgb(r, g, b)"."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    if color.startswith("#"):
        channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    else:
        channels = [int(number) for number in re.findall(r"\d+", color)[:3]]
    shares = np.array(channels) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
