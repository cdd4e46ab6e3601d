"""Training on the pairs: the phases of a method, the key by which a run is resumed and cached, and its results."""

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
"""Columns of the training curve, with TRL's names. Step numbers continue across phases."""

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""Files of an adapter. After training of all weights, `files.FILES` are kept."""


@dataclass(frozen=True)
class TrainingData:
    """Training and validation data, as pairs and as demonstrations."""

    pairs: Sequence[Pair]
    validation: Sequence[Pair]
    demonstrations: Sequence[Demonstration]
    validation_demonstrations: Sequence[Demonstration]

    def refuse_held_out(self, evaluation: Sequence[Prompt]) -> None:
        """Check that no training prompt is an evaluation prompt, ignoring case and white space.

        Raises:
            UserError: some are; gives their number and the id of the first.
        """
        held = {_plain(prompt.text) for prompt in evaluation}
        turns = [(pair.prompt_id, pair.prompt) for pair in self.pairs]
        turns += [(one.prompt_id, one.messages[:-1]) for one in self.demonstrations]
        names = [name for name, prompt in turns if any(_plain(t.content) in held for t in prompt if t.role == "user")]
        if names:
            raise UserError(
                f"data/pairs: {len(names)} training records ask what data/prompts/eval.jsonl asks, first prompt "
                f"{names[0]}; take them out of your files, or run the stages from prompts on again (dvc repro)"
            )


class Trained(NamedTuple):
    """The result of a training: values for metrics/train.json and the rows of the curve."""

    metrics: dict[str, Any]
    curve: list[dict[str, Any]]
    reused: bool


def placed(model: Model, hardware: Hardware, params: Train) -> Placement:
    """The placement for training, with weights as `train.adapter` needs them: in 4 bit for qlora, unquantized for
    `none`.

    Raises:
        UserError: as `place`; or more processes than devices.
    """
    quantization = {"lora": hardware.quantization, "qlora": "4bit", "none": "none"}[params.adapter]
    placement = place(model, hardware.model_copy(update={"quantization": quantization}))
    devices = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": params.processes}[placement.device]
    if params.processes > devices:
        raise UserError(
            f"train.processes: {params.processes}, but {placement.device} has {devices} here; set it to {devices}"
        )
    return placement


def train(
    model: Model,
    placement: Placement,
    data: TrainingData,
    params: Train,
    seed: int,
    versions: dict[str, str],
    target: Path,
    stop: Stop,
) -> Trained:
    """Train an adapter, or all weights, into `target` (replaced as a whole at the end).

    A finished run is cached under a key of data, params, weights, versions and the training code (`code.fingerprint`);
    checkpoints of an unfinished run are kept under the same key. Later runs with that key copy the result, or resume.

    Raises:
        UserError: no training data fits `params.max_length`, or as `phases.train`.
        SystemExit: stopped by a signal; finished work is kept.
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
    """The phase of sft+dpo that a prompt belongs to, by hash."""
    return ("sft", "dpo")[int(digest(["half", prompt_id])[:8], 16) % 2]


def _phases(whole: Phase) -> list[Phase]:
    names = whole.method.split("+")
    plan = [replace(whole, method=name, folder=whole.folder / name) for name in names]
    if len(plan) == 2:
        plan[1] = replace(plan[1], start=plan[0].folder / "finished" / "weights")
    return plan


def _run(plan: Sequence[Phase], data: TrainingData, stop: Stop, lock: int) -> None:
    """Run all unfinished phases in turn, then write their results into `finished` in the work folder."""
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
    """Whether there is a finished result that is complete; an incomplete one is deleted."""
    if not finished.exists():
        return False
    wrong = checkpoints.flaw(finished)
    if wrong:
        print(f"train: {finished} is not whole ({wrong}); training again", flush=True)
        checkpoints.remove(finished)
    return wrong is None


def _offered(data: TrainingData, params: Train) -> TrainingData:
    """The data that the method uses: pairs or demonstrations, or for sft+dpo each from its half of the prompts."""
    kinds = params.method.split("+")
    halved = len(kinds) == 2
    sft = "sft" in kinds
    return TrainingData(
        [] if kinds == ["sft"] else [pair for pair in data.pairs if not halved or half(pair.prompt_id) == kinds[1]],
        data.validation,
        [one for one in data.demonstrations if sft and (not halved or half(one.prompt_id) == "sft")],
        data.validation_demonstrations if sft else [],
    )


