"""TRL's trainers: which one a method means, on which weights, with which settings."""

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
# Where there is no Triton, TRL puts prompt and padding through the LM head, too, and then drops them: on devices that
# compile for each shape that is cheaper. Neither the CPU nor MPS does; as on CUDA, only positions of answers go there.
trl_utils._use_triton = lambda device: True

LOSSES = {"dpo": "sigmoid", "dpo-norm": "sigmoid_norm", "ipo": "ipo", "apo-zero": "apo_zero", "apo-down": "apo_down"}
"""Our method to the `loss_type` of TRL's DPOTrainer. DPO: arXiv 2305.18290; by length: 2411.15124, section 5.1; IPO:
2310.12036; APO: 2408.06266."""

CHECKPOINTS = 10
"""Checkpoints over a run; the last one is what a killed run goes on from."""


@dataclass(frozen=True)
class Phase:
    """One training with one loss, from given weights.

    Attributes:
        method: `sft`, `kto` or one of `LOSSES`.
        folder: has the data (`write`); gets checkpoints and what was trained.
        start: what an earlier phase saved, to be trained on; None: the model as it is.
    """

    method: str
    folder: Path
    model: Model
    placement: Placement
    start: Path | None
    params: Train
    seed: int


class Precision(NamedTuple):
    """How numbers are held while training: `weights` as loaded, and whether multiplications are in 16 bit."""

    weights: Literal["float32", "bfloat16", "float16"]
    bf16: bool
    fp16: bool


def precision(placement: Placement, params: Train) -> Precision:
    """Of weights that are trained float32 is kept, since small steps vanish in 16 bit; an adapter always is float32.

    Autocast to 16 bit is used on CUDA only. On MPS a float16 base takes part as it is.
    """
    cuda = placement.device == "cuda"
    weights = "float32" if params.adapter == "none" else placement.dtype
    return Precision(weights, cuda and placement.dtype == "bfloat16", cuda and placement.dtype == "float16")


def precomputes(params: Train) -> bool:
    """Whether the reference's log-probs are computed once, before training.

    That is cheaper if each pair is met more than once; and with all weights trained it saves a second model in memory.
    """
    if params.precompute_reference == "auto":
        return params.epochs > 1 or params.adapter == "none"
    return params.precompute_reference


def write(method: str, pairs: Sequence[Pair] | Sequence[Demonstration], seed: int, folder: Path) -> None:
    """Write records as the method's trainer reads them. On disk the processes of a training share what is tokenized."""
    Dataset.from_list(_rows(method, pairs, seed)).save_to_disk(folder)


def _rows(method: str, records: Sequence[Pair] | Sequence[Demonstration], seed: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for record in records:
        if isinstance(record, Demonstration):
            messages = [message.model_dump() for message in record.messages]
            rows.append({"prompt": messages[:-1], "completion": messages[-1:]})
        elif method == "kto":
            told = record.model_dump(include={"prompt", "chosen", "rejected"})
            rows += [{"prompt": told["prompt"], "completion": told[side], "label": side == "chosen"} for side in SIDES]
        else:
            rows.append(record.model_dump(include={"prompt", "chosen", "rejected"}))
    # KTO reads in the given order, and takes a neighbour's answer for one that does not belong to the prompt.
    return sorted(rows, key=lambda row: digest([seed, row])) if method == "kto" else rows


SIDES = ("chosen", "rejected")


def make(phase: Phase, callbacks: Sequence[Any]) -> Trainer:
    """The trainer of a phase, ready to train.

    Raises:
        UserError: it should shard, and accelerate does not.
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
    """The trainer's arguments; making them is what starts the talk between the processes."""
    arguments = kind(**settings)
    if phase.params.sharding == "fsdp" and arguments.device.type == "cpu":
        # accelerate shards on any kind of device but CPUs, where it makes DDP of FSDP without a word. Nothing else
        # hangs on the kind: the device is chosen, and gloo is under way.
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
        "logging_nan_inf_filter": False,  # it would show the mean of earlier losses instead
        "include_num_input_tokens_seen": "non_padding",
        "save_steps": 1 / CHECKPOINTS,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "eval_strategy": "no",
        "eval_on_start": True,  # `evaluate` before `train` would keep DDP from ever sharing gradients
    }


def _seed(seed: int) -> int:
    """NumPy's generator, which the trainer seeds too, takes 32 bits."""
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
                # After a forward pass without gradients it would keep a form, on some CPUs, that passes none back.
                layer.support_avx512bf16_for_cpu = False
    # The SFT's adapter is trained on; TRL keeps a frozen copy of it for the reference.
    return load.adapter(base, phase.start, trainable=True) if phase.start else base


def _lora(params: Train) -> LoraConfig:
    return LoraConfig(r=params.lora_r, lora_alpha=params.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
