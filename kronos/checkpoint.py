"""Where weights come from and go to: a bundled name, a folder, or a Hugging Face id with a revision.

A checkpoint of one network is a folder with `config.json` and `model.safetensors`, as upstream writes it.
A pair is a folder with `tokenizer/` and `predictor/`, each such a checkpoint, e.g. the bundled `kronos-nano`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kronos.config import ModelConfig, TokenizerConfig, config_from_dict
from kronos.layers import Attention, rope_frequencies
from kronos.model import Kronos
from kronos.tokenizer import KronosTokenizer

_Net = TypeVar("_Net", Kronos, KronosTokenizer)

PRETRAINED = Path(__file__).parent / "pretrained"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"

# The tokenizer that each released model was trained with; revisions pinned to what we tested against.
RELEASED = {
    "NeoQuasar/Kronos-mini": "NeoQuasar/Kronos-Tokenizer-2k",
    "NeoQuasar/Kronos-small": "NeoQuasar/Kronos-Tokenizer-base",
    "NeoQuasar/Kronos-base": "NeoQuasar/Kronos-Tokenizer-base",
}
REVISIONS = {
    "NeoQuasar/Kronos-mini": "f4e68697d9d5aed55cef5c96aabc3376bcad9f81",
    "NeoQuasar/Kronos-small": "901c26c1332695a2a8f243eb2f37243a37bea320",
    "NeoQuasar/Kronos-base": "2b554741eca47781b64468546e77fef3e85130e6",
    "NeoQuasar/Kronos-Tokenizer-base": "0e0117387f39004a9016484a186a908917e22426",
    "NeoQuasar/Kronos-Tokenizer-2k": "26966d0035065a0cae0ebad7af8ece35bc1fb51c",
}


@dataclass(frozen=True)
class Checkpoint:
    """A loaded pair, ready to forecast.

    Attributes:
        model, tokenizer: in eval mode, on the CPU.
        name: what the caller asked for.
        revision: of the hub, where it came from there.
        sha256: of both weight files and configs, in hexadecimal.
        trained_until: last date that training saw (ISO), from the model card; None where it does not say.
    """

    model: Kronos
    tokenizer: KronosTokenizer
    name: str
    revision: str | None
    sha256: str
    trained_until: str | None


def load_checkpoint(spec: str | Path, tokenizer: str | Path | None = None, revision: str | None = None) -> Checkpoint:
    """Load a model with the tokenizer it belongs to.

    Args:
        spec: a bundled name (`kronos-nano`), a folder with `tokenizer/` and `predictor/`, a folder or hub id
            of a model alone.
        tokenizer: the tokenizer's folder or hub id, where `spec` is a model alone; released models know theirs.
        revision: of the model on the hub.

    Raises:
        ValueError: the two do not fit together, or no tokenizer is known.
        FileNotFoundError: nothing by that name; says how to get it.
    """
    pair = resolve_pair(spec)
    if pair is not None:
        model_dir, tokenizer_dir = pair / "predictor", pair / "tokenizer"
    else:
        tokenizer = tokenizer or RELEASED.get(str(spec))
        if tokenizer is None:
            raise ValueError(
                f"'{spec}' is a model without a tokenizer. Name one, e.g. tokenizer='NeoQuasar/Kronos-Tokenizer-base'."
            )
        model_dir, tokenizer_dir = resolve(spec, revision), resolve(tokenizer)
    model, loaded_tokenizer = load_network(Kronos, model_dir), load_network(KronosTokenizer, tokenizer_dir)
    check_pair(model, loaded_tokenizer)
    return Checkpoint(
        model=model,
        tokenizer=loaded_tokenizer,
        name=str(spec),
        revision=revision or REVISIONS.get(str(spec)),
        sha256=_sha256(model_dir, tokenizer_dir),
        trained_until=_trained_until(pair or model_dir),
    )


def check_pair(model: Kronos, tokenizer: KronosTokenizer) -> None:
    """Demand that model and tokenizer speak the same vocabulary.

    Raises:
        ValueError: with both sides of the mismatch.
    """
    theirs = (tokenizer.config.s1_bits, tokenizer.config.s2_bits)
    ours = (model.config.s1_bits, model.config.s2_bits)
    if ours != theirs:
        raise ValueError(
            f"The model reads tokens of {ours} bits but the tokenizer writes {theirs}. "
            "Load the tokenizer that the model was trained with."
        )


def load_network(kind: type[_Net], spec: str | Path, revision: str | None = None) -> _Net:
    """Load one network from a folder, bundled name or hub id; eval mode, on the CPU.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: weights and config do not fit, or it is a checkpoint of the other network.
    """
    folder = resolve(spec, revision)
    config_kind = TokenizerConfig if kind is KronosTokenizer else ModelConfig
    values = json.loads((folder / CONFIG).read_text())
    network = kind(config_from_dict(config_kind, values, str(folder / CONFIG)))  # type: ignore[arg-type]
    try:
        weights = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is not a safetensors file ({error}). Fetch it again.") from None
    known = upstream_buffers(network)
    try:
        network.load_state_dict({k: v for k, v in weights.items() if k not in known})
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit its config.json: {error}") from None
    return network.eval()


def save_network(network: Kronos | KronosTokenizer, folder: str | Path) -> Path:
    """Write config.json and model.safetensors, with the constants upstream stores, so that it loads there too."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {**network.state_dict(), **upstream_buffers(network)}
    contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(asdict(network.config), indent=2, sort_keys=True) + "\n")
    return folder