def _fitting(model: Model, offered: TrainingData, params: Train) -> TrainingData:
    tokenizer = load.tokenizer(model.folder)

    def fits(record: Pair | Demonstration) -> bool:
        try:
            return _tokens(tokenizer, record) <= params.max_length
        except (TemplateError, TypeError, ValueError, LookupError) as error:  # a template may raise any of these
            raise UserError(
                f"model {model.name}: its chat template refuses what prompt {record.prompt_id} has in data/pairs: "
                f"{error}; leave such turns out (responses.system may be empty) or train another model"
            ) from None

    data = TrainingData(
        [pair for pair in offered.pairs if fits(pair)],
        [pair for pair in offered.validation if fits(pair)],
        [one for one in offered.demonstrations if fits(one)],
        [one for one in offered.validation_demonstrations if fits(one)],
    )
    if (params.method != "sft" and not data.pairs) or not data.validation:
        raise _nothing("pairs", len(offered.pairs), len(offered.validation), params)
    if "sft" in params.method and not (data.demonstrations and data.validation_demonstrations):
        raise _nothing("demonstrations", len(offered.demonstrations), len(offered.validation_demonstrations), params)
    return data


def _nothing(kind: str, offered: int, held: int, params: Train) -> UserError:
    if not (offered and held):
        return UserError(
            f"data/pairs: {offered} training and {held} validation {kind} for train.method {params.method}, which "
            "needs both; keep more pairs (pairs in params.yaml) or take another method"
        )
    return UserError(
        f"train.max_length: none of {offered} training or {held} validation {kind} fits {params.max_length} tokens; "
        "raise it or shorten revisions.max_new_tokens"
    )


def _tokens(tokenizer: Any, record: Pair | Demonstration) -> int:
    """Tokens of the longest of a record's conversations. TRL would silently truncate or drop longer ones."""

    def length(messages: Sequence[Message], *, generation_prompt: bool = False) -> int:
        turns = [message.model_dump() for message in messages]
        return len(
            tokenizer.apply_chat_template(turns, add_generation_prompt=generation_prompt, return_dict=True)["input_ids"]
        )

    if isinstance(record, Demonstration):
        prompt, whole = record.messages[:-1], [record.messages]
    else:
        prompt, whole = record.prompt, [[*record.prompt, *answer] for answer in (record.chosen, record.rejected)]
    length(prompt, generation_prompt=True)  # trainers also render it alone, which a template may refuse
    return max(map(length, whole))


def _metrics(
    params: Train, results: Sequence[dict[str, Any]], moved: dict[str, Any], fitting: TrainingData, over_length: int
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
        "warnings": list(warnings.detect(last["steps"], params.batch_size, params.beta).values()),
    }


def _length_ratio(pairs: Sequence[Pair]) -> float | None:
    rejected = sum(pair.rejected_tokens for pair in pairs)  # 0: an endpoint without token counts
    return sum(pair.chosen_tokens for pair in pairs) / rejected if rejected else None


def _curve(plan: Sequence[Phase], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for phase, result in zip(plan, results, strict=True):
        begun = len(rows)
        for row in result["steps"]:
            columns = {"phase": phase.method, **row, "step": begun + row["step"]}
            rows.append({name: columns[name] for name in CURVE if name in columns})
    return rows


def _save(weights: Path, model: Model, params: Train, folder: Path) -> None:
    """Copy the weights and their files, without paths of this machine and in a fixed order."""
    folder.mkdir(parents=True)
    patterns = files.FILES if params.adapter == "none" else ADAPTER
    for path in sorted({path for pattern in patterns for path in weights.glob(pattern)}):
        shutil.copy(path, folder / path.name)
    if params.adapter == "none":
        return
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = model.name  # PEFT writes this machine's path
    config["revision"] = (
        None if model.revision.startswith("sha256:") else model.revision
    )  # PEFT requests it from the hub
    for name, value in config.items():  # PEFT writes sets, in an order that changes
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            config[name] = sorted(value)
    write_json(folder / "adapter_config.json", dict(sorted(config.items())))


def _replace(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.*"):  # left by a killed run
        checkpoints.remove(leftover)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copytree(source, fresh)
    checkpoints.remove(target)
    fresh.rename(target)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
