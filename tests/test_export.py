"""What is trained loads where people will load it: PEFT, plain transformers, its chat command, vLLM, llama.cpp."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from conftest import CPU, ROOT
from helpers import trained
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from ccai.base.errors import UserError
from ccai.base.params import Generation
from ccai.base.records import Message
from ccai.engines.base import Request
from ccai.engines.transformers import Transformers
from ccai.models import find
from ccai.publish import export

GREEDY = Generation(temperature=0, min_p=0, repetition_penalty=1)
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why does it depend on that?"},
]
NEW_TOKENS = 24

GENERATE = f"""
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = tokenizer.apply_chat_template({MESSAGES}, add_generation_prompt=True, return_tensors="pt", return_dict=True)
out = model.generate(**ids, do_sample=False, max_new_tokens={NEW_TOKENS})
print(tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True), end="")
"""


@pytest.fixture(scope="module")
def here(shared_cache: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the train stage has run, with a learning rate that changes what the tiny model answers."""
    folder = tmp_path_factory.mktemp("run") / "project"
    folder.mkdir()
    model = folder / "tiny"
    shutil.copytree(tiny_model, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trained.project(Path("tiny"), {"learning_rate": 0.05, "batch_size": 2, "per_device": 2})
        trained.write_pairs(8, validation=2)
        trained.run()
        export.merge(find.find("tiny"), trained.ADAPTER, Path("merged"))
    return folder


@pytest.fixture(autouse=True)
def inside(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is left there by what fails or is refused."""
    monkeypatch.chdir(here)
    before = sorted(here.iterdir())
    yield
    assert sorted(here.iterdir()) == before


def command(*options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"PATH": path} if path else {})
    environment.pop("LLAMA_CPP", None)
    line = [sys.executable, "-m", "ccai", "export", *options]
    return subprocess.run(line, env=environment, capture_output=True, text=True)


def answer(adapter: Path | None) -> str:
    """The engine's greedy answer."""
    engine = Transformers(find.find("tiny"), CPU, adapter)
    messages = tuple(Message.model_validate(message) for message in MESSAGES)
    [(_, done)] = chain.from_iterable(engine.complete([Request(messages, 0, 1, NEW_TOKENS, GREEDY)]))
    return done.text


def test_peft_and_the_merged_model_answer_as_the_engine_does() -> None:
    wanted = answer(trained.ADAPTER)
    assert wanted != answer(None)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("tiny"), trained.ADAPTER)
    tokenizer = AutoTokenizer.from_pretrained("tiny")
    ids = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**ids, do_sample=False, max_new_tokens=NEW_TOKENS)
    assert tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True) == wanted
    # In a process that knows nothing of this project.
    plain = [sys.executable, "-c", GENERATE, "merged"]
    done = subprocess.run(plain, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.stdout == wanted, done.stderr


def test_merged_folder_is_complete_and_names_no_folder_of_this_machine() -> None:
    names = {path.name for path in Path("merged").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert "chat_template.jinja" in names
    assert not {"adapter_config.json", "adapter_model.safetensors"} & names
    for path in Path("merged").iterdir():
        if path.suffix != ".safetensors":
            assert str(Path.cwd()) not in path.read_text(encoding="utf-8"), path
    with safe_open("merged/model.safetensors", "pt") as merged, safe_open("tiny/model.safetensors", "pt") as base:
        assert set(merged.keys()) == set(base.keys())
        assert {merged.get_tensor(name).dtype for name in merged.keys()} == {base.get_tensor("lm_head.weight").dtype}  # noqa: SIM118
    data = ModelCard.load("merged/README.md").data
    assert data.library_name == "transformers"
    assert "merged into its weights" in Path("merged/README.md").read_text()


def test_nothing_is_overwritten() -> None:
    before = Path("merged/model.safetensors").stat()
    done = command("--merge", "merged")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: merged: exists already; nothing is overwritten: remove it or give another name\n"
    assert Path("merged/model.safetensors").stat() == before


def test_adapter_of_another_base_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "tiny"
    shutil.copytree("tiny", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(
        UserError, match=r"^models/adapter: trained on local/tiny \(sha256:\w+\), but models\.train is "
    ):
        export.merge(find.find(str(other)), trained.ADAPTER, here / "out")


def test_without_an_adapter_is_one_line(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trained.project(here / "tiny", {})
    done = command("--merge", "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: models/adapter/training.yaml: no such file; train (dvc repro train)")
    assert not Path("out").exists()


def test_gguf_without_llama_cpp_is_one_line() -> None:
    done = command("--gguf", "out.gguf", path="/nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --gguf: llama.cpp's convert_hf_to_gguf.py is neither on the PATH nor in")
    assert done.stderr.count("\n") == 1


def test_gguf_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ends as the converter does for a model it does not know."""
    (tmp_path / export.CONVERTER).write_text("raise SystemExit('ERROR:hf-to-gguf:Model X is not supported')")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    with pytest.raises(UserError, match=r"can't convert this model \(ERROR:hf-to-gguf:Model X is not supported\)"):
        export.gguf(Path("merged"), Path("out.gguf"))


def test_vllm_would_take_the_adapter() -> None:
    """By what vLLM asks of an adapter (vllm/lora/peft_helper.py, vllm/lora/utils.py); vLLM itself needs a CUDA card."""
    config = json.loads((trained.ADAPTER / "adapter_config.json").read_text())
    assert {"r", "lora_alpha", "target_modules"} <= set(config)
    assert config["modules_to_save"] is None
    assert config["bias"] == "none"
    assert not config["use_dora"]
    assert config["peft_type"] == "LORA"
    assert config["r"] <= 512  # the highest rank that it can be started with
    with safe_open(trained.ADAPTER / "adapter_model.safetensors", "pt") as weights:
        found = [re.fullmatch(r"base_model\.model\.(?:.+\.)?(\w+)\.lora_[AB]\.weight", name) for name in weights.keys()]  # noqa: SIM118
    layers = {name[1] if name else None for name in found}
    assert layers == {name.rpartition(".")[2] for name in config["target_modules"]}
    assert layers == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }  # no head, no embedding


def test_adapter_does_not_pass_a_hash_of_a_file_for_a_commit_of_a_hub() -> None:
    """`AutoPeftModel` and others ask the hub for `revision`."""
    revision = json.loads((trained.ADAPTER / "adapter_config.json").read_text())["revision"]
    assert revision is None or re.fullmatch("[0-9a-f]{40}", revision)


@pytest.mark.slow
def test_transformers_chat_talks_to_the_merged_model(tmp_path: Path) -> None:
    """`transformers chat` is a client of `transformers serve`; both as their documentation has it."""
    wanted = answer(trained.ADAPTER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tool = str(Path(sys.executable).with_name("transformers"))
    environment = os.environ | {"HF_HOME": str(tmp_path), "COLUMNS": "400", "TERM": "dumb"}
    environment.pop("HF_HUB_OFFLINE", None)  # under which the client does not even reach for loopback
    model = str(Path("merged").absolute())
    serve = [tool, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(serve, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/health", server)
        flags = ["do_sample=False", f"max_new_tokens={NEW_TOKENS}"]
        chat = [tool, "chat", model, f"{address}/v1", *flags, "--system-prompt", "Be brief."]
        asked = f"{MESSAGES[1]['content']}\n!exit\n"
        done = subprocess.run(
            chat, env=environment, input=asked, capture_output=True, text=True, cwd=tmp_path, timeout=300
        )
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
    assert done.returncode == 0, done.stderr
    letters = "".join(re.findall(r"[a-z]+", wanted))
    assert letters[:20] in "".join(re.findall(r"[a-z]+", done.stdout))


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"{url}: no answer")
