"""DPO with LoRA as TRL's documentation shows it: what somebody would write who has the pairs and no project.

`python -m bench.training` runs it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from bench import machine


def main() -> None:
    """Train, evaluate, save; write seconds and peak memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--save", required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    settings = json.loads(options.settings.read_text())
    files = {"train": f"{options.data}/train.jsonl", "validation": f"{options.data}/validation.jsonl"}
    pairs = load_dataset("json", data_files=files, cache_dir=f"{options.save}/datasets")
    pairs = pairs.select_columns(["prompt", "chosen", "rejected"])
    cuda = torch.cuda.is_available()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16 if cuda else torch.float32),
        args=DPOConfig(
            output_dir=options.save,
            learning_rate=settings["learning_rate"],
            lr_scheduler_type=settings["scheduler"],
            warmup_steps=settings["warmup_ratio"],
            beta=settings["beta"],
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["per_device"],
            per_device_eval_batch_size=settings["per_device"],
            gradient_accumulation_steps=settings["batch_size"] // settings["per_device"],
            max_length=settings["max_length"],
            gradient_checkpointing=cuda,
            bf16=cuda,
            dataloader_pin_memory=cuda,
            seed=settings["seed"],
            data_seed=settings["seed"],
            logging_steps=1,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=pairs["train"],
        eval_dataset=pairs["validation"],
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=settings["lora_r"],
            lora_alpha=settings["lora_alpha"],
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    started, before = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu = time.perf_counter() - started, time.process_time() - before
    evaluated = trainer.evaluate()
    trainer.save_model(options.save)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    lengths = [
        len(tokenizer.apply_chat_template([*pair["prompt"], *pair[side]], return_dict=True)["input_ids"])
        for pair in pairs["train"]
        for side in ("chosen", "rejected")
    ]
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "loop_seconds": seconds,
        "peak_memory": machine.peak_memory(),
        "steps": trainer.state.global_step,
        "losses": losses,
        "validation_loss": evaluated["eval_loss"],
        "tokens": sum(lengths) * settings["epochs"],
    }
    options.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
