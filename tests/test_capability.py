"""The lm-evaluation-harness on our engines: its figures, at no second cost, the same documents for every arm."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, load_engine, save_model
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, get_peft_model

from ccai.base import cache, params
from ccai.base.errors import UserError
from ccai.base.params import Params, PromptSet
from ccai.base.records import Message
from ccai.constitution import principles as constitution
from ccai.engines.transformers import Transformers
from ccai.evaluate import lm_eval
from ccai.evaluate.arms import Arm
from ccai.evaluate.comparison import Comparison
from ccai.evaluate.suites.capability import Capability, Done
from ccai.generate import completions
from ccai.generate.journal import Journal
from ccai.prompts import contamination, near_duplicates, sources

OWN = ROOT / "data/eval_sets/capability"
CHAT = [Message(role="user", content="Which is it?")]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the suite reads, as the current folder."""
    for name in ("conf", "data/eval_sets", "data/constitutions"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)


def settings(arms: tuple[str, ...] = ("base", "tuned"), engine: str = "transformers", **capability: Any) -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["eval"] |= {"arms": list(arms), "capability": {"tasks": ["knowledge"], "limit": 3} | capability}
    values["hardware"]["engine"] = engine
    return params.parse(values, "params.yaml")


def requests(kind: Any, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, args, at, metadata=("task", at, 1)) for at, args in enumerate(arguments)]


def test_log_probabilities_are_the_harness_s_own(tiny_engine: Transformers) -> None:
    """Read from where a text differs from the one before, as from the beginning; and the engine is as it was."""
    before = completions.score("test", tiny_engine, [CHAT], ["A", "B"]).probabilities
    asked = [
        (context, choice)
        for context in ("What is frozen water?", "What is frozen water called?", "Who?")
        for choice in (" Ice", " I", " Ice and snow", " Steam")
    ]
    texts = [("A text that is read as a whole, " * 3,), ("Another.",)]
    with lm_eval._plain_attention(tiny_engine):
        own = lm_eval.Weights("test", tiny_engine, Journal(cache.folder("journal")))
        theirs = HFLM(pretrained=tiny_engine.model, backend="causal", batch_size=3)
        for kind, arguments in (("loglikelihood", asked), ("loglikelihood_rolling", texts)):
            ours = getattr(own, kind)(requests(kind, arguments))
            expected = getattr(theirs, kind)(requests(kind, arguments), disable_tqdm=True)
            if kind == "loglikelihood":
                assert [greedy for _, greedy in ours] == [greedy for _, greedy in expected]
                ours, expected = [value for value, _ in ours], [value for value, _ in expected]
            assert ours == pytest.approx(expected, abs=1e-3)
    shutil.rmtree(cache.folder("journal"))
    assert completions.score("test", tiny_engine, [CHAT], ["A", "B"]).probabilities == before


