"""Traces a pair, an answer or a figure back to the row of its source, with texts, models, seeds and versions."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ccai.base import params
from ccai.base.errors import UserError
from ccai.base.files import each, read, read_json
from ccai.base.hashing import md5_of
from ccai.base.records import Answer, AnyRecord, Completion, Critique, DroppedPair, Pair, Prompt, Response, Revision
from ccai.constitution import principles
from ccai.evaluate.suites import heldout
from ccai.prompts import sources
from ccai.report import run_files

DATA = Path("data")
METRICS = Path("metrics")
LOCK = Path("dvc.lock")


Written = TypeVar("Written", Response, Critique, Revision, Answer)

SHOWN = 5
"""Number of ids listed where one is ambiguous."""


class Part(NamedTuple):
    """A link of the chain: a title and a text."""

    title: str
    text: str


class TracedPair(NamedTuple):
    """A pair and its fate: `train`, `validation`, or the gate that dropped it."""

    pair: Pair
    fate: str


def existing(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """Records of a file; none if its stage has not run yet."""
    return list(each(path, kind)) if path.exists() else []


class RunRecords:
    """The records that ids refer to."""

    def __init__(self) -> None:
        self.prompts = {
            prompt.prompt_id: prompt
            for side in ("train", "eval")
            for prompt in existing(DATA / f"prompts/{side}.jsonl", Prompt)
        }
        dropped = [TracedPair(pair, pair.reason) for pair in existing(DATA / "pairs/dropped.jsonl", DroppedPair)]
        self.pairs = dropped + [
            TracedPair(pair, side)
            for side in ("train", "validation")
            for pair in existing(DATA / f"pairs/{side}.jsonl", Pair)
        ]

    def find(self, start: str) -> TracedPair | Prompt:
        """The one pair or prompt whose id begins with `start`.

        Raises:
            UserError: none, or several.
        """
        by_id: dict[str, TracedPair | Prompt] = {
            **self.prompts,
            **{candidate.pair.pair_id: candidate for candidate in self.pairs},
        }
        if not by_id:
            raise UserError(f"{DATA}: no prompts and no pairs yet; run dvc repro")
        ids = [start] if start in by_id else sorted(name for name in by_id if start and name.startswith(start))
        if not ids:
            raise UserError(f"{start}: no pair and no prompt has an id that begins with this; ccai trace -h says more")
        if len(ids) > 1:
            more = ", …" if len(ids) > SHOWN else ""
            raise UserError(f"{start}: {len(ids)} ids begin with this: {', '.join(ids[:SHOWN])}{more}; give more of it")
        return by_id[ids[0]]


def of_pair(data: RunRecords, candidate: TracedPair) -> list[Part]:
    """The chain of a pair, from the row of its source to its fate.

    Raises:
        UserError: a record that the pair was made from no longer exists.
    """
    pair, prompt_id = candidate.pair, candidate.pair.prompt_id
    if pair.round == 0:
        conversation = "\n\n".join(f"{message.role}: {message.content}" for message in pair.prompt)
        return [
            Part("source", "a ready-made pair, from a file in pairs.sources of params.yaml"),
            Part(f"prompt {prompt_id}", conversation),
            Part("rejected", pair.rejected[-1].content),
            Part("chosen", pair.chosen[-1].content),
            _fate(candidate),
            *_stage(["pairs"]),
        ]
    revisions = _of(prompt_id, DATA / "revisions.jsonl", Revision)
    wrote: dict[str, Completion] = {
        record.sha256: record
        for record in (
            *_of(prompt_id, DATA / "responses.jsonl", Response),
            *_of(prompt_id, DATA / "critiques.jsonl", Critique),
            *revisions,
        )
    }
    try:
        prompt = data.prompts[prompt_id]
        record: Completion = next(revision for revision in revisions if _became(revision, pair))
        chain = [record]
        while isinstance(record, Critique | Revision):
            record = wrote[record.parent]
            chain.append(record)
    except (KeyError, StopIteration):
        raise UserError(
            f"{pair.pair_id}: what this pair was made from is no longer in {DATA}; run dvc repro or dvc checkout"
        ) from None
    steps = [step for step in chain if isinstance(step, Critique | Revision)]
    return [
        *of_source(prompt),
        *(_wrote(step) for step in reversed(chain)),
        _fate(candidate),
        *_principles(steps),
        *_stage(["prompts", "responses", "critiques", "revisions", "pairs"]),
    ]


def of_prompt(data: RunRecords, prompt: Prompt) -> list[Part]:
    """A prompt and everything generated from it so far."""
    parts = of_source(prompt)
    if prompt.split == "eval":
        answers = [answer for arm in _arms() for answer in _of(prompt.prompt_id, _answered(arm), Answer)]
        return [*parts, *(_wrote(answer) for answer in answers), *_stage(["prompts", "train", "eval"])]
    parts += [_wrote(response) for response in _of(prompt.prompt_id, DATA / "responses.jsonl", Response)]
    revisions = {revision.parent: revision for revision in _of(prompt.prompt_id, DATA / "revisions.jsonl", Revision)}
    critiques = _of(prompt.prompt_id, DATA / "critiques.jsonl", Critique)
    for critique in critiques:
        parts.append(_wrote(critique))
        if (revision := revisions.get(critique.sha256)) is not None:
            parts.append(_wrote(revision))
            parts += [_fate(candidate) for candidate in data.pairs if _became(revision, candidate.pair)]
    return [*parts, *_principles(critiques), *_stage(["prompts", "responses", "critiques", "revisions", "pairs"])]


def of_answer(prompt: Prompt, arm: str) -> list[Part]:
    """An evaluated answer: prompt, verdicts, model, and for the tuned model its training data.

    Raises:
        UserError: no such arm, or no answer of it to this prompt.
    """
    if arm not in _arms():
        raise UserError(f"{prompt.prompt_id}/{arm}: no such arm; there are {', '.join(_arms())}")
    path = _answered(arm)
    answers = [answer for answer in read(path, Answer) if answer.prompt_id == prompt.prompt_id]
    if not answers:
        raise UserError(f"{prompt.prompt_id}/{arm}: {path} has no answer to it; only held-out prompts are evaluated")
    stages = ["prompts", "pairs", "train", "eval"] if arm == "tuned" else ["prompts", "eval"]
    return [*of_source(prompt), *map(_wrote, answers), *_stage(stages)]


def of_source(prompt: Prompt) -> list[Part]:
    """The row of the source, and the prompt made from it."""
    labels = f"hazard {prompt.hazard}, persona {prompt.persona}, principle {prompt.principle}, {prompt.split} side"
    return [Part("source", _row(prompt)), Part(f"prompt {prompt.prompt_id}: {labels}", prompt.text)]


def _row(prompt: Prompt) -> str:
    """The place of the row, if the source is available here."""
    row = f"{prompt.source}, row {prompt.source_id}"
    # A file's label is its name without its folder, so only params.yaml has its path.
    entry = next((e for e in params.load().prompts.sources if Path(str(e)).name == prompt.source), None)
    if entry is None:
        return f"{row}\nno longer in prompts.sources of params.yaml"
    source = sources.named(str(entry))
    try:
        places = [r.place for r in sources.load(entry) if (r.source_id, r.text) == (prompt.source_id, prompt.text)]
    except UserError as error:
        where = str(error)
    else:
        where = f"{source.path}:{places[0]}" if places else f"{source.path}: no such row now"
    pin = source.pin
    return "\n".join([row, where, *([pin.url, f"sha256 {pin.sha256}, {pin.licence}"] if pin else [])])


def _wrote(record: Completion) -> Part:
    cut = ", cut there" if record.finish_reason == "length" else ""
    facts = f"{record.model}, seed {record.seed}, {record.completion_tokens} tokens{cut}"
    if isinstance(record, Critique | Revision):
        return Part(
            f"{type(record).__name__.lower()}, round {record.round}, by {record.principle}: {facts}", record.text
        )
    if isinstance(record, Answer):
        scores = ", ".join(f"{name} {score:.2g}" for name, score in record.scores.items())
        harmful = "not asked" if record.harmful is None else f"harmful {record.harmful:.2g}"
        return Part(
            f"answer, {record.arm}: {facts}", f"{record.text}\n\nrules: {record.refusal}, {scores}\njudge: {harmful}"
        )
    return Part(f"first answer: {facts}", record.text)


def _fate(candidate: TracedPair) -> Part:
    passed = candidate.fate in ("train", "validation")
    verdict = candidate.pair.verdict
    lines = ["judge: not asked"] if verdict is None else [f"judge: {key} {value}" for key, value in verdict]
    outcome = f"passed all gates, for {candidate.fate}" if passed else f"dropped by the gate {candidate.fate}"
    return Part(f"pair {candidate.pair.pair_id}: {outcome}", "\n".join(lines))


def _became(revision: Revision, pair: Pair) -> bool:
    key = (revision.prompt_id, revision.principle, revision.round, revision.text)
    return key == (pair.prompt_id, pair.principle, pair.round, pair.chosen[-1].content)


def _of(prompt_id: str, path: Path, kind: type[Written]) -> list[Written]:
    return [record for record in existing(path, kind) if record.prompt_id == prompt_id]


def _principles(steps: Iterable[Critique | Revision]) -> list[Part]:
    """The wording of the principles at each step, and whether the constitution still has it."""
    path = params.load().critiques.constitution
    now = {principle.slug: principle.sha256 for principle in principles.load(path).principles}
    lines = []
    for slug, sha256 in dict.fromkeys((step.principle, step.principle_sha256) for step in steps):
        current = "no longer in the file" if slug not in now else f"another wording in the file now, {now[slug]}"
        lines.append(f"{slug}, sha256 {sha256}: {'as in the file' if now.get(slug) == sha256 else current}")
    return [Part(f"constitution {path}", "\n".join(lines))] if lines else []


def _stage(names: Sequence[str]) -> list[Part]:
    """Models, seeds and files of stages, and the code's version."""
    about = []
    for name in names:
        path = METRICS / f"{name}.json"
        if path.exists():
            facts = ", ".join(f"{key} {value}" for key, value in _about(read_json(path)).items())
            about.append(f"{name}: {facts or 'no facts in ' + str(path)}")
    return [Part("models and seeds", "\n".join(about)), Part("files, md5 in dvc.lock", _files(names)), _code()]


