"""DPO with LoRA through TRL: seeded, resumable, and the same bytes when repeated."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer

from ccai import cache, models
from ccai.errors import UserError
from ccai.models import Model, Placement
from ccai.params import Train
from ccai.records import Pair, digest, write_json, write_text

disable_progress_bars()

CURVE = ("step", "epoch", "loss", "rewards/accuracies", "rewards/margins", "learning_rate")
"""Columns of the training curve, as TRL names them."""

CHECKPOINTS = 10
"""Checkpoints over a run; the last one is what a killed run goes on from."""


class Trained(NamedTuple):
    """What a training run leaves: numbers for metrics/train.json and the curve's rows."""

    metrics: dict[str, Any]
    curve: list[dict[str, float]]
    reused: bool


def train(
    model: Model,
    placement: Placement,
    pairs: Sequence[Pair],
    validation: Sequence[Pair],
    params: Train,
    seed: int,
    versions: dict[str, str],
    target: Path,
) -> Trained:
    """Train an adapter into `target` (replaced whole at the end).

    A finished run is kept in the cache under a key of data, params, weights, versions and this module's code; so is a
    checkpoint of an unfinished one. The same key later copies the one or goes on from the other.

    Raises:
        UserError: every pair is longer than `params.max_length` tokens.
    """
    key = digest(
        {
            "pairs": [pair.model_dump() for pair in pairs],
            "validation": [pair.model_dump() for pair in validation],
            "params": params.model_dump(),
            "seed": seed,
            "model": [model.name, model.revision, model.licence],  # the adapter's card names them
            "weights": models.fingerprint(model.folder),
            "placement": placement[:3],
            "versions": versions,
            "code": ast.dump(ast.parse(Path(__file__).read_text(encoding="utf-8"))),  # comments don't count
        }
    )
    work = cache.folder("training") / key[:32]
    work.mkdir(exist_ok=True)
    finished = work / "finished"
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run of the same training waits, then finds it finished
        reused = finished.exists()
        if not reused:
            _run(model, placement, pairs, validation, params, seed, work)
    result = json.loads((finished / "result.json").read_text())
    _replace(finished / "adapter", target)
    return Trained(result["metrics"], result["curve"], reused)


