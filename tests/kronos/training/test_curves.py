from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from kronos.training.curves import write_curves

ROWS = [
    {
        "step": step,
        "seconds": 0.5 * step,
        "lr": 1e-3,
        "train_loss": 3 / step,
        "val_loss": 2 / step + step / 90,
    }
    | {"val_s1": 1.0, "val_loss/one": 1.5, "val_loss/two": 2.5}
    for step in (10, 20, 30)
]


def test_the_table_has_a_row_a_validation_and_the_picture_opens(tmp_path: Path) -> None:
    write_curves(ROWS, tmp_path)
    table = pd.read_csv(tmp_path / "losses.csv")
    assert list(table.columns) == list(ROWS[0])
    np.testing.assert_allclose(table.to_numpy(), pd.DataFrame(ROWS).to_numpy())
    picture = matplotlib.image.imread(tmp_path / "losses.png")
    assert picture.shape[:2] == (540, 960)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 10  # of several colours


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_rows_are_enough(count: int, tmp_path: Path) -> None:
    write_curves(ROWS[:count], tmp_path)
    assert len(pd.read_csv(tmp_path / "losses.csv")) == count
    assert (tmp_path / "losses.png").is_file()


def test_before_the_first_validation_there_is_nothing_to_draw(tmp_path: Path) -> None:
    write_curves([], tmp_path)
    assert not list(tmp_path.iterdir())


def test_losses_that_never_change_are_drawn_too(tmp_path: Path) -> None:
    flat = [{"step": step, "train_loss": 1.0, "val_loss": 1.0} for step in (1, 2)]
    write_curves(flat, tmp_path)
    assert (tmp_path / "losses.png").is_file()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_weights_that_training_started_from_have_no_training_loss(count: int, tmp_path: Path) -> None:
    start = {name: value for name, value in ROWS[0].items() if name != "train_loss"} | {"step": 0}
    write_curves([start, *ROWS][:count], tmp_path)
    table = pd.read_csv(tmp_path / "losses.csv")
    assert list(table.columns) == list(ROWS[0] if count > 1 else start)
    assert table["step"].tolist() == [0, 10, 20, 30][:count]
    assert (tmp_path / "losses.png").is_file()