def test_arms_are_asked_the_same_and_a_repeat_costs_nothing(tiny_engine: Transformers, tiny_model: Path) -> None:
    adapter = Path("adapter")
    tuned = get_peft_model(save_model(Path("other")), LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(adapter)
    asked = settings(tasks=["knowledge", "word_problems"])
    principles = constitution.load(asked.critiques.constitution).principles
    suite = Capability(asked)
    tuned_engine = load_engine(tiny_model, adapter)

    def ask() -> tuple[dict[str, list[Done]], list[dict[str, Any]]]:
        arms = [
            Arm("base", tiny_engine, asked),
            Arm("prompted", tiny_engine, asked, principles),
            Arm("tuned", tuned_engine, asked),
        ]
        return {arm.name: suite.ask(arm) for arm in arms}, [arm.costs["capability"] for arm in arms]

    answers, costs = ask()
    assert [cost["generated"] for cost in costs] == [3 * 4 + 3] * 3
    again, costs = ask()
    assert again == answers
    assert [(cost["generated"], cost["reused"]) for cost in costs] == [(0, 15)] * 3

    documents = {arm: [(done.task, done.place, done.document) for done in given] for arm, given in answers.items()}
    assert documents["base"] == documents["prompted"] == documents["tuned"]
    for task, place, document in documents["base"]:
        assert document == json.loads((OWN / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()[place])
    assert sorted(place for task, place, _ in documents["base"] if task == "knowledge") != [0, 1, 2]
    written = {arm: [done.response for done in given if done.task == "word_problems"] for arm, given in answers.items()}
    chosen = {arm: [done.response for done in given if done.task == "knowledge"] for arm, given in answers.items()}
    for done in answers["base"][:3]:
        right = done.response == done.document["choices"][done.document["answer"]]
        assert (done.response in done.document["choices"], done.metrics) == (True, {"acc_norm": float(right)})
    assert len({str([written[arm], chosen[arm]]) for arm in answers}) == 3, "arms differ in what they answer"

    measured = suite.measure(answers, comparison := Comparison(7, 200), judged=False)
    comparison.adjust()
    assert {task: list(of_task) for task, of_task in measured.items()} == {
        "knowledge": ["acc_norm"],
        "word_problems": ["exact_match"],
    }
    assert measured["knowledge"]["acc_norm"]["n"] == 3


def done(arm: str, task: str, place: int, filter: str = "none", asked: str = "", **metrics: float) -> Done:
    given = {"document": {}, "target": "", "response": ""}
    return Done(arm=arm, asked=asked or task, task=task, filter=filter, place=place, metrics=metrics, **given)


def test_measures() -> None:
    """A group is pooled with its tasks below; filters have names of their own; not only yes and no is measured."""
    right = {"base": [1, 1, 1, 1, 0, 0, 0, 0], "tuned": [1, 0, 0, 0, 0, 0, 0, 0]}
    answers = {
        arm: [done(arm, "ab"[at > 5], at, asked="group", acc=value) for at, value in enumerate(values)]
        + [done(arm, "c", 0, "strict-match", em=1.0), done(arm, "c", 0, "flexible", em=0.0)]
        + [done(arm, "d", at, f1=0.1 * at + (arm == "tuned") * 0.05 * (at % 3)) for at in range(9)]
        for arm, values in right.items()
    }
    measured = Capability.__new__(Capability).measure(answers, Comparison(7, 200), judged=False)
    pooled = measured["group"]["acc"]
    assert (pooled["n"], pooled["base"]["mean"], pooled["tuned"]["mean"]) == (8, 0.5, 0.125)
    assert pooled["difference"]["tuned"]["mean"] == pytest.approx(-0.375)
    assert pooled["difference"]["tuned"]["p"] == pytest.approx(0.25), "exact McNemar: 3 of 3 changed one way"
    assert {task: of["acc"]["n"] for task, of in measured["group"]["by_task"].items()} == {"a": 6, "b": 2}
    assert {name: of["base"]["mean"] for name, of in measured["c"].items()} == {
        "em_strict_match": 1,
        "em_flexible": 0,
    }
    assert measured["d"]["f1"]["difference"]["tuned"]["mean"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"tasks": ["gsm8k_local"]},
            r"^eval\.capability\.tasks: gsm8k_local: its data is not available .*; fetch it, or",
        ),
        ({"engine": "vllm"}, r"^eval\.suites: capability reads a model's weights, and hardware\.engine is not"),
        ({"arms": ("base", "tuned", "served")}, r"reads a model's weights, and arm served is behind an endpoint"),
    ],
)
def test_what_can_t_be_asked_is_said_at_once(given: dict[str, Any], message: str) -> None:
    entry = {"served": {"endpoints": ["http://127.0.0.1:9/v1"], "model": "m", "revision": "r"}}
    with Path("conf/models.yaml").open("a", encoding="utf-8") as file:
        file.write(yaml.safe_dump(entry))
    with pytest.raises(UserError, match=message):
        Capability(settings(**given))


def test_a_task_of_the_hub_without_a_network_and_one_of_nobody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^eval\.capability\.tasks: arc_easy: its data is not available .* a network$"):
        lm_eval.load(["arc_easy"])
    with pytest.raises(UserError, match=r"^eval\.capability\.tasks: knowlege: no such task; conf/lm_eval has .*knowl"):
        lm_eval.load(["knowlege"])


def test_own_and_published_formats_load_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    public = Path("data/public")
    (public / "mmlu").mkdir(parents=True)
    line = {"question": "Two and three?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}
    (public / "gsm8k.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    (public / "mmlu/cooking_test.csv").write_text('"Salt, or what?",Salt,None,Sugar,Tea,B\n', encoding="utf-8")
    loaded = lm_eval.load(["knowledge", "word_problems", "gsm8k_local", "mmlu_local"])
    tasks = {name: of[name] for name, of in loaded.items()}
    [gsm8k], [mmlu] = tasks["gsm8k_local"].eval_docs, tasks["mmlu_local"].eval_docs
    assert tasks["gsm8k_local"].doc_to_target(gsm8k) == "5"
    assert tasks["mmlu_local"].doc_to_text(mmlu).startswith("Salt, or what?\nA. Salt\nB. None\nC. Sugar\nD. Tea\n")
    assert tasks["mmlu_local"].doc_to_target(mmlu) == "B"
    assert list(cache.folder("datasets").glob("json/*")), "data is kept in the cache folder"


def test_own_sets_are_whole_varied_and_not_trained_on() -> None:
    sets = {
        name: [json.loads(line) for line in (OWN / f"{name}.jsonl").open(encoding="utf-8")]
        for name in ("knowledge", "word_problems")
    }
    assert {name: len(items) for name, items in sets.items()} == {"knowledge": 40, "word_problems": 30}
    for item in sets["knowledge"]:
        assert len(set(item["choices"])) == 4
    places = [item["answer"] for item in sets["knowledge"]]
    assert {places.count(place) for place in range(4)} == {10}
    texts = [item["question"] for items in sets.values() for item in items]
    assert not [found for found in near_duplicates.similar(texts, texts, 0.7) if (found.left != found.right).any()]
    trained = sources.load("contemplative", ROOT)
    Path("asked.txt").write_text("\n".join(texts), encoding="utf-8")
    assert contamination.overlap(trained, sources.load(PromptSet(source="asked.txt")), 0.7).pairs == 0
