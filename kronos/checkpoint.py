"""Loading and saving of weights: a bundled name, a folder, or a Hugging Face id with a revision.

A checkpoint of one network is a folder with `config.json` and `model.safetensors`, as upstream writes it. A pair
is a folder with `tokenizer/` and `predictor/`, each of which is such a checkpoint, e.g. the bundled
`kronos-nano`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typing_extensions import Self

from kronos.config import (
    PRETRAINED,
    ModelConfig,
    SampleConfig,
    TokenizerConfig,
    card_trained_until,
    config_from_dict,
    read_json,
)
from kronos.hub import HUB, HubOptions, download_checkpoint
from kronos.layers import Attention, rope_frequencies
from kronos.utils import atomic_file, explain_write_errors, write_atomic

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SAMPLING = "sampling.json"  # next to a predictor's weights: T, top_p and top_k that its validation chose

# The tokenizer of each model that upstream released, and the revisions that were tested.
UPSTREAM_TOKENIZERS = {
    "NeoQuasar/Kronos-mini": "NeoQuasar/Kronos-Tokenizer-2k",
    "NeoQuasar/Kronos-small": "NeoQuasar/Kronos-Tokenizer-base",
    "NeoQuasar/Kronos-base": "NeoQuasar/Kronos-Tokenizer-base",
}
UPSTREAM_REVISIONS = {
    "NeoQuasar/Kronos-mini": "f4e68697d9d5aed55cef5c96aabc3376bcad9f81",
    "NeoQuasar/Kronos-small": "901c26c1332695a2a8f243eb2f37243a37bea320",
    "NeoQuasar/Kronos-base": "2b554741eca47781b64468546e77fef3e85130e6",
    "NeoQuasar/Kronos-Tokenizer-base": "0e0117387f39004a9016484a186a908917e22426",
    "NeoQuasar/Kronos-Tokenizer-2k": "26966d0035065a0cae0ebad7af8ece35bc1fb51c",
}
UPSTREAM_TRAINING_CUTOFF = "2024-06-30"  # from the paper; the hub's model cards do not state it

# Methods of upstream's networks, and their counterparts here.
UPSTREAM_METHODS = {
    "decode_s1": "hidden() and s1_logits()",
    "decode_s2": "s2_logits()",
    "indices_to_bits": "quantizer.codes()",
}


class PretrainedModule(nn.Module):
    """Base class of both networks: loads and saves weights. Subclasses set `config_type` and `part`."""

    config_type: ClassVar[type[TokenizerConfig] | type[ModelConfig]]
    part: ClassVar[str]  # its subfolder in a pair

    config: Any

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """A network with these sizes and random weights."""
        return cls(config)

    @classmethod
    def from_pretrained(
        cls,
        spec: str | Path,
        revision: str | None = None,
        *,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        force_download: bool = False,
    ) -> Self:
        """Load from a bundled name, a folder, or a hub id; in eval mode, on the CPU.

        Args:
            spec: `kronos-nano`, a folder with this network's files, a pair's folder, or e.g.
                `NeoQuasar/Kronos-small`.
            revision: hub revision; ids that upstream released default to the tested one.
            cache_dir, local_files_only, token, force_download: see `kronos.hub.HubOptions`.

        Raises:
            FileNotFoundError: there is no such checkpoint; says how to get one.
            ValueError: weights and config do not match, or it is a checkpoint of another network.
        """
        hub = HubOptions(cache_dir, local_files_only, token, force_download)
        folder = resolve(spec, cls.part, revision, hub)
        values = read_json(folder / CONFIG)
        network = cls.from_config(config_from_dict(cls.config_type, values, str(folder / CONFIG)))
        try:
            weights = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise ValueError(
                f"{folder / WEIGHTS} is not a safetensors file ({error}). Download it again."
            ) from None
        constants = network.upstream_buffers()
        try:
            network.load_state_dict({k: v for k, v in weights.items() if k not in constants})
        except RuntimeError as error:
            raise ValueError(f"{folder / WEIGHTS} does not match its config.json: {error}") from None
        return network.eval()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write config.json and model.safetensors, each whole; upstream loads them, since they have its buffers."""
        folder = Path(folder)
        tensors = {**self.state_dict(), **self.upstream_buffers()}
        contiguous = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with explain_write_errors(folder, "Choose another folder for the weights."):
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(folder / WEIGHTS) as draft:
                save_file(contiguous, draft, metadata={"format": "pt"})
            write_atomic(folder / CONFIG, json.dumps(asdict(self.config), indent=2, sort_keys=True) + "\n")
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload weights",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Save to a repository of the Hugging Face hub, which is created if necessary.

        Args:
            repo_id: such as `me/my-kronos`; one network per repository, as upstream's.
            commit_message: message of the commit.
            private: whether a new repository is private; None uses the account's default.
            token: access token with write permission; None uses that of `hf auth login`.
            branch: branch to commit to; None is main.
            create_pr: open a pull request with the commit.

        Returns:
            The URL of the commit.

        Raises:
            ValueError: the hub refused it; gives the reason.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            try:
                repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
                if branch is not None:
                    api.create_branch(repo, branch=branch, exist_ok=True)
                commit = api.upload_folder(
                    repo_id=repo,
                    folder_path=folder,
                    commit_message=commit_message,
                    revision=branch,
                    create_pr=create_pr,
                )
            except Exception as error:
                # Errors of the hub and of its HTTP client share no other base class.
                reason = str(error).strip().partition("\n")[0]
                raise ValueError(
                    f"'{repo_id}' could not be written ({reason}). Check its name and the connection, and pass a "
                    "token that may write to it, or use `hf auth login`."
                ) from error
        return str(commit.commit_url)

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        """Point from methods of upstream's networks to their counterparts."""
        if name in UPSTREAM_METHODS:
            kind = type(self).__name__
            raise AttributeError(
                f"{kind} has no {name}. Use {UPSTREAM_METHODS[name]}, or load kronos.compat.{kind}."
            )
        return super().__getattr__(name)

    def upstream_buffers(self) -> dict[str, Tensor]:
        """Buffers that upstream keeps in checkpoints: ignored on loading, written for compatibility."""
        return {
            f"{name}.rotary.inv_freq": rope_frequencies(module.head_width)
            for name, module in self.named_modules()
            if isinstance(module, Attention)
        }


