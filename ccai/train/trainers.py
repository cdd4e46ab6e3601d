"""TRL's trainers: the one for each method, with its weights and settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from accelerate.state import PartialState
from accelerate.utils import DistributedType
from datasets import Dataset, disable_progress_bars, load_from_disk
from peft import LoraConfig
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer
from trl.trainer import utils as trl_utils

from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.params import Train
from ccai.base.records import Demonstration, Pair
from ccai.models import load
from ccai.models.model import Model
from ccai.models.placement import Placement

disable_progress_bars()
os.environ.setdefault("TQDM_DISABLE", "1")  # TRL's bar over the reference's log-probs
# Without Triton, TRL also runs prompt and padding through the LM head and then drops them, which is cheaper on devices
# that compile for each shape. CPU and MPS do not; as on CUDA, only the answers' positions are needed.
trl_utils._use_triton = lambda device: True

LOSSES = {"dpo": "sigmoid", "dpo-norm": "sigmoid_norm", "ipo": "ipo", "apo-zero": "apo_zero", "apo-down": "apo_down"}
"""The `loss_type` of TRL's DPOTrainer for each method. DPO: arXiv 2305.18290; by length: 2411.15124, section 5.1; IPO:
2310.12036; APO: 2408.06266.
"""

CHECKPOINTS = 10
"""Checkpoints per run; a killed run resumes from the last one."""


@dataclass(frozen=True)
class Phase:
    """One training with one loss, from given weights.

    Attributes:
        method: `sft`, `kto` or one of `LOSSES`.
        folder: contains the data (`write`); receives checkpoints and results.
        start: an earlier phase's result to start from; None: the model itself.
    """

    method: str
    folder: Path
    model: Model
    placement: Placement
    start: Path | None
    params: Train
    seed: int


class Precision(NamedTuple):
    """Number formats in training: `weights` as loaded, and whether multiplications are in 16 bit."""

    weights: Literal["float32", "bfloat16", "float16"]
    bf16: bool
    fp16: bool


def precision(placement: Placement, params: Train) -> Precision:
    """The number formats for a placement.

    Trained weights stay in float32, because small steps vanish in 16 bit; an adapter is always float32. Autocast to 16
    bit is used on CUDA only. On MPS a float16 base is used as it is.
    """
    cuda = placement.device == "cuda"
    weights = "float32" if params.adapter == "none" else placement.dtype
    return Precision(weights, cuda and placement.dtype == "bfloat16", cuda and placement.dtype == "float16")


def precomputes(params: Train) -> bool:
    """Whether the reference model's log-probs are computed once, before training.

    That is cheaper if each pair is used more than once; with all weights trained it also saves a second model in
    memory.
    """
    if params.precompute_reference == "auto":
        return params.epochs > 1 or params.adapter == "none"
    return params.precompute_reference


def write(method: str, pairs: Sequence[Pair] | Sequence[Demonstration], seed: int, folder: Path) -> None:
    """Write records in the format of the method's trainer, to disk, where processes share the tokenized data."""
    Dataset.from_list(_rows(method, pairs, seed)).save_to_disk(folder)


