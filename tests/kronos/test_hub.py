"""The hub as huggingface_hub's own client reaches it: over HTTP, on a server that keeps repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from kronos import compat
from kronos.model import Kronos
from kronos.predictor import KronosPredictor
from kronos.tokenizer import KronosTokenizer
from tests.kronos.builders import make_model, make_tokenizer
from tests.kronos.test_checkpoint import assert_same_weights, publish

TOKEN = "hf_" + "x" * 30


class Server(ThreadingHTTPServer):
    """Repositories by name, each with branches of files by path; every request needs TOKEN."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}  # name -> branch -> path -> bytes
        self.asked: list[dict[str, Any]] = []  # bodies of POST requests to /api/repos/create
        self.requests = 0
        self.after_each: Callable[[], None] | None = None  # called between finding a file and sending it

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def commit_of(files: dict[str, bytes]) -> str:
    """Forty hexadecimal digits that change with any of the files."""
    return hashlib.sha1(b"".join(name.encode() + files[name] for name in sorted(files))).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The few routes that a small upload and a download need."""

    server: Server

    def do_POST(self) -> None:
        self.server.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            self.server.asked.append(asked)
            name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
            self.server.repositories.setdefault(name, {"main": {}})
            return self.answer(200, {"url": f"{self.server.address}/{name}", "name": name})
        name, _, action = self.path.removeprefix("/api/models/").rpartition("/")
        name, _, kind = name.rpartition("/")
        if kind == "branch":
            self.server.repositories[name].setdefault(action, {})
            return self.answer(200, {})
        action = action.partition("?")[0]
        if kind == "preupload":
            files = json.loads(body)["files"]
            answers = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            return self.answer(200, {"files": answers})
        assert kind == "commit", self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.repositories[name][action][line["value"]["path"]] = content
        commit = commit_of(self.server.repositories[name][action])
        url = f"{self.server.address}/{name}/commit/{commit}"
        return self.answer(200, {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def do_GET(self) -> None:
        self.server.requests += 1
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        name, _, rest = self.path.removeprefix("/").partition("/resolve/")
        branch, _, path = rest.partition("/")
        branches = self.server.repositories.get(name, {})
        branch = next((each for each, files in branches.items() if commit_of(files) == branch), branch)
        content = branches.get(branch, {}).get(path)
        if content is None:
            return self.answer(404, {}, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"})
        etag = hashlib.sha256(content).hexdigest()
        commit = commit_of(branches[branch])
        if self.server.after_each is not None:
            self.server.after_each()
        return self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    do_HEAD = do_GET

    def answer(
        self, status: int, content: dict[str, Any] | bytes, headers: dict[str, str] | None = None
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An empty hub, to which huggingface_hub connects; without a cache and without a login."""
    with Server() as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        constants = "huggingface_hub.constants."
        monkeypatch.setattr(constants + "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants + "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants + "HUGGINGFACE_CO_URL_TEMPLATE",
            hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants + "HF_HUB_CACHE", str(tmp_path / "default cache"))
        monkeypatch.setattr(constants + "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub
        hub.shutdown()
        thread.join()


@pytest.mark.parametrize("make", [make_model, make_tokenizer], ids=["model", "tokenizer"])
def test_weights_pushed_to_the_hub_are_loaded_from_it_bit_for_bit(
    make: Callable[[], Kronos | KronosTokenizer], server: Server, tmp_path: Path
) -> None:
    network = make()
    address = network.push_to_hub("acme/tiny", token=TOKEN, private=True)
    assert address.startswith(f"{server.address}/acme/tiny/commit/")
    asked = server.asked[0]  # older clients say private: true
    assert asked.get("visibility", asked.get("private")) in ("private", True)
    assert set(server.repositories["acme/tiny"]["main"]) == {"config.json", "model.safetensors"}
    loaded = type(network).from_pretrained("acme/tiny", cache_dir=tmp_path / "own", token=TOKEN)
    assert_same_weights(loaded, network)
    assert (tmp_path / "own" / "models--acme--tiny").is_dir()
    assert not (tmp_path / "default cache").exists()


def test_the_files_pushed_are_those_that_save_pretrained_writes(server: Server, tmp_path: Path) -> None:
    network = make_model()
    network.push_to_hub("acme/tiny", token=TOKEN)
    saved = network.save_pretrained(tmp_path / "saved")
    for name, content in server.repositories["acme/tiny"]["main"].items():
        assert content == (saved / name).read_bytes()


def test_a_branch_is_made_and_pushed_to(server: Server) -> None:
    old, new = make_model(seed=1), make_model(seed=2)
    old.push_to_hub("acme/tiny", token=TOKEN)
    new.push_to_hub("acme/tiny", token=TOKEN, branch="tuned")
    assert_same_weights(Kronos.from_pretrained("acme/tiny", token=TOKEN), old)
    assert_same_weights(Kronos.from_pretrained("acme/tiny", "tuned", token=TOKEN), new)


@pytest.mark.parametrize(
    ("repo", "token"), [("acme/tiny", "hf_wrong"), ("acme/tiny", None), ("not a name!", TOKEN)], ids=str
)
def test_a_push_that_the_hub_refuses_is_one_sentence(repo: str, token: str | None, server: Server) -> None:
    with pytest.raises(
        ValueError, match=rf"'{repo}' could not be written \(.*token .*hf auth login"
    ) as refusal:
        make_model().push_to_hub(repo, token=token)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("how", ["offline", "unreachable"])
def test_a_push_without_a_connection_is_one_sentence(
    how: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"'acme/tiny' could not be written .*connection") as refusal:
        make_model().push_to_hub("acme/tiny", token=TOKEN)
    assert "\n" not in str(refusal.value)


def test_a_private_repository_needs_the_token(server: Server) -> None:
    make_model().push_to_hub("acme/tiny", token=TOKEN)
    with pytest.raises(FileNotFoundError, match="No checkpoint 'acme/tiny'"):
        Kronos.from_pretrained("acme/tiny")
    with pytest.raises(FileNotFoundError, match="No checkpoint 'acme/tiny'"):
        Kronos.from_pretrained("acme/tiny", token=False)


def test_offline_only_cached_files_are_used(server: Server) -> None:
    old, new = make_model(seed=1), make_model(seed=2)
    old.push_to_hub("acme/tiny", token=TOKEN)
    with pytest.raises(FileNotFoundError, match="No checkpoint 'acme/tiny'"):
        Kronos.from_pretrained("acme/tiny", local_files_only=True, token=TOKEN)
    Kronos.from_pretrained("acme/tiny", token=TOKEN)
    new.push_to_hub("acme/tiny", token=TOKEN)
    before = server.requests
    assert_same_weights(Kronos.from_pretrained("acme/tiny", local_files_only=True), old)
    assert server.requests == before
    assert_same_weights(Kronos.from_pretrained("acme/tiny", token=TOKEN, force_download=True), new)


@pytest.mark.parametrize("kind", [KronosPredictor, compat.KronosPredictor], ids=["kronos", "kronos.compat"])
def test_a_predictor_takes_both_networks_from_the_cache_it_is_given(
    kind: type[KronosPredictor], tmp_path: Path, server: Server
) -> None:
    model, tokenizer = make_model(seed=3), make_tokenizer(seed=3)
    cache = tmp_path / "own"
    publish(cache, "acme/model", model.save_pretrained(tmp_path / "m"), "a" * 40, ref="main")
    publish(cache, "acme/tokenizer", tokenizer.save_pretrained(tmp_path / "t"), "b" * 40, ref="main")
    predictor = kind.from_pretrained(
        "acme/model", "acme/tokenizer", device="cpu", cache_dir=str(cache), local_files_only=True
    )
    assert_same_weights(predictor.model, model)
    assert_same_weights(predictor.tokenizer, tokenizer)
    assert predictor.checkpoint_info is not None
    assert server.requests == 0


def test_a_local_folder_never_contacts_the_hub(
    server: Server, reference_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(reference_folder, tmp_path / "pair")
    options = {
        "cache_dir": tmp_path / "own",
        "local_files_only": True,
        "token": TOKEN,
        "force_download": True,
    }
    for kind in (Kronos, KronosTokenizer, KronosPredictor, compat.Kronos, compat.KronosTokenizer):
        kind.from_pretrained(folder, **options)
    assert server.requests == 0
    assert not (tmp_path / "own").exists()


def test_networks_of_either_module_load_what_the_other_pushed(server: Server) -> None:
    network = compat.Kronos.from_config(make_model().config)
    assert network.push_to_hub("acme/tiny", token=TOKEN)
    assert_same_weights(Kronos.from_pretrained("acme/tiny", token=TOKEN), network)
    with torch.no_grad():
        network.head.proj_s1.bias += 1
    network.push_to_hub("acme/tiny", token=TOKEN)
    assert_same_weights(compat.Kronos.from_pretrained("acme/tiny", token=TOKEN, force_download=True), network)


def test_both_files_are_of_one_commit_while_the_branch_moves(server: Server, tmp_path: Path) -> None:
    old, new = make_model(seed=1), make_model(seed=2)
    branches = {}
    for name, network in (("old", old), ("new", new)):
        folder = network.save_pretrained(tmp_path / name)
        branches[name] = {file.name: file.read_bytes() for file in folder.iterdir()}
    server.repositories["acme/tiny"] = {"main": branches["old"], "before": branches["old"]}

    def move() -> None:
        server.repositories["acme/tiny"]["main"] = branches["new"]

    server.after_each = move
    assert_same_weights(Kronos.from_pretrained("acme/tiny", token=TOKEN), old)
    server.after_each = None
    assert_same_weights(Kronos.from_pretrained("acme/tiny", token=TOKEN), new)


def test_a_file_of_the_cache_that_is_not_what_the_hub_gave_is_refused(server: Server, tmp_path: Path) -> None:
    make_model().push_to_hub("acme/tiny", token=TOKEN)
    Kronos.from_pretrained("acme/tiny", cache_dir=tmp_path, token=TOKEN)
    weights = next(tmp_path.rglob("model.safetensors")).resolve()
    assert len(weights.name) == 64  # the sha256 that the hub gave
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: its sha256 .* Delete"):
        Kronos.from_pretrained("acme/tiny", cache_dir=tmp_path, local_files_only=True)
