"""A model small enough to be run thousands of times, and a cache folder of its own for every test."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ccai.engines.transformers import Transformers
from ccai.models.model import Model
from ccai.models.placement import Placement

if TYPE_CHECKING:
    from helpers.project import Built, Project

ROOT = Path(__file__).parents[1]
CPU = Placement("cpu", "float32", "none", "as the tests want it")
TEMPLATE = """\
{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LONG = ("test_contract", "test_stage_train", "test_pipeline")
"""Files that take minutes; while a worker makes the toy run for the first, another has the second, which needs none."""

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def save_tokenizer(folder: Path, template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 512 tokens, trained on the constitution, with ChatML's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = (ROOT / "data/constitutions/contemplative.md").read_text(encoding="utf-8")
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.chat_template = template
    fast.save_pretrained(folder)
    return fast


def save_model(folder: Path, width: int = 64, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama and its tokenizer, saved. Its logits spread, and it ends completions by itself now and then."""
    tokenizer = save_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.25,  # the usual 0.02 leaves next to nothing but the sampling noise
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    model.save_pretrained(folder)
    return model


def load_engine(folder: Path, adapter: Path | None = None) -> Transformers:
    """The engine for a model folder, on the CPU in float32."""
    return Transformers(as_model(folder), CPU, adapter)


def as_model(folder: Path) -> Model:
    """A model folder under a logical name."""
    return Model("org/tiny", "0123abcd", folder, "apache-2.0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes first, so that the other workers have something to do meanwhile."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The cache folder of fixtures that several tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CCAI_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_cache(shared_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds what another left, nor the cache of whoever runs the tests."""
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model; a test that changes it copies it first."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_engine(shared_cache: None, tiny_model: Path) -> Transformers:
    """The tiny model, loaded once."""
    return load_engine(tiny_model)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """This worker's copy of the toy run (helpers/project.py), which the first worker that needs it makes for all.

    The judge's endpoint is up, at the address that the run was given, for as long as this worker's tests last. To keep
    the run, code and all, while you work on a test, name a folder that is not there yet in CCAI_TEST_TOY_RUN.
    """
    from helpers import project as toy  # which imports this module

    own = tmp_path_factory.getbasetemp()
    session = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    shared = Path(os.environ.get("CCAI_TEST_TOY_RUN", session / "toy-run"))
    with toy.shared_run(shared):
        shutil.copytree(shared, own / "own-toy-run", symlinks=True)
        yield own / "own-toy-run"


@pytest.fixture(scope="session")
def home(toy_run: Path) -> Path:
    """Home folder of the toy run; its cache, with the journal, is `cache` there."""
    return toy_run / "home"


@pytest.fixture(scope="session")
def model(built: Built) -> Path:
    """Folder of the toy model that the toy run is set to."""
    return built.model


@pytest.fixture(scope="session")
def built(toy_run: Path) -> Built:
    """The toy run: every arm and suite, with a judge that passes its exam. A test that changes it copies it first."""
    from helpers import project as toy

    return toy.Built.at(toy_run, "project")


@pytest.fixture(scope="session")
def unjudged(toy_run: Path) -> Built:
    """The toy run without a judge, of pairs and of answers. A test that changes it copies it first."""
    from helpers import project as toy

    return toy.Built.at(toy_run, "unjudged")


@pytest.fixture
def queue(built: Built, tmp_path: Path, home: Path) -> Iterator[Project]:
    """A project whose cache folder is where it is without CCAI_CACHE; no worker of its queue outlives the test."""
    from helpers.project import working_in

    project = built.project.copy(tmp_path / "project")
    del project.environment["CCAI_CACHE"]
    shutil.copytree(home / "cache", project.folder / ".ccai-cache")
    yield project
    project.module("dvc", "queue", "stop", "--kill")
    deadline = time.monotonic() + 60
    while working_in(project.folder) and time.monotonic() < deadline:
        time.sleep(0.5)
    left = working_in(project.folder)
    for process in left:
        process.kill()
    assert not left


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real Chromium, driven by playwright. Where none is installed its tests are skipped, and fail if CI=true."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        reason = "no chromium, chromium-browser or google-chrome on PATH; install one (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [], timeout=120_000
        )
        yield browser
        browser.close()