def _rows(method: str, records: Sequence[Pair] | Sequence[Demonstration], seed: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for record in records:
        if isinstance(record, Demonstration):
            messages = [message.model_dump() for message in record.messages]
            rows.append({"prompt": messages[:-1], "completion": messages[-1:]})
        elif method == "kto":
            fields = record.model_dump(include={"prompt", "chosen", "rejected"})
            rows += [
                {"prompt": fields["prompt"], "completion": fields[side], "label": side == "chosen"} for side in SIDES
            ]
        else:
            rows.append(record.model_dump(include={"prompt", "chosen", "rejected"}))
    # KTO keeps the order, and uses a neighbour's answer as one that does not belong to the prompt.
    return sorted(rows, key=lambda row: digest([seed, row])) if method == "kto" else rows


SIDES = ("chosen", "rejected")


def make(phase: Phase, callbacks: Sequence[Any]) -> Trainer:
    """The trainer of a phase, ready to train.

    Raises:
        UserError: sharding is requested but not supported here.
    """
    params, method = phase.params, phase.method
    tokenizer = load.tokenizer(phase.model.folder)
    common: dict[str, Any] = {
        "model": _weights(phase),
        "train_dataset": load_from_disk(phase.folder / "train"),
        "eval_dataset": load_from_disk(phase.folder / "validation"),
        "processing_class": tokenizer,
        "peft_config": None if params.adapter == "none" or phase.start else _lora(params),
        "callbacks": list(callbacks),
    }
    settings = _settings(phase)
    if method == "sft":
        settings |= {"learning_rate": params.sft.learning_rate, "num_train_epochs": params.sft.epochs}
        trainer = SFTTrainer(args=_arguments(SFTConfig, settings, phase), **common)
    elif method == "kto":
        settings["per_device_train_batch_size"] *= 2  # a pair is two examples
        settings |= {"beta": params.beta, "precompute_ref_log_probs": precomputes(params)}
        trainer = KTOTrainer(args=_arguments(KTOConfig, settings, phase), **common)
    else:
        losses = {LOSSES[method]: 1.0} | ({"sft": params.nll_coefficient} if params.nll_coefficient else {})
        settings |= {
            "beta": params.beta,
            "loss_type": list(losses),
            "loss_weights": list(losses.values()),
            "precompute_ref_log_probs": precomputes(params),
        }
        trainer = DPOTrainer(args=_arguments(DPOConfig, settings, phase), **common)
    trainer.remove_callback(PrinterCallback)
    if params.sharding == "fsdp" and not trainer.is_fsdp_enabled:
        raise UserError("train.sharding: accelerate would not shard here; set it to none")
    return trainer


def _arguments(kind: Any, settings: dict[str, Any], phase: Phase) -> Any:
    """The trainer's arguments; creating them connects the processes."""
    arguments = kind(**settings)
    if phase.params.sharding == "fsdp" and arguments.device.type == "cpu":
        # accelerate shards on every device type except CPUs, where it silently turns FSDP into DDP. Nothing else
        # depends on the type: the device is chosen, and gloo is running.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return arguments


def _settings(phase: Phase) -> dict[str, Any]:
    params, placement = phase.params, phase.placement
    held = precision(placement, params)
    checkpointing = params.gradient_checkpointing
    return {
        "output_dir": str(phase.folder / "checkpoints"),
        "seed": _seed(phase.seed),
        "data_seed": _seed(phase.seed),
        "learning_rate": params.learning_rate,
        "num_train_epochs": params.epochs,
        "per_device_train_batch_size": params.per_device,
        "per_device_eval_batch_size": 2 if phase.method == "kto" else 1,  # TRL averages over batches; pairs count alike
        "gradient_accumulation_steps": params.accumulation,
        "max_length": params.max_length,
        "warmup_steps": params.warmup_ratio,
        "lr_scheduler_type": "constant_with_warmup" if params.scheduler == "constant" else params.scheduler,
        "gradient_checkpointing": placement.device != "cpu" if checkpointing == "auto" else checkpointing,
        "bf16": held.bf16,
        "fp16": held.fp16,
        "use_cpu": placement.device == "cpu",
        "dataloader_pin_memory": placement.device == "cuda",
        "ddp_find_unused_parameters": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the filter would log the mean of earlier losses instead
        "include_num_input_tokens_seen": "non_padding",
        "save_steps": 1 / CHECKPOINTS,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "eval_strategy": "no",
        "eval_on_start": True,  # calling `evaluate` before `train` would stop DDP from sharing gradients
    }


def _seed(seed: int) -> int:
    """The seed in 32 bits, for NumPy's generator, which the trainer also seeds."""
    return seed if seed < 2**32 else int(digest(["train", seed])[:8], 16)


def _weights(phase: Phase) -> Any:
    placement = phase.placement._replace(dtype=precision(phase.placement, phase.params).weights)
    if phase.params.adapter == "none":
        return load.weights(replace(phase.model, folder=phase.start or phase.model.folder), placement)
    base = load.weights(phase.model, placement)
    if placement.quantization == "4bit":
        from bitsandbytes.nn import Linear4bit

        for layer in base.modules():
            if isinstance(layer, Linear4bit):
                # On some CPUs a forward pass without gradients would leave it in a form that has no backward pass.
                layer.support_avx512bf16_for_cpu = False
    # SFT's adapter is trained further; TRL keeps a frozen copy as the reference model.
    return load.adapter(base, phase.start, trainable=True) if phase.start else base


def _lora(params: Train) -> LoraConfig:
    return LoraConfig(r=params.lora_r, lora_alpha=params.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