def upstream_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Constants that upstream keeps in its checkpoints: accepted and dropped here, written for its sake."""
    buffers = {
        f"{name}.rotary.inv_freq": rope_frequencies(module.head_width)
        for name, module in network.named_modules()
        if isinstance(module, Attention)
    }
    if isinstance(network, KronosTokenizer):
        config = network.config
        for name, width in (("basis", config.s1_bits + config.s2_bits), ("group_basis", config.group_size)):
            buffers[f"tokenizer.bsq.{name}"] = 2 ** torch.arange(width - 1, -1, -1)
    return buffers


def resolve(spec: str | Path, revision: str | None = None) -> Path:
    """The folder that holds `config.json` and `model.safetensors` for a folder or hub id.

    Raises:
        FileNotFoundError: names the ways to get a checkpoint.
    """
    folder = Path(spec).expanduser()
    if folder.is_dir():
        absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if absent:
            raise FileNotFoundError(f"{folder} lacks {absent}. Point to the folder that holds a checkpoint's files.")
        return folder
    return _from_hub(str(spec), revision or REVISIONS.get(str(spec)))


def resolve_pair(spec: str | Path) -> Path | None:
    """The folder with `tokenizer/` and `predictor/` that a bundled name or a path stands for, else None."""
    for folder in (PRETRAINED / str(spec), Path(spec).expanduser()):
        if (folder / "predictor" / CONFIG).is_file() and (folder / "tokenizer" / CONFIG).is_file():
            return folder
    return None


def bundled() -> list[str]:
    """Names of the checkpoints that ship with the package."""
    return sorted(p.name for p in PRETRAINED.iterdir() if (p / "predictor" / CONFIG).is_file())


def _from_hub(repo: str, revision: str | None) -> Path:
    # Imported here: a bundled or local checkpoint must not pay for the hub client.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        paths = [Path(hf_hub_download(repo, name, revision=revision)) for name in (CONFIG, WEIGHTS)]
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"No checkpoint '{repo}'{f' at revision {revision}' if revision else ''} ({reason}). Pass a bundled "
            f"name {bundled()}, a folder with {CONFIG} and {WEIGHTS}, or a Hugging Face id while online or "
            f"already in the cache (`hf download {repo}` fetches it once)."
        ) from error
    return paths[0].parent


def _sha256(*folders: Path) -> str:
    digest = hashlib.sha256()
    for folder in folders:
        for name in (CONFIG, WEIGHTS):
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _trained_until(folder: Path) -> str | None:
    card = folder / CARD
    if not card.is_file():
        return None
    for line in card.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "trained_until":
            return value.strip().strip("'\"")
    return None
