"""vLLM: what can be said without it, and, where it is installed and a card is there, the real thing."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import CPU, as_model, save_model

from ccai.base.errors import UserError
from ccai.base.params import Generation
from ccai.base.records import Message
from ccai.constitution.dialogue import to_answer
from ccai.engines.base import Completed, Engine, Request
from ccai.engines.transformers import Transformers
from ccai.engines.vllm import Vllm, penalise
from ccai.generate import completions as generation
from ccai.generate.completions import Job
from ccai.models.placement import Placement

INSTALLED = importlib.util.find_spec("vllm") is not None
CARD = Placement("cuda", "float32", "none", "as the tests want it")
PLAIN = Generation(temperature=1, min_p=0.02, repetition_penalty=1.2)
PENALISED = Generation(temperature=0, min_p=0, repetition_penalty=1.3)

without_vllm = pytest.mark.skipif(INSTALLED, reason="vllm is installed")
with_vllm = pytest.mark.skipif(not (INSTALLED and torch.cuda.is_available()), reason="needs vllm and CUDA")


@without_vllm
def test_missing_vllm_is_one_line(tiny_model: Path) -> None:
    with pytest.raises(UserError) as error:
        Vllm(as_model(tiny_model), CARD)
    assert str(error.value) == (
        "hardware.engine: vllm is not installed; pip install -r requirements-vllm.txt (needs CUDA), "
        "or set it to transformers"
    )


@pytest.mark.parametrize(
    ("placement", "adapter", "message"),
    [
        (CPU, None, "hardware.engine: vllm needs cuda, not cpu; set it to transformers"),
        (CARD._replace(quantization="8bit"), None, "hardware.quantization: vllm does not load in 8bit"),
        (CARD, Path("adapter"), "hardware.dtype: vllm runs an adapter in bfloat16 or float16 only"),
    ],
)
def test_what_vllm_can_not_do_is_one_line(
    tiny_model: Path, placement: Placement, adapter: Path | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Vllm(as_model(tiny_model), placement, adapter)


def penalised(logits: list[float], written: Sequence[int], penalty: float) -> list[float]:
    """Repetition penalty as in arXiv 1909.05858, section 4.1, one token at a time."""
    return [x if token not in written else x * penalty if x < 0 else x / penalty for token, x in enumerate(logits)]


def test_penalty_is_for_the_completion_alone() -> None:
    """Rows: repeats in prompt and completion, an empty completion, a prompt only half read, no penalty, -inf."""
    prompts = [[5, 1, 5], [2], [3, 3, 4, 9], [1, 2], [7]]
    completions: list[list[int]] = [[6, 1, 6], [], [], [8, 0], [2, 3]]
    read = [6, 1, 2, 4, 3]
    penalties = [1.3, 1.3, 2.0, 1.0, 1.5]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 10, generator=generator)
    logits[4, 3] = -torch.inf
    tokens = torch.randint(10, (5, 8), generator=generator)  # behind a row's end lies what an earlier one left
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        tokens[row, : len(prompt + completion)] = torch.tensor(prompt + completion)
    wanted = [penalised(*row) for row in zip(logits.tolist(), completions, penalties, strict=True)]
    lengths = torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int32)
    penalise(logits, tokens, lengths, torch.tensor(read), torch.tensor(penalties))
    torch.testing.assert_close(logits, torch.tensor(wanted))


def requests(count: int, sampling: Generation, limit: int = 24) -> list[Request]:
    return [
        Request((Message(role="user", content=f"Question {n}, and why?"),), 0, 1000 + n, limit, sampling)
        for n in range(count)
    ]


def completions(engine: Engine, wanted: Sequence[Request]) -> list[Completed]:
    done = [pair for batch in engine.complete(wanted) for pair in batch]
    assert sorted(place for place, _ in done) == list(range(len(wanted)))
    return [completed for _, completed in sorted(done)]


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with heads of 64 numbers, the least that vLLM's attention kernels take."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    save_model(folder, width=256)
    return folder


@with_vllm
def test_writes_scores_and_resumes(wide_model: Path) -> None:
    """One engine for all of it: each takes a minute to load."""
    engine = Vllm(as_model(wide_model), CARD)
    plain = Transformers(as_model(wide_model), CARD)

    drawn = completions(engine, requests(40, PLAIN))
    assert all(1 <= done.completion_tokens <= 24 for done in drawn)
    assert {done.finish_reason for done in drawn} == {"stop", "length"}
    assert len({done.text for done in drawn}) > 30

    # Greedy with a penalty, against the engine whose penalty is known; a near-tie may fall either way.
    ours, theirs = completions(plain, requests(40, PENALISED)), completions(engine, requests(40, PENALISED))
    assert sum(a.text == b.text for a, b in zip(ours, theirs, strict=True)) >= 30
    assert [done.prompt_tokens for done in ours] == [done.prompt_tokens for done in theirs]

    asked = [[Message(role="user", content=f"Is {n} even?")] for n in range(10)]
    scores = dict(pair for batch in engine.score(asked, ("A", "B")) for pair in batch)
    known = dict(pair for batch in plain.score(asked, ("A", "B")) for pair in batch)
    torch.testing.assert_close(
        torch.tensor([scores[n] for n in range(10)]), torch.tensor([known[n] for n in range(10)]), rtol=0.05, atol=1e-4
    )
    with pytest.raises(UserError, match="are not single tokens of it; use another judge"):
        list(engine.score(asked, ("A", "not one token")))
    with pytest.raises(UserError, match="new ones exceed its context of 2048; use fewer examples"):
        list(engine.complete(requests(1, PLAIN, limit=2048)))

    jobs = [Job(("answer", str(n)), to_answer("Be brief.", f"Question {n}?"), 16) for n in range(30)]
    first = generation.complete("test", engine, jobs[:20], PLAIN, 7)
    again = generation.complete("test", engine, jobs, PLAIN, 7)
    assert (first.runtime["generated"], first.runtime["reused"]) == (20, 0)
    assert (again.runtime["generated"], again.runtime["reused"]) == (10, 20)
    assert again.completions[:20] == first.completions

    # Nobody waits for these any more; the next ones must not meet them.
    stopped = engine.complete(requests(40, PLAIN))
    next(stopped)
    stopped.close()  # type: ignore[attr-defined]
    assert len(completions(engine, requests(3, PLAIN))) == 3
