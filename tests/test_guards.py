"""Guard models: their formats by a server that replies as they do, the plumbing by a tiny model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import CPU, ROOT, save_tokenizer
from helpers.endpoint import Handler, Server, serving
from transformers import AutoTokenizer, LlamaForCausalLM

from ccai.base.errors import UserError
from ccai.base.files import read
from ccai.base.params import Hardware
from ccai.base.records import Message
from ccai.engines.chat_template import Template
from ccai.engines.endpoint import Endpoint
from ccai.engines.transformers import Transformers
from ccai.judge import exam, guards, judge
from ccai.judge.guards import Guard
from ccai.models.model import Model

FORMATS = ["llama-guard-3", "qwen3guard", "shieldgemma"]
HARM = [item for item in read(ROOT / exam.RULES, exam.ByRule) if item.rule == judge.HARM]
HARMFUL = {item.violating for item in HARM}


def format(name: str) -> guards.GuardFormat:
    return guards.load(name, ROOT / guards.FORMATS)


class Guarding(Server):
    """A guard behind HTTP: it reads the last message, which must be the assistant's, and replies token by token.

    Attributes:
        opening: tokens before the verdict.
        safe, unsafe: tokens of its verdicts with their probabilities, by what it thinks of the answer.
    """

    def __init__(self, opening: list[str], safe: dict[str, float], unsafe: dict[str, float]) -> None:
        super().__init__()
        self.opening, self.safe, self.unsafe, self.RequestHandlerClass = opening, safe, unsafe, Asked


class Asked(Handler):
    server: Guarding

    def completion(self, body: dict[str, Any], fault: str | None) -> dict[str, Any]:
        user, assistant = body["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        verdict = self.server.unsafe if assistant["content"] in HARMFUL else self.server.safe
        written = [{"token": token, "logprob": 0.0, "top_logprobs": []} for token in self.server.opening]
        top = [{"token": token, "logprob": log(value)} for token, value in verdict.items()]
        written.append({"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top})
        completion = super().completion(body, fault)
        completion["choices"][0]["logprobs"] = {"content": written[: body["max_tokens"]]}
        return completion


REPLIES: dict[str, tuple[list[str], dict[str, float], dict[str, float]]] = {
    "llama-guard-3": (["\n\n"], {"safe": 0.9, "unsafe": 0.1}, {"unsafe": 0.8, "safe": 0.2}),
    # Some tokenizers have the words in pieces; what begins both is nobody's.
    "qwen3guard": (
        ["Safety", ":"],
        {" Safe": 0.8, " Uns": 0.1, " Controvers": 0.05, " ": 0.05},
        {" Uns": 0.5, " Controvers": 0.3, " Safe": 0.2},
    ),
    "shieldgemma": ([], {"No": 0.9, "Yes": 0.05}, {"Yes": 0.9, "No": 0.1}),
}
SHARES = {"llama-guard-3": (0.1, 0.8), "qwen3guard": (0.15 / 0.95, 0.8), "shieldgemma": (0.05 / 0.95, 0.9)}


@contextmanager
def guarding(
    name: str, reply: tuple[list[str], dict[str, float], dict[str, float]]
) -> Iterator[tuple[Guarding, Guard]]:
    with serving(server := Guarding(*reply)):
        entry = {"endpoints": [server.url], "model": f"org/{name}", "revision": str(reply), "guard": name}
        yield server, Guard(Endpoint("guard", entry), format(name))


@pytest.mark.parametrize("name", FORMATS)
def test_verdict_is_read_behind_the_opening(name: str) -> None:
    harmful = HARM[0]
    with guarding(name, REPLIES[name]) as (server, guard):
        found, cost, orders = judge.violations(
            "test", guard, [judge.HARM] * 2, [harmful.prompt] * 2, [harmful.keeping, harmful.violating]
        )
    assert found == pytest.approx(SHARES[name])
    assert orders == (), "it is asked in one"
    assert (cost["verdicts"], cost["unreadable"], cost["flipped"], cost["generated"]) == (2, 0, None, 2)
    assert sorted(body["messages"][1]["content"] for body in server.bodies) == sorted(
        [harmful.keeping, harmful.violating]
    )


@pytest.mark.parametrize(
    "reply",
    [
        (["Safety", ":"], {"maybe": 1.0}, {"maybe": 1.0}),  # another word
        (["I", " think", ":"], {" Safe": 1.0}, {" Unsafe": 1.0}),  # another beginning
        ([" "] * 12, {" Safe": 1.0}, {" Unsafe": 1.0}),  # no verdict within the room it has
    ],
)
def test_any_other_reply_is_unreadable(reply: tuple[list[str], dict[str, float], dict[str, float]]) -> None:
    with guarding("qwen3guard", reply) as (_, guard):
        found, cost, _ = judge.violations("test", guard, [judge.HARM], ["Well?"], ["Well."])
    assert (found, cost["unreadable"]) == ([None], 1)


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("data/exam", "data/guards"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)


def test_a_guard_sits_the_exam_in_harm_alone(in_project: None) -> None:
    with guarding("llama-guard-3", REPLIES["llama-guard-3"]) as (_, guard):
        sat = exam.sit_for("exam", guard, {"harm", "helpful"})
        assert list(sat.questions) == ["harm"]
        mark = sat.questions["harm"]
        assert (mark.auc, mark.n, mark.flipped, mark.repeat_flipped) == (1.0, 2 * len(HARM), None, 0.0)
        assert mark.accuracy == (len(HARM), len(HARM), len(HARM), len(HARM))
        assert sat.passed
        with pytest.raises(UserError, match="guard: a guard can only detect harm, which no suite needs"):
            exam.sit_for("exam", guard, {"helpful"})
        with pytest.raises(UserError, match=r"guard can only detect harm; set pairs\.judge to false or another judge"):
            exam.sit("exam", guard, ())


def test_a_guard_that_calls_all_safe_fails(in_project: None) -> None:
    opening, safe, _ = REPLIES["llama-guard-3"]
    with guarding("llama-guard-3", (opening, safe, safe)) as (_, guard):
        sat = exam.sit_for("exam", guard, {"harm"})
    assert (sat.questions["harm"].auc, sat.passed) == (0.5, False)
    assert sat.questions["harm"].accuracy == (0, len(HARM), len(HARM), len(HARM))


def test_the_catalogue_says_who_is_a_guard(in_project: None) -> None:
    entry: dict[str, Any] = {
        "endpoints": ["http://127.0.0.1:1/v1"],
        "model": "m",
        "revision": "r",
        "guard": "shieldgemma",
    }
    hardware = Hardware(engine="transformers", device="cpu", dtype="float32", quantization="none")

    def load(**changes: Any) -> Any:
        Path("conf/models.yaml").write_text(yaml.safe_dump({"g": entry | changes}))
        return judge.load("g", hardware)

    assert isinstance(load(), Guard)
    assert load().format == format("shieldgemma")
    with pytest.raises(
        UserError, match=r"guard: no data/guards/nobody\.yaml; there are: llama-guard-3, qwen3guard, shie"
    ):
        load(guard="nobody")
    with pytest.raises(UserError, match="a guard answers in a format of its own"):
        load(verdicts="json")
    Path("data/guards/shieldgemma.yaml").write_text("opening: ''\nsafe: []\nunsafe: [Yes]\n")
    with pytest.raises(UserError, match=r"data/guards/shieldgemma\.yaml: safe: "):
        load()


# --- weights at hand ------------------------------------------------------------------------------------------------

TASK = """\
{{ guideline }}
{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}
{% endfor %}<|im_start|>assistant
"""
"""A guard's template: the whole conversation is what it is asked about."""


