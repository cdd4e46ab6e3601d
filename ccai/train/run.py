"""Training on the pairs: one phase or two, a key under which it is resumed and kept, and what comes out of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError

from ccai.base import cache, code
from ccai.base.errors import UserError
from ccai.base.files import write_json
from ccai.base.hashing import digest
from ccai.base.params import Hardware, Train
from ccai.base.records import Demonstration, Message, Pair, Prompt
from ccai.models import files, load
from ccai.models.model import Model
from ccai.models.placement import Placement, place
from ccai.train import checkpoints, launch, phases, rewards, trainers, warnings
from ccai.train.checkpoints import Stop
from ccai.train.trainers import Phase

CURVE = ("phase", "step", "epoch", "loss", "rewards/accuracies", "rewards/margins", "rewards/chosen", "learning_rate")
"""Columns of the training curve, as TRL names them. Steps go on counting from phase to phase."""

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""Files of an adapter. Where all weights were trained, `modelfiles.FILES` are kept."""


@dataclass(frozen=True)
class Data:
    """What is trained on, and what is held back of each kind for validation."""

    pairs: Sequence[Pair]
    validation: Sequence[Pair]
    demonstrations: Sequence[Demonstration]
    validation_demonstrations: Sequence[Demonstration]

    def refuse_held_out(self, evaluation: Sequence[Prompt]) -> None:
        """Nothing is trained on that evaluation asks, letter case and white space aside.

        Raises:
            UserError: how many records, and the id of the first one's prompt.
        """
        asked = {_plain(prompt.text) for prompt in evaluation}
        turns = [(pair.prompt_id, pair.prompt) for pair in self.pairs]
        turns += [(one.prompt_id, one.messages[:-1]) for one in self.demonstrations]
        found = [name for name, prompt in turns if any(_plain(t.content) in asked for t in prompt if t.role == "user")]
        if found:
            raise UserError(
                f"data/pairs: {len(found)} training records ask what data/prompts/eval.jsonl asks, first prompt "
                f"{found[0]}; take them out of your files, or run the stages from prompts on again (dvc repro)"
            )


class Trained(NamedTuple):
    """What a training run leaves: numbers for metrics/train.json and the curve's rows."""

    metrics: dict[str, Any]
    curve: list[dict[str, Any]]
    reused: bool


def placed(model: Model, hardware: Hardware, params: Train) -> Placement:
    """Where the model is trained, held as `train.adapter` wants it: in 4 bit for qlora, whole if all is trained.

    Raises:
        UserError: as `place`; more processes than devices.
    """
    wanted = {"lora": hardware.quantization, "qlora": "4bit", "none": "none"}[params.adapter]
    placement = place(model, hardware.model_copy(update={"quantization": wanted}))
    there = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": params.processes}[placement.device]
    if params.processes > there:
        raise UserError(
            f"train.processes: {params.processes}, but {placement.device} has {there} here; set it to {there}"
        )
    return placement


