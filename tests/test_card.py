"""The data card says what is in the data, `datasets` loads by it, and a push sends exactly what a dry run says."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import ROOT
from datasets import load_dataset
from huggingface_hub import DatasetCard
from test_pairs import CHOSEN, NAMES, PARAMS, prompt, response, revision

from ccai import card, constitution, pairs, records
from ccai.gates import GATES

TOKEN = "hf_thetokenthatmustnotbeprinted"
COMMIT = "1" * 40
ABOUT = {"model": "smollm2-135m", "revision": "abc123", "unverified_weights": False}
CONSTITUTION = constitution.load(ROOT / "data/constitutions/contemplative.md")


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Pairs of four prompts in data/pairs of a folder of their own, and what the stage would say of them."""
    monkeypatch.chdir(tmp_path)
    for name in ("data/sources", "conf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    names = NAMES[:4]
    sources = {name: "ailuminate" if name < "p02" else "mine.jsonl" for name in names}
    by_id = {name: prompt(name).model_copy(update={"source": sources[name]}) for name in names}
    answers = {name: response(name) for name in names}
    revisions = [revision(name, f"{CHOSEN} {name}") for name in names] + [revision("p00", "No.", principle="openness")]
    found = list(pairs.candidates(pairs.joined(by_id, answers, revisions), "Be brief."))
    fates = pairs.decide(found, PARAMS, 7, lambda asked: [False] * len(asked))
    return {"seed": 7, **pairs.write(Path("data/pairs"), found, fates, {}).metrics()}


def write(metrics: dict[str, Any]) -> str:
    text = card.text(metrics, CONSTITUTION, {"rejected": ABOUT, "chosen": ABOUT})
    records.write_text(Path("data/pairs/README.md"), text)
    return text


def test_card_says_what_is_there(metrics: dict[str, Any]) -> None:
    text = write(metrics)
    data = DatasetCard.load("data/pairs/README.md").data
    assert (data.license, data.size_categories) == ("other", ["n<1K"])
    assert "4 preference pairs (3 train, 1 validation; split by prompt)" in text
    assert "| ailuminate | 2 | CC-BY-4.0 | MLCommons" in text
    assert "| mine.jsonl | 2 | not stated |" in text
    assert "\nTo cite:\n\n- " in text
    assert f"sha256 `{CONSTITUTION.sha256}`" in text
    assert "| `chosen` | smollm2-135m | `abc123` | apache-2.0 |" in text
    assert "1 of 5 pairs were dropped" in text
    for gate in GATES:
        assert f"| {gate} | {int(gate == 'too_short')} |" in text
    assert "Content notice" in text
    assert "Question p0" not in text


def test_licence_is_named_only_where_all_prompts_are_under_it(metrics: dict[str, Any]) -> None:
    write(metrics | {"kept_by_source": {"ailuminate": 4}})
    assert DatasetCard.load("data/pairs/README.md").data.license == "cc-by-4.0"
    for kept in ({"ailuminate": 2, "harmfulqa": 2}, {"contemplative": 4}, {"mine.jsonl": 4}):
        write(metrics | {"kept_by_source": kept})
        assert DatasetCard.load("data/pairs/README.md").data.license == "other"


def test_judge_that_failed_is_said_to_have_failed(metrics: dict[str, Any]) -> None:
    judge = {"model": "small", "revision": "r", "passed": False, "auc": 0.512}
    assert "No judge was asked." in write(metrics)
    assert "The judge small failed its exam (AUC 0.51): its gates were off, and its numbers are invalid." in write(
        metrics | {"judge": judge}
    )
    assert "Judge: small (`r`), which passed its exam with AUC 0.91." in write(
        metrics | {"judge": judge | {"passed": True, "auc": 0.91}}
    )


def test_datasets_loads_the_folder_and_the_files(metrics: dict[str, Any], tmp_path: Path) -> None:
    write(metrics)
    folder = "data/pairs"
    loaded = load_dataset(folder, cache_dir=str(tmp_path / "cache"))
    assert {side: rows.num_rows for side, rows in loaded.items()} == {"train": 3, "validation": 1}
    assert loaded["train"][0]["chosen"][0]["role"] == "assistant"
    sft = load_dataset(folder, "sft", cache_dir=str(tmp_path / "cache"))
    assert [turn["role"] for turn in sft["validation"][0]["messages"]] == ["system", "user", "assistant"]
    files = {side: f"{folder}/{side}.jsonl" for side in ("train", "validation")}
    assert load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))["train"].num_rows == 3


