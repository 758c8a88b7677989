"""Two processes that share each batch learn what one learns from the whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kronos.training.config import Stage
from tests.kronos.training.builders import load_weights
from tests.kronos.training.two_processes import STEPS, Observed, headed, observed, write_inputs

pytestmark = pytest.mark.integration

Found = dict[str, Observed]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of both kinds of run."""
    return tmp_path_factory.mktemp("processes")


def start(folder: Path, *words: str, output: str | None = None) -> subprocess.Popen[str]:
    """An agent of torchrun, which starts the processes of one machine."""
    script = Path(__file__).with_name("two_processes.py")
    settings = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(script.parents[3]),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    arguments = [str(script), str(folder), *([output] if output else [])]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words, *arguments],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[Found]:
    """Records of each of two processes."""
    write_inputs(folder)
    together = start(folder, "--standalone", "--nproc_per_node=2")
    _, err = together.communicate(timeout=240)
    assert together.returncode == 0, err
    loaded = [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]
    return [{name: Observed(**plain) for name, plain in found.items()} for found in loaded]


@pytest.fixture(scope="module")
def alone(folder: Path, ranks: list[Found]) -> Iterator[Found]:
    """Record of one process on the same batches, the predictor on the same tokens."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        tokenizer = observed("tokenizer", folder, "alone")
        shared = str(folder / "together")
        yield {
            "tokenizer": tokenizer,
            "predictor": observed("predictor", folder, "alone_too", tokenizer=shared),
        }


def gap(one: Observed, other: Observed, step: int = 0) -> float:
    """Greatest difference of two gradients, as a share of the greatest component."""
    pairs = list(zip(one.gradients[step], other.gradients[step], strict=True))
    return max((a - b).abs().max().item() for a, b in pairs) / max(a.abs().max().item() for a, _ in pairs)


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_the_gradient_of_two_processes_is_that_of_one_on_the_joined_batch(
    stage: Stage, ranks: list[Found], alone: Found
) -> None:
    for found in ranks:
        assert len(found[stage].gradients) == STEPS
        # float32 sums in another order
        assert gap(found[stage], alone[stage]) < 1e-5
        for step in range(1, STEPS):  # at weights that have drifted apart by a rounding
            assert gap(found[stage], alone[stage], step) < 1e-3


def test_parts_of_a_batch_in_two_processes_give_the_gradient_of_the_whole(
    ranks: list[Found], alone: Found
) -> None:
    for found in ranks:
        assert gap(found["accumulated"], alone["predictor"]) < 1e-5


def test_two_processes_learn_a_head_from_the_labels_of_the_joined_batch(
    ranks: list[Found], folder: Path, alone: Found
) -> None:
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        single = headed(folder, "headed_alone")
    for found in ranks:
        assert gap(found["headed"], single) < 1e-5
    rows = [found["headed"].progress.history[-1] | {"seconds": 0} for found in ranks]
    assert rows[0] == rows[1]
    want = single.progress.history[-1]
    # scores that all but tie may change places by a rounding
    assert rows[0]["val_rank"] == pytest.approx(want["val_rank"], abs=0.02)
    one, two = (
        load_file(folder / output / "last" / "predictor" / "head.safetensors")
        for output in ("headed", "headed_alone")
    )
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4)


def test_without_pooling_the_codebooks_entropy_would_be_another(ranks: list[Found], alone: Found) -> None:
    for found in ranks:
        assert gap(found["unpooled"], alone["tokenizer"]) > 1e-4  # ten times the most that rounding may do


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_two_processes_train_the_weights_that_one_trains(
    stage: Stage, folder: Path, ranks: list[Found], alone: Found
) -> None:
    single = "alone" if stage == "tokenizer" else "alone_too"
    one, two = (load_weights(folder / output / "last" / stage) for output in (single, "together"))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_all_processes_know_the_same_losses(stage: Stage, ranks: list[Found], alone: Found) -> None:
    histories = [found[stage].progress.history for found in (*ranks, alone)]
    for rows in zip(*histories, strict=True):
        first, second, single = ({k: v for k, v in row.items() if k != "seconds"} for row in rows)
        assert first == second
        assert first == pytest.approx(single, rel=1e-4)


def test_each_process_drops_other_units(ranks: list[Found]) -> None:
    for stage in ("tokenizer", "predictor"):
        assert not torch.equal(ranks[0][stage].drawn, ranks[1][stage].drawn)


def test_only_the_first_process_writes(folder: Path, ranks: list[Found]) -> None:
    output = folder / "unpooled"
    assert sorted(path.name for path in output.iterdir()) == ["best", "last", "run"]
    assert not list(output.rglob("*unfinished*"))
    (state,) = (output / "run" / "tokenizer").glob("state-*")
    assert len(list(state.glob("random_states_*"))) == 2  # each continues with its own stream


def test_two_machines_train_the_weights_of_two_processes_of_one(folder: Path, ranks: list[Found]) -> None:
    """Two agents on loopback, each with one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    agents = [start(folder, *words, f"--node_rank={rank}", output="machines") for rank in range(2)]
    errors = [agent.communicate(timeout=240)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], errors
    one, two = (load_weights(folder / output / "last" / "tokenizer") for output in ("together", "machines"))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=0, msg=name)