@pytest.fixture
def guard_model(tiny_model: Path, tmp_path: Path) -> Model:
    folder = shutil.copytree(tiny_model, tmp_path / "guard")
    save_tokenizer(folder, TASK)
    return Model("org/guard", "0123", folder, "none", {"guideline": "Hurt nobody."})


def test_a_template_gets_its_variables_the_conversation_and_the_opening(guard_model: Model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(guard_model.folder)
    template = Template(guard_model)
    tokens = template.tokens(format("qwen3guard").conversation("How?", "So."))
    expected = "Hurt nobody.\nuser: How?\nassistant: So.\n<|im_start|>assistantSafety:"  # Jinja drops the last line end
    assert tokenizer.decode(tokens) == expected
    assert template.text.endswith('{"guideline": "Hurt nobody."}')
    assert not tokenizer.decode(template.tokens([Message(role="user", content="How?")])).endswith("Safety:")


def test_probability_is_of_the_first_token_behind_the_opening(guard_model: Model) -> None:
    """Against one plain forward pass."""
    engine = Transformers(guard_model, CPU)
    wanted = format("qwen3guard")
    found, cost, _ = judge.violations("test", Guard(engine, wanted), [judge.HARM], ["How?"], ["So."])
    model = LlamaForCausalLM.from_pretrained(guard_model.folder)
    tokenizer = AutoTokenizer.from_pretrained(guard_model.folder)
    ids = tokenizer("Hurt nobody.\nuser: How?\nassistant: So.\n<|im_start|>assistant", return_tensors="pt").input_ids
    opening = tokenizer("Safety:", return_tensors="pt").input_ids
    with torch.no_grad():
        next_token = model(torch.cat([ids, opening], dim=1)).logits[0, -1].softmax(-1)
    firsts = [tokenizer.encode(label)[0] for label in wanted.labels]
    [probabilities] = [
        scores for batch in engine.score([wanted.conversation("How?", "So.")], wanted.labels) for _, scores in batch
    ]
    assert probabilities == pytest.approx([float(next_token[first]) for first in firsts], abs=1e-5)
    # Random weights write none of these words.
    assert (found, cost["unreadable"]) == ([None], 1)


def test_labels_that_begin_alike_cannot_be_told_apart(guard_model: Model) -> None:
    """The tiny tokenizer has letters for these words: `unsafe` and `unkind` both begin with `un` or `u`."""
    engine = Transformers(guard_model, CPU)
    same = guards.GuardFormat(opening="", safe=["unkind9"], unsafe=["unkind8"])
    with pytest.raises(UserError, match=r"labels .* are not single tokens of it"):
        judge.violations("test", Guard(engine, same), [judge.HARM], ["How?"], ["So."])
