"""Loss curves of a run as a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def write_curves(history: Sequence[dict[str, float]], folder: Path) -> None:
    """Write losses.csv and losses.png into `folder`; nothing before the first validation.

    Args:
        history: a row a validation: step, seconds, lr, train_loss, val_loss and the parts of it; the first may be
            that of the weights that training started from, step 0 without a train_loss.
        folder: where to.
    """
    if not history:
        return
    names = list(history[-1])  # the weights that training started from have no training loss
    table = pd.DataFrame(list(history), columns=names)
    table.to_csv(folder / "losses.csv", index=False)
    # Figure without pyplot: no window system, no global state.
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if "train_loss" in names:
        axes.plot(table["step"], table["train_loss"], color="0.55", label="training", marker=".")
    for name in names:
        if name.startswith("val_loss"):
            own = name == "val_loss"
            label = "held out" if own else f"held out, {name.partition('/')[2]}"
            axes.plot(table["step"], table[name], linewidth=2 if own else 1, label=label, marker=".")
    best = min(history, key=lambda row: row["val_loss"])
    axes.axvline(
        best["step"], color="0.8", zorder=0, label=f"best: {best['val_loss']:.4g} at step {best['step']:.0f}"
    )
    # The first steps of a network are far above all that follows.
    losses = table[[c for c in names if c == "train_loss" or c.startswith("val_loss")]]
    later = losses.iloc[len(losses) // 10 :].to_numpy()
    low, high = np.nanmin(later), np.nanmax(later)
    margin = 0.05 * (high - low or 1.0)
    axes.set_ylim(low - margin, high + margin)
    axes.set(xlabel="step", ylabel="loss")
    figure.legend(loc="outside right upper", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "losses.png", dpi=120)