def train(
    model: Model,
    placement: Placement,
    data: Data,
    params: Train,
    seed: int,
    versions: dict[str, str],
    target: Path,
    stop: Stop,
) -> Trained:
    """Train an adapter, or all weights, into `target` (replaced whole at the end).

    A finished run is kept in the cache under a key of data, params, weights, versions and the code that trains
    (`code.fingerprint`); so are checkpoints of an unfinished one. The same key later copies the one or goes on from
    the other.

    Raises:
        UserError: nothing to train on fits `params.max_length`, or what `phases.train` raises.
        SystemExit: told to stop; what was done is kept.
    """
    key = digest(
        {
            "data": [[record.model_dump() for record in records] for records in vars(data).values()],
            "params": params.model_dump(),
            "seed": seed,
            "model": [model.name, model.revision],
            "weights": files.fingerprint(model.folder),
            "placement": placement[:3],
            "versions": versions,
            "code": code.fingerprint("stages.train"),
        }
    )
    work = cache.folder("training") / key[:32]
    finished = work / "finished"
    with phases.explained(params, placement):
        work.mkdir(exist_ok=True)
        with (work / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a second run of the same training waits, then finds it finished
            reused = _kept(finished)
            if not reused:
                whole = Phase(params.method, work, model, placement, None, params, seed)
                _run(_phases(whole), data, stop, lock.fileno())
            for path in work.iterdir():
                if path.name not in ("finished", "lock"):
                    checkpoints.remove(path)
        result = json.loads((finished / "result.json").read_text(encoding="utf-8"))
        _replace(finished / "weights", target)
    return Trained(result["metrics"], result["curve"], reused)


def half(prompt_id: str) -> str:
    """Which phase of sft+dpo a prompt belongs to, by hash."""
    return ("sft", "dpo")[int(digest(["half", prompt_id])[:8], 16) % 2]


def _phases(whole: Phase) -> list[Phase]:
    names = whole.method.split("+")
    found = [replace(whole, method=name, folder=whole.folder / name) for name in names]
    if len(found) == 2:
        found[1] = replace(found[1], start=found[0].folder / "finished" / "weights")
    return found


def _run(plan: Sequence[Phase], data: Data, stop: Stop, lock: int) -> None:
    """All phases in turn, each unless it is finished, then what came of them, into `finished` in the work folder."""
    model, params, seed, work = plan[-1].model, plan[-1].params, plan[-1].seed, plan[-1].folder.parent
    offered = _offered(data, params)
    fitting = _fitting(model, offered, params)
    for phase in plan:
        if not _kept(phase.folder / "finished"):
            sft = phase.method == "sft"
            trainers.write(phase.method, fitting.demonstrations if sft else fitting.pairs, seed, phase.folder / "train")
            held = fitting.validation_demonstrations if sft else fitting.validation
            trainers.write(phase.method, held, seed, phase.folder / "validation")
            if len(plan) > 1:
                print(f"train: {phase.method}", flush=True)
            launch.start(phase, stop, lock)
    last = plan[-1]
    results = [phases.result(phase.folder) for phase in plan]
    weights = last.folder / "finished" / "weights"
    moved = rewards.measure(model, last.placement, weights, last.start, fitting.validation, params.beta)
    over_length = sum(map(len, vars(offered).values())) - sum(map(len, vars(fitting).values()))
    metrics = _metrics(params, results, moved, fitting, over_length)
    adapter = 0 if params.adapter == "none" else metrics["trainable_parameters"]
    metrics["parameters"] = files.parameters(model.folder) + adapter
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        whole = Path(scratch) / "finished"
        _save(weights, model, params, whole / "weights")
        write_json(whole / "result.json", {"metrics": metrics, "curve": _curve(plan, results)})
        checkpoints.seal(whole)
        whole.rename(work / "finished")


def _kept(finished: Path) -> bool:
    """Whether something was finished and still is whole; what is not is deleted."""
    if not finished.exists():
        return False
    wrong = checkpoints.flaw(finished)
    if wrong:
        print(f"train: {finished} is not whole ({wrong}); training again", flush=True)
        checkpoints.remove(finished)
    return wrong is None


def _offered(data: Data, params: Train) -> Data:
    """Of the data, what the method takes: pairs or demonstrations or, of sft+dpo, each of its half of the prompts."""
    kinds = params.method.split("+")
    halved = len(kinds) == 2
    sft = "sft" in kinds
    return Data(
        [] if kinds == ["sft"] else [pair for pair in data.pairs if not halved or half(pair.prompt_id) == kinds[1]],
        data.validation,
        [one for one in data.demonstrations if sft and (not halved or half(one.prompt_id) == "sft")],
        data.validation_demonstrations if sft else [],
    )


def _fitting(model: Model, offered: Data, params: Train) -> Data:
    tokenizer = load.tokenizer(model.folder)

    def fits(record: Pair | Demonstration) -> bool:
        try:
            return _tokens(tokenizer, record) <= params.max_length
        except (TemplateError, TypeError, ValueError, LookupError) as error:  # whatever a template says or stumbles on
            raise UserError(
                f"model {model.name}: its chat template refuses what prompt {record.prompt_id} has in data/pairs: "
                f"{error}; leave such turns out (responses.system may be empty) or train another model"
            ) from None

    found = Data(
        [pair for pair in offered.pairs if fits(pair)],
        [pair for pair in offered.validation if fits(pair)],
        [one for one in offered.demonstrations if fits(one)],
        [one for one in offered.validation_demonstrations if fits(one)],
    )
    if (params.method != "sft" and not found.pairs) or not found.validation:
        raise _nothing("pairs", len(offered.pairs), len(offered.validation), params)
    if "sft" in params.method and not (found.demonstrations and found.validation_demonstrations):
        raise _nothing("demonstrations", len(offered.demonstrations), len(offered.validation_demonstrations), params)
    return found


def _nothing(kind: str, given: int, held: int, params: Train) -> UserError:
    if not (given and held):
        return UserError(
            f"data/pairs: {given} training and {held} validation {kind} for train.method {params.method}, which needs "
            "both; keep more pairs (pairs in params.yaml) or take another method"
        )
    return UserError(
        f"train.max_length: none of {given} training or {held} validation {kind} fits {params.max_length} tokens; "
        "raise it or shorten revisions.max_new_tokens"
    )


def _tokens(tokenizer: Any, record: Pair | Demonstration) -> int:
    """Tokens of the longest of the conversations. TRL would cut or drop longer ones without a word."""

    def length(messages: Sequence[Message], *, asked: bool = False) -> int:
        turns = [message.model_dump() for message in messages]
        return len(tokenizer.apply_chat_template(turns, add_generation_prompt=asked, return_dict=True)["input_ids"])

    if isinstance(record, Demonstration):
        prompt, whole = record.messages[:-1], [record.messages]
    else:
        prompt, whole = record.prompt, [[*record.prompt, *answer] for answer in (record.chosen, record.rejected)]
    length(prompt, asked=True)  # the trainers put it to the template by itself, too, and it may refuse
    return max(map(length, whole))


def _metrics(
    params: Train, results: Sequence[dict[str, Any]], moved: dict[str, Any], fitting: Data, over_length: int
) -> dict[str, Any]:
    last = results[-1]
    kinds = params.method.split("+")
    return {
        "method": params.method,
        "pairs": 0 if kinds == ["sft"] else len(fitting.pairs),
        "validation_pairs": len(fitting.validation),
        "demonstrations": len(fitting.demonstrations) if "sft" in kinds else 0,
        "over_length": over_length,
        "loss_first": last["steps"][0]["loss"],
        "loss_last": last["steps"][-1]["loss"],
        "validation": {"loss": last["loss_after"], **moved},
        "validation_before": {"loss": last["loss_before"]},
        "length_ratio": _length_ratio(fitting.pairs or fitting.validation),
        "steps": sum(len(result["steps"]) for result in results),
        "epochs": last["epochs"],
        "tokens": sum(result["tokens"] for result in results),
        "devices": params.processes,
        "effective_batch": params.batch_size,
        "trainable_parameters": last["trainable_parameters"],
        "warnings": list(warnings.found(last["steps"], params.batch_size, params.beta).values()),
    }


def _length_ratio(pairs: Sequence[Pair]) -> float | None:
    rejected = sum(pair.rejected_tokens for pair in pairs)  # 0: an endpoint that counts none
    return sum(pair.chosen_tokens for pair in pairs) / rejected if rejected else None


def _curve(plan: Sequence[Phase], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for phase, result in zip(plan, results, strict=True):
        begun = len(rows)
        for row in result["steps"]:
            here = {"phase": phase.method, **row, "step": begun + row["step"]}
            rows.append({name: here[name] for name in CURVE if name in here})
    return rows


def _save(weights: Path, model: Model, params: Train, folder: Path) -> None:
    """Safetensors and what belongs to them, without paths of this machine and in one order."""
    folder.mkdir(parents=True)
    patterns = files.FILES if params.adapter == "none" else ADAPTER
    for path in sorted({path for pattern in patterns for path in weights.glob(pattern)}):
        shutil.copy(path, folder / path.name)
    if params.adapter == "none":
        return
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = model.name  # PEFT writes this machine's path
    config["revision"] = None if model.revision.startswith("sha256:") else model.revision  # PEFT asks the hub for it
    for name, value in config.items():  # PEFT writes sets, in an order that changes
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            config[name] = sorted(value)
    write_json(folder / "adapter_config.json", dict(sorted(config.items())))


def _replace(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*"):  # by a run that was killed
        checkpoints.remove(left)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copytree(source, fresh)
    checkpoints.remove(target)
    fresh.rename(target)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