# --- the hub ------------------------------------------------------------------------------------------------


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
        self.send({"id": "org/pairs", "private": self.server.private})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        self.server.tokens.add(self.headers["Authorization"])
        if self.server.status != 200:
            return self.send({"error": "You may not."}, self.server.status)
        if path == "/api/repos/create":
            self.server.created.append(json.loads(content))
            return self.send({"url": f"{self.server.address}/datasets/org/pairs"})
        if path == "/api/validate-yaml":
            return self.send({"errors": [], "warnings": []})
        if path == "/api/datasets/org/pairs/preupload/main":
            asked = json.loads(content)["files"]
            modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
            return self.send({"files": modes})
        if path == "/api/datasets/org/pairs/commit/main":
            for line in content.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.server.address}/datasets/org/pairs/commit/{COMMIT}"
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


def push(hub: Hub | None, *options: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(("HF_", "HTTP", "ALL_PROXY"))}
    kept |= {"PYTHONPATH": str(ROOT), "HF_HOME": str(Path("hf").absolute()), "HF_TOKEN": token}
    kept["HF_ENDPOINT"] = hub.address if hub else "http://127.0.0.1:9"
    command = [sys.executable, "-m", "ccai.card", "push", "org/pairs", *options]
    done = subprocess.run(command, env=kept, capture_output=True, text=True)
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_what_a_dry_run_says_is_what_a_push_sends(metrics: dict[str, Any], hub: Hub) -> None:
    write(metrics)
    dry = push(hub, "--dry-run", token="")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.splitlines()[-1] == "dry run: nothing was sent"
    assert (hub.files, hub.created, hub.tokens) == ({}, [], set())
    said = {
        name: int(size.replace(",", "")) for size, name in re.findall(r"^ *([\d,]+) bytes  (.+)$", dry.stdout, re.M)
    }
    done = push(hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"sent: {hub.address}/datasets/org/pairs/commit/{COMMIT}"
    assert {name: len(content) for name, content in hub.files.items()} == said
    assert sorted(said) == ["README.md", "sft/train.jsonl", "sft/validation.jsonl", "train.jsonl", "validation.jsonl"]
    for name, content in hub.files.items():
        assert content == Path("data/pairs", name).read_bytes()
    [created] = hub.created
    assert (created["type"], created["visibility"]) == ("dataset", "private")
    assert hub.tokens == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("hub", [(403, True)], indirect=True)
def test_what_the_hub_refuses_is_one_line(metrics: dict[str, Any], hub: Hub) -> None:
    write(metrics)
    for done, message in (
        (push(hub), "error: org/pairs: the Hub refused: "),
        (push(hub, token=""), "error: HF_TOKEN is not set; "),
    ):
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert line.startswith(message)


@pytest.mark.parametrize("hub", [(200, False)], indirect=True)
def test_public_dataset_gets_nothing_unless_asked(metrics: dict[str, Any], hub: Hub) -> None:
    write(metrics)
    done = push(hub)
    assert done.returncode == 2
    assert "org/pairs: there already, and public" in done.stderr
    assert hub.files == {}
    assert push(hub, "--public").returncode == 0
    assert len(hub.files) == 5


def test_nothing_to_send_is_one_line(metrics: dict[str, Any]) -> None:
    done = push(None, "--dry-run")
    assert done.returncode == 2
    assert done.stderr == "error: data/pairs/README.md: no such file; run the stage that writes it (dvc repro pairs)\n"
    records.write_text(Path("data/pairs/README.md"), "---\n- a\n---\n")
    done = push(None, "--dry-run")
    assert done.returncode == 2
    assert "no dataset card" in done.stderr
