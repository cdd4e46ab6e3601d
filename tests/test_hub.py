"""A push sends exactly what a dry run says: pairs, an adapter or a merged model."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import ROOT
from helpers.project import Built
from huggingface_hub import ModelCard

from ccai.base import files

TOKEN = "hf_thetokenthatmustnotbeprinted"
COMMIT = "1" * 40


@pytest.fixture(scope="module")
def finished(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, whose model was merged into `merged`."""
    run = built.project.copy(tmp_path_factory.mktemp("finished") / "run")
    done = run.module("ccai", "export", "--merge", "merged")
    assert done.returncode == 0, done.stderr
    return run.folder


@pytest.fixture(autouse=True)
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be pushed from a finished run, and what its cards are made of."""
    here = tmp_path / "here"
    for folder in ("conf", "data/pairs", "data/sources", "metrics", "models", "merged"):
        shutil.copytree(finished / folder, here / folder)
    for name in ("params.yaml", "dvc.lock"):
        shutil.copy(finished / name, here)
    monkeypatch.chdir(here)


class Hub(ThreadingHTTPServer):
    """As much of the hub's API as a push needs; it keeps what it got."""

    def __init__(self, status: int, private: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.private = status, private
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the tests' stderr."""

    def do_GET(self) -> None:
        self.send({"id": "org/name", "private": self.server.private})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        self.server.tokens.add(self.headers["Authorization"])
        if self.server.status != 200:
            return self.send({"error": "You may not."}, self.server.status)
        if path == "/api/repos/create":
            self.server.created.append(json.loads(content))
            return self.send({"url": f"{self.server.address}/org/name"})
        if path == "/api/validate-yaml":
            return self.send({"errors": [], "warnings": []})
        if re.fullmatch("/api/(datasets|models)/org/name/preupload/main", path):
            asked = json.loads(content)["files"]
            modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
            return self.send({"files": modes})
        if re.fullmatch("/api/(datasets|models)/org/name/commit/main", path):
            for line in content.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.server.address}/org/name/commit/{COMMIT}"
            return self.send({"commitUrl": url, "commitOid": COMMIT})
        self.send({}, 404)

    def send(self, value: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(params=[(200, True)])
def hub(request: pytest.FixtureRequest) -> Iterator[Hub]:
    server = Hub(*request.param)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def push(hub: Hub | None, what: str, *options: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(("HF_", "HTTP", "ALL_PROXY"))}
    kept |= {"PYTHONPATH": str(ROOT), "HF_HOME": str(Path("hf").absolute()), "HF_TOKEN": token}
    kept["HF_ENDPOINT"] = hub.address if hub else "http://127.0.0.1:9"
    command = [sys.executable, "-m", "ccai", "push", what, "org/name", *options]
    done = subprocess.run(command, env=kept, capture_output=True, text=True)
    assert TOKEN not in done.stdout + done.stderr
    return done


@pytest.mark.parametrize(
    ("what", "kind", "folder", "names"),
    [
        (
            "pairs",
            "dataset",
            "data/pairs",
            {"sft/train.jsonl", "sft/validation.jsonl", "train.jsonl", "validation.jsonl"},
        ),
        ("adapter", "model", "models/adapter", {"adapter_config.json", "adapter_model.safetensors", "training.yaml"}),
        ("merged", "model", "merged", {"config.json", "model.safetensors", "tokenizer.json", "training.yaml"}),
    ],
)
def test_what_a_dry_run_says_is_what_a_push_sends(hub: Hub, what: str, kind: str, folder: str, names: set[str]) -> None:
    if what == "pairs":
        assert Path(folder, "dropped.jsonl").exists()
    else:
        names |= {path.name for path in Path(folder).iterdir() if path.name != "README.md"}
    dry = push(hub, what, "--dry-run", token="")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.splitlines()[0] == f"org/name: private {kind} on {hub.address}:"
    assert dry.stdout.splitlines()[-1] == "dry run: nothing was sent"
    assert (hub.files, hub.created, hub.tokens) == ({}, [], set())
    said = {
        name: int(size.replace(",", "")) for size, name in re.findall(r"^ *([\d,]+) bytes  (.+)$", dry.stdout, re.M)
    }
    done = push(hub, what)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"sent: {hub.address}/org/name/commit/{COMMIT}"
    assert {name: len(content) for name, content in hub.files.items()} == said
    assert said.keys() == {"README.md"} | names
    for name in names:
        assert hub.files[name] == Path(folder, name).read_bytes()
    [created] = hub.created
    assert (created.get("type", "model"), created["visibility"]) == (kind, "private")
    assert hub.tokens == {f"Bearer {TOKEN}"}


def test_card_of_the_adapter_is_sent_with_the_evaluation_that_came_after_training(hub: Hub) -> None:
    assert push(hub, "adapter").returncode == 0
    sent = hub.files["README.md"].decode()
    assert "| heldout.safety.declining |" in sent
    assert ModelCard(sent).data.library_name == "peft"
    assert "heldout.safety.declining" not in Path("models/adapter/README.md").read_text()


@pytest.mark.parametrize("hub", [(403, True)], indirect=True)
def test_what_the_hub_refuses_is_one_line(hub: Hub) -> None:
    for done, message in (
        (push(hub, "pairs"), "error: org/name: the Hub refused: "),
        (push(hub, "adapter", token=""), "error: HF_TOKEN is not set; "),
    ):
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert line.startswith(message)


@pytest.mark.parametrize("hub", [(200, False)], indirect=True)
@pytest.mark.parametrize("what", ["pairs", "adapter"])
def test_public_repository_gets_nothing_unless_asked(hub: Hub, what: str) -> None:
    done = push(hub, what)
    assert done.returncode == 2
    assert "org/name: exists already and is public" in done.stderr
    assert hub.files == {}
    assert push(hub, what, "--public").returncode == 0
    assert hub.files


@pytest.mark.parametrize(
    ("what", "gone", "message"),
    [
        ("pairs", "data/pairs/README.md", "no such file; run the stage that writes it (dvc repro pairs)"),
        ("adapter", "models/adapter/training.yaml", "no such file; train (dvc repro train) or fetch what was trained"),
        ("merged", "merged/config.json", "no such file; write the folder with ccai export --merge"),
        ("pears", "pears/README.md", "no such file; write the folder with ccai export --merge"),
    ],
)
def test_nothing_to_send_is_one_line(what: str, gone: str, message: str) -> None:
    Path(gone).unlink(missing_ok=True)
    done = push(None, what, "--dry-run")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {gone}: {message}")
    assert done.stderr.count("\n") == 1


def test_card_without_metadata_is_one_line() -> None:
    files.write_text(Path("data/pairs/README.md"), "---\n- a\n---\n")
    done = push(None, "pairs", "--dry-run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: data/pairs/README.md: no card (")