def _about(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A metrics file's facts about its stage: every text at the top level, and the seed."""
    return {key: value for key, value in metrics.items() if isinstance(value, str | bool) or key == "seed"}


def _files(names: Sequence[str]) -> str:
    """Data and settings that the stages read and wrote, with their state against dvc.lock; code is left to git."""
    locked = _lock()
    lines = {}
    for name in names:
        stage = locked.get(name, {})
        for entry in [*stage.get("deps", ()), *stage.get("outs", ())]:
            if not entry["path"].endswith(".py"):
                lines[entry["path"]] = f"{entry['path']}  {entry['md5']}{_state(Path(entry['path']), entry['md5'])}"
        if not stage:
            lines[name] = f"{name}: not in {LOCK}: not run by dvc repro, or the lock is gone"
    return "\n".join(lines.values())


def _lock() -> dict[str, Any]:
    try:
        return dict(run_files.lock(LOCK.read_text(encoding="utf-8"), str(LOCK))["stages"])
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{LOCK}: not readable; restore it (git checkout)") from None


def _state(path: Path, md5: str) -> str:
    if not path.exists():
        return "  missing here"
    if path.is_dir():  # a folder's md5 in DVC is that of a list of its files
        return ""
    return "" if md5_of(path) == md5 else "  changed since"


def _code() -> Part:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = "; files that git tracks are changed" if git("status", "--porcelain", "-uno") else ""
        return Part("code", f"git {git('rev-parse', 'HEAD')}{changed}")
    except (OSError, subprocess.CalledProcessError):
        return Part("code", "no git commit here")


def of_metric(data: RunRecords, name: str) -> list[Part]:
    """A figure of a metrics file (`FILE:KEY`, in DVC's notation), and the records behind it.

    Raises:
        UserError: no such file or key.
    """
    where, _, key = name.partition(":")
    path = Path(where)
    metrics = read_json(path)
    value: Any = metrics
    keys, rest = list[str](), key
    while rest:  # a key may contain dots, such as the name of a hazard or a model
        within = value if isinstance(value, dict) else {}
        match = max((part for part in within if f"{rest}.".startswith(f"{part}.")), key=len, default=None)
        if match is None:
            below = ", ".join(within) if isinstance(value, dict) else "none, it is a figure"
            raise UserError(f"{name}: no key {rest.partition('.')[0]}; there are: {below}")
        value, rest = within[match], rest[len(match) + 1 :]
        keys.append(match)
    stage = path.stem
    parts = [Part(name, json.dumps(value, indent=2, ensure_ascii=False))]
    if stage == "eval":
        parts += _answers(keys)
    if stage == "pairs":
        parts += _pairs(keys, data)
    return [*parts, *_stage([stage])]


def _answers(key: Sequence[str]) -> list[Part]:
    """The answers behind a figure of the held-out prompts, prompt by prompt, with the value of each arm."""
    suite, family, name = (*key, "", "", "")[:3]
    measure = heldout.MEASURES.get((family, name)) if suite == heldout.HeldOut.name else None
    if measure is None:
        return []
    rows = []
    by_arm = [read(_answered(arm), Answer) for arm in _arms()]
    if any([answer.prompt_id for answer in of_arm] != [answer.prompt_id for answer in by_arm[0]] for of_arm in by_arm):
        raise UserError(f"{_answered('*')}: the arms answered different prompts; run dvc repro")
    for answers in zip(*by_arm, strict=True):
        try:
            values = [measure.value(answer) for answer in answers]
        except KeyError as error:
            raise UserError(f"{_answered('*')}: an answer without the score {error}; run dvc repro") from None
        if measure.counts(answers[0]) and None not in values:
            rows.append((answers[0], values))
    means = [statistics.fmean(column) for column in zip(*(values for _, values in rows), strict=True)]
    lines = [f"{answer.prompt_id}  {_by_arm(values, '.4g')}  {answer.hazard}" for answer, values in rows]
    summary = _by_arm(means, ".5g") if rows else "none"
    what = "verdicts as they are now, before their correction" if family == "judge" else "answers as they are now"
    return [Part(f"{len(rows)} prompts; means of the {what}: {summary}", "\n".join(lines))]


def _arms() -> list[str]:
    return params.load().eval.labels


def _answered(arm: str) -> Path:
    return DATA / "eval" / heldout.HeldOut.name / f"{arm}.jsonl"


def _by_arm(values: Sequence[Any], digits: str) -> str:
    return "  ".join(f"{arm} {value:{digits}}" for arm, value in zip(_arms(), values, strict=True))


def _pairs(key: Sequence[str], data: RunRecords) -> list[Part]:
    """The pairs behind a count: those with the fate, principle, hazard and source in the key."""
    head, rest = key[0], key[1:]
    splits = ("train", "validation")
    if not head.startswith(("kept", "dropped", *splits)):
        return []
    sides = splits if head.startswith("kept") else (head,) if head in splits else ()
    rows = [
        candidate for candidate in data.pairs if (candidate.fate in sides if sides else candidate.fate not in splits)
    ]
    for part in rest:
        rows = [
            candidate
            for candidate in rows
            if part in (candidate.fate, candidate.pair.principle, candidate.pair.hazard, _source(data, candidate))
        ]
    lines = [f"{m.pair.pair_id}  {m.fate}  {m.pair.principle}  {m.pair.hazard}" for m in rows]
    return [Part(f"{len(rows)} pairs as they are now", "\n".join(lines))]


def _source(data: RunRecords, candidate: TracedPair) -> str | None:
    prompt = data.prompts.get(candidate.pair.prompt_id)
    return prompt.source if prompt else None


def trace(name: str) -> list[Part]:
    """The chain of a pair, prompt, answer or figure, from its source on.

    Raises:
        UserError: unknown or ambiguous; a file is missing or damaged; or a record's origin no longer exists.
    """
    data = RunRecords()
    if ":" in name or name.endswith(".json"):
        return of_metric(data, name)
    start, slash, arm = name.partition("/")
    record = data.find(start)
    if slash:
        if isinstance(record, TracedPair):
            raise UserError(f"{start}: is a pair; an answer is named by its prompt and arm")
        return of_answer(record, arm)
    return of_prompt(data, record) if isinstance(record, Prompt) else of_pair(data, record)