def _run(
    model: Model,
    placement: Placement,
    pairs: Sequence[Pair],
    validation: Sequence[Pair],
    params: Train,
    seed: int,
    work: Path,
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model.folder, trust_remote_code=False)
    fitting = [pair for pair in pairs if _tokens(tokenizer, pair) <= params.max_length]
    checked = [pair for pair in validation if _tokens(tokenizer, pair) <= params.max_length]
    if not fitting or not checked:
        raise UserError(
            f"train.max_length: none of {len(pairs)} training or {len(validation)} validation pairs fits "
            f"{params.max_length} tokens; raise it or shorten revisions.max_new_tokens"
        )
    weights = models.load(model, placement)
    arguments = DPOConfig(
        output_dir=str(work / "checkpoints"),
        seed=seed,
        data_seed=seed,
        learning_rate=params.learning_rate,
        beta=params.beta,
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.per_device,
        per_device_eval_batch_size=1,  # TRL averages over batches; so each pair counts the same
        gradient_accumulation_steps=params.accumulation,
        max_length=params.max_length,
        warmup_steps=params.warmup_ratio,
        lr_scheduler_type="linear",
        gradient_checkpointing=placement.device != "cpu",
        bf16=placement.dtype == "bfloat16" and placement.device == "cuda",
        fp16=False,
        use_cpu=placement.device == "cpu",
        dataloader_pin_memory=placement.device == "cuda",
        logging_steps=1,
        save_steps=1 / CHECKPOINTS,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        eval_strategy="no",
    )
    trainer = DPOTrainer(
        model=weights,
        args=arguments,
        train_dataset=_dataset(fitting),
        eval_dataset=_dataset(checked),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=params.lora_r, lora_alpha=params.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[_Lines()],
    )
    trainer.remove_callback(PrinterCallback)
    before = trainer.evaluate()
    checkpoint = _last_checkpoint(work / "checkpoints")
    if checkpoint:
        print(f"train: going on from {checkpoint.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    after = trainer.evaluate()
    curve = [{name: row[name] for name in CURVE if name in row} for row in trainer.state.log_history if "loss" in row]
    metrics = _metrics(params, before, after, curve, fitting, checked, len(pairs) + len(validation))
    devices = trainer.args.world_size * max(1, trainer.args.n_gpu)  # processes, each with one GPU or several
    metrics |= {"steps": trainer.state.global_step, "devices": devices}
    metrics["effective_batch"] = params.batch_size
    trainable, total = trainer.model.get_nb_trainable_parameters()
    metrics |= {"trainable_parameters": trainable, "parameters": total}
    if not all(torch.isfinite(p).all() for p in trainer.model.parameters() if p.requires_grad):
        raise UserError("train: the adapter holds NaN or infinity; lower train.learning_rate")
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        whole = Path(scratch) / "finished"
        _save(trainer.model, model, params, metrics, whole / "adapter")
        write_json(whole / "result.json", {"metrics": metrics, "curve": curve})
        whole.rename(work / "finished")
    shutil.rmtree(work / "checkpoints", ignore_errors=True)


def _last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that is whole. A kill may leave half of one; the trainer's state is written last."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.partition("-")[2])):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text())
        except (OSError, ValueError):
            continue
        return path
    return None


def _tokens(tokenizer: Any, pair: Pair) -> int:
    """Tokens of the longer of the two conversations. TRL would cut or drop longer ones without a word."""
    prompt = [message.model_dump() for message in pair.prompt]
    return max(
        len(tokenizer.apply_chat_template([*prompt, answer[0].model_dump()], return_dict=True)["input_ids"])
        for answer in (pair.chosen, pair.rejected)
    )


def _dataset(pairs: Sequence[Pair]) -> Dataset:
    rows = [pair.model_dump(include={"prompt", "chosen", "rejected"}) for pair in pairs]
    return Dataset.from_list(rows)


def _metrics(
    params: Train,
    before: dict[str, float],
    after: dict[str, float],
    curve: Sequence[dict[str, float]],
    fitting: Sequence[Pair],
    checked: Sequence[Pair],
    given: int,
) -> dict[str, Any]:
    def validation(values: dict[str, float]) -> dict[str, float]:
        return {
            "loss": values["eval_loss"],
            "reward_accuracy": values["eval_rewards/accuracies"],
            "reward_margin": values["eval_rewards/margins"],
            # A DPO reward is beta * (log p - log p of the reference), summed over the completion's tokens.
            "chosen_logp_drift": values["eval_rewards/chosen"] / params.beta,
            "rejected_logp_drift": values["eval_rewards/rejected"] / params.beta,
        }

    return {
        "pairs": len(fitting),
        "validation_pairs": len(checked),
        "over_length": given - len(fitting) - len(checked),
        "loss_first": curve[0]["loss"],
        "loss_last": curve[-1]["loss"],
        "validation": validation(after),
        "validation_before": validation(before),
        "length_ratio": sum(p.chosen_tokens for p in fitting) / sum(p.rejected_tokens for p in fitting),
    }


def _save(trained: Any, model: Model, params: Train, metrics: dict[str, Any], folder: Path) -> None:
    """Adapter as safetensors, a config without paths and in one order, and our own card."""
    trained.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = model.name  # PEFT writes this machine's path
    config["revision"] = model.revision
    for name, value in config.items():  # PEFT writes sets, in an order that changes
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            config[name] = sorted(value)
    write_json(folder / "adapter_config.json", dict(sorted(config.items())))
    write_text(folder / "README.md", _card(model, params, metrics))
    for path in folder.iterdir():
        if path.name not in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
            path.unlink()


def _card(model: Model, params: Train, metrics: dict[str, Any]) -> str:
    settings = "\n".join(f"- {name}: {value}" for name, value in params)
    return (
        f"---\nlibrary_name: peft\nbase_model: {model.name}\nlicense: {model.licence}\ntags: [dpo, lora, trl]\n---\n"
        "# Contemplative constitutional AI adapter\n\n"
        f"A LoRA adapter for `{model.name}`, trained with DPO on {metrics['pairs']} preference pairs: the model's own "
        "answers against their revisions after a critique by the constitution.\n\n"
        f"Validation ({metrics['validation_pairs']} pairs of other prompts): "
        f"reward accuracy {metrics['validation']['reward_accuracy']:.3f}, "
        f"margin {metrics['validation']['reward_margin']:.4f}.\n\n## Settings\n\n{settings}\n"
    )


def _replace(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


class _Lines(TrainerCallback):  # type: ignore[misc]
    """One line per logged step instead of transformers' dictionaries."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            print(f"train: step {state.global_step}/{state.max_steps}, loss {logs['loss']:.4f}", flush=True)