@dataclass(frozen=True)
class CheckpointInfo:
    """The checkpoint that a pair of networks was loaded from; part of every forecast's provenance.

    Attributes:
        name: name as given by the caller.
        revision: commit of the model on the hub, None elsewhere.
        sha256: hash of both networks' configs and weights, in hexadecimal.
        trained_until: last date of the training data (ISO), from the model card or the paper; None if unknown.
    """

    name: str
    revision: str | None
    sha256: str
    trained_until: str | None


def resolve(spec: str | Path, part: str, revision: str | None = None, hub: HubOptions = HUB) -> Path:
    """The folder with one network's `config.json` and `model.safetensors`.

    Args:
        spec: bundled name, folder of a pair or of the network, or hub id.
        part: `tokenizer` or `predictor`.
        revision: hub revision.
        hub: download options.

    Raises:
        FileNotFoundError: there is none; lists the ways to get a checkpoint.
    """
    folder = next((f for f in _places(spec, part) if (f / CONFIG).is_file()), Path(spec).expanduser())
    if not folder.is_dir():
        return _from_hub(str(spec), revision or UPSTREAM_REVISIONS.get(str(spec)), hub)
    if absent := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} lacks {absent}. Pass the folder with a checkpoint's files.")
    return folder


def resolve_pair(spec: str | Path) -> Path | None:
    """The folder with `tokenizer/` and `predictor/` of a bundled name or a path, else None."""
    for predictor, tokenizer in zip(_places(spec, "predictor"), _places(spec, "tokenizer"), strict=True):
        if (predictor / CONFIG).is_file() and (tokenizer / CONFIG).is_file():
            return predictor.parent
    return None


def resolve_tokenizer(spec: str | Path) -> str | Path:
    """Where to load the tokenizer of model `spec` from: its pair, or the one that upstream released with it.

    Raises:
        ValueError: a model without a known tokenizer.
    """
    if resolve_pair(spec):
        return spec
    if str(spec) not in UPSTREAM_TOKENIZERS:
        raise ValueError(
            f"'{spec}' is not a folder with tokenizer/ and predictor/, a bundled name {bundled()} or a released "
            "model. Pass its tokenizer, too, e.g. tokenizer='NeoQuasar/Kronos-Tokenizer-base'."
        )
    return UPSTREAM_TOKENIZERS[str(spec)]


def bundled() -> list[str]:
    """Names of the checkpoints that ship with the package."""
    return sorted(p.parent.parent.name for p in PRETRAINED.glob(f"*/predictor/{CONFIG}"))


def checkpoint_info(spec: str | Path, predictor: Path, tokenizer: Path) -> CheckpointInfo:
    """Identify a pair by the contents of its files.

    Args:
        spec: name of the model as given by the caller.
        predictor, tokenizer: folders of the two networks, see `resolve`.
    """
    on_hub = not Path(spec).expanduser().exists() and str(spec) not in bundled()
    cut_off = card_trained_until(resolve_pair(spec) or predictor)
    return CheckpointInfo(
        name=str(spec),
        revision=predictor.name if on_hub else None,  # the cache names a folder by its commit
        sha256=hash_weights(predictor, tokenizer),
        trained_until=cut_off or (UPSTREAM_TRAINING_CUTOFF if str(spec) in UPSTREAM_TOKENIZERS else None),
    )


def default_sampling(predictor: Path) -> SampleConfig:
    """The sampling settings in `sampling.json` of a predictor's folder; those of the paper without one.

    Raises:
        ValueError: the file has other settings than T, top_p and top_k.
    """
    file = predictor / SAMPLING
    if not file.is_file():
        return SampleConfig()
    values = read_json(file)
    if unknown := sorted(set(values) - {"T", "top_p", "top_k"}):
        raise ValueError(f"{file} has unknown keys {unknown}. It may set T, top_p and top_k.")
    return SampleConfig(**values)


def hash_weights(*folders: Path) -> str:
    """sha256 of the configs and weights in network folders, in hexadecimal."""
    digest = hashlib.sha256()
    for folder in folders:
        for name in (CONFIG, WEIGHTS):
            digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def trained_until(spec: str | Path, part: str) -> str | None:
    """Last date of one network's training data (ISO), from its model card or the paper; None if unknown."""
    folder = resolve(spec, part)
    card = card_trained_until(folder) or (card_trained_until(folder.parent) if folder.name == part else None)
    released = {*UPSTREAM_TOKENIZERS, *UPSTREAM_TOKENIZERS.values()}
    return card or (UPSTREAM_TRAINING_CUTOFF if str(spec) in released else None)


def _places(spec: str | Path, part: str) -> tuple[Path, Path]:
    """Possible folders of one network of a bundled name or a path."""
    return PRETRAINED / str(spec) / part, Path(spec).expanduser() / part


def _from_hub(repo: str, revision: str | None, hub: HubOptions) -> Path:
    try:
        return download_checkpoint(repo, revision, (CONFIG, WEIGHTS), hub)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} Pass a bundled name {bundled()}, a folder with {CONFIG} and {WEIGHTS}, or a Hugging Face id "
            f"while online or in the cache (`hf download {repo}` fills it)."
        ) from error
