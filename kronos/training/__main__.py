"""`python -m kronos.training tokenizer|predictor|evaluate`: settings from a YAML file, overridden by flags."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Dict

from kronos.training.config import AUTO, STAGES, Source, Stage, TrainingConfig, parse_date, read_yaml
from kronos.training.sources import QlibReader
from kronos.utils import MissingExtra, run_command, show_log

if TYPE_CHECKING:
    from kronos.training.run_directory import TrainerState

_Qlib = Annotated[QlibReader | None, Parameter(parse=False)]

app = App(
    name="python -m kronos.training",
    help="Train Kronos in two stages: the tokenizer learns to reconstruct bars, then the predictor learns the "
    "next token.\n\nFor example: `torchrun --standalone --nproc_per_node=2 -m kronos.training tokenizer --data "
    "bars.parquet --output out`; `kronos train` also reads Qlib data directories and the simulated market",
    default_parameter=Parameter(
        negative=(), show_default=lambda value: None if value is None or value is False else str(value)
    ),
)


@app.command
def tokenizer(*, config: Path | None = None, settings: TrainingConfig, read_qlib: _Qlib = None) -> None:
    """First stage: learn to reconstruct bars.

    For example: `python -m kronos.training tokenizer --data bars.parquet --output out/bars`

    Args:
        config: YAML file of settings; flags override it.
        settings: settings of the run.
        read_qlib: see `open_reader`; not a flag.
    """
    _run("tokenizer", settings, read_qlib)


@app.command
def predictor(*, config: Path | None = None, settings: TrainingConfig, read_qlib: _Qlib = None) -> None:
    """Second stage: learn the next token of a tokenizer.

    For example: `python -m kronos.training predictor --data bars.parquet --output out/bars`

    Args:
        config: YAML file of settings; flags override it.
        settings: settings of the run.
        read_qlib: see `open_reader`; not a flag.
    """
    _run("predictor", settings, read_qlib)


@app.command
def evaluate(
    checkpoint: Path,
    *,
    train: list[Path],
    train_until: str,
    data: list[Path],
    start: str,
    end: str,
    frequency: str = AUTO,
    lookback: int = 90,
    horizon: int = 11,
    read_qlib: _Qlib = None,
) -> None:
    """Losses of a trained pair on held-out dates compared with unigram, bigram and persistence, as JSON.

    For example: `python -m kronos.training evaluate out/csi300/best --train bars.parquet --train-until 2018-12-31
    --data bars.parquet --start 2020-01-01 --end 2021-12-31`

    Args:
        checkpoint: folder with tokenizer/ and predictor/.
        train: bars for the counting baselines, until `train_until`: files, folders or Qlib data directories.
        train_until: last training date.
        data: held-out bars.
        start: first date of a held-out window's last bar.
        end: last date of a held-out window's last bar.
        frequency: frequency of all bars; auto infers it from the timestamps of each file.
        lookback: number of bars that determine the scale of a window.
        horizon: number of bars after the lookback.
        read_qlib: see `open_reader`; not a flag.
    """
    from kronos.checkpoint import resolve_tokenizer
    from kronos.model import Kronos
    from kronos.tokenizer import KronosTokenizer
    from kronos.training.bar_array import MappedBars
    from kronos.training.dataset import TrainingWindows
    from kronos.training.evaluation import evaluate_held_out

    for name, date in {"train_until": train_until, "start": start, "end": end}.items():
        parse_date(name, date)
    spans = (None, train_until), (start, end)
    sets = []
    for paths, (first, last) in zip((train, data), spans, strict=True):
        mapped_bars = tuple(
            MappedBars.open(Source(path, frequency=frequency), lookback + horizon, read_qlib)
            for path in paths
        )
        starts = tuple(mapped.window_starts(lookback + horizon, first, last) for mapped in mapped_bars)
        if not sum(map(len, starts)):
            raise ValueError(
                f"{[str(p) for p in paths]} have no window that ends in {first or 'the past'} to {last}. "
                "Choose other dates."
            )
        sets.append(TrainingWindows(mapped_bars, starts, lookback, horizon))
    model = Kronos.from_pretrained(checkpoint)
    tokenizer = KronosTokenizer.from_pretrained(resolve_tokenizer(checkpoint))
    result = evaluate_held_out(model, tokenizer, training=sets[0], held_out=sets[1])
    print(json.dumps(asdict(result), indent=1))  # noqa: T201 (a command's result)


def train(tokens: Sequence[str], read_qlib: QlibReader | None = None) -> None:
    """Run the command that the first token names, or both stages without one.

    Args:
        tokens: `tokenizer`, `predictor` or `evaluate` with its flags, or flags of both stages.
        read_qlib: see `open_reader`.
    """
    if not tokens or tokens[0] not in (*STAGES, "evaluate"):
        train_both(tokens, read_qlib)
        return
    command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    command(*bound.args, **bound.kwargs, read_qlib=read_qlib)


def train_both(tokens: Sequence[str], read_qlib: QlibReader | None = None) -> None:
    """Train both stages with the same flags; both are checked before the first one starts."""
    parsed = [app.parse_args([stage, *tokens], exit_on_error=False, print_error=False) for stage in STAGES]
    if any(bound.kwargs["settings"].tokenizer is not None for _, bound, _ in parsed):
        raise ValueError(
            "--tokenizer sets an existing tokenizer, but the first stage trains one. To train it, set pretrained "
            "under `stages: tokenizer:` in the YAML file; to keep it, run only `kronos train predictor --tokenizer "
            "...`."
        )
    _load()
    from kronos.training.initialization import check_starts

    check_starts(*(bound.kwargs["settings"] for _, bound, _ in parsed))
    first = parsed[0][1].arguments
    first["settings"] = _keep_trained_tokenizer(first["settings"])
    for command, bound, _ in parsed:
        command(*bound.args, **bound.kwargs, read_qlib=read_qlib)


def _keep_trained_tokenizer(settings: TrainingConfig) -> TrainingConfig:
    """Settings that do not continue a tokenizer with which a predictor was already trained."""
    runs = settings.output / "run"
    held = runs / "tokenizer" / "settings.json"
    if not settings.resume or not held.is_file() or not (runs / "predictor" / "settings.json").is_file():
        return settings
    before = json.loads(held.read_text())
    ended = {name: before[name] for name in ("max_steps", "patience")}
    if settings.max_steps > ended["max_steps"]:
        logging.getLogger(__name__).info(
            "tokenizer: unchanged after %d steps, because the predictor was trained on its tokens; only the "
            "predictor is trained further",
            ended["max_steps"],
        )
    return replace(settings, **ended)


def _run(stage: Stage, settings: TrainingConfig, read_qlib: QlibReader | None) -> None:
    progress = _load()(stage, settings, read_qlib)
    logging.getLogger(__name__).info("%s: %s; in %s", stage, progress.outcome(), settings.output / "best")


def _load() -> Callable[[Stage, TrainingConfig, QlibReader | None], TrainerState]:
    """Import `run_stage` lazily, so that --help works without torch and accelerate.

    Raises:
        MissingExtra: a required package is not installed.
    """
    try:
        from kronos.training.run import run_stage
    except ModuleNotFoundError as error:
        if error.name not in ("accelerate", "matplotlib"):
            raise
        raise MissingExtra(f"Training needs {error.name}: pip install 'kronos-strategies[train]'.") from error
    return run_stage


def _from_yaml(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill settings without a flag from the file of --config."""
    named = [
        token.value
        for argument in arguments.filter_by(show=None)
        if argument.name == "--config"
        for token in argument.tokens
    ]
    stage = next((stage for stage in STAGES if stage in commands), None)
    if named and stage:
        file = Path(named[0])
        Dict(read_yaml(file, stage), source=str(file), use_commands_as_keys=False)(app, commands, arguments)


app.config = (_from_yaml,)


if __name__ == "__main__":
    show_log()
    run_command(app)
