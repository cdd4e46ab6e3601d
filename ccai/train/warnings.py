"""Warnings about preference training, from the figures of its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ccai.base.errors import UserError
from ccai.train import checkpoints

FIRST_STEPS, FIRST_PAIRS = 3, 16
"""Reward accuracy 1.0 is a warning if all of that many first steps and pairs have it. Step 1 does not count: policy and
reference model are still equal, so no reward exceeds another."""

FALLING = -1.0
"""Mean of chosen log-probs against the reference, over the last quarter of the steps, that counts as falling (nats)."""

Step = Mapping[str, float]


def detect(steps: Sequence[Step], batch: int, beta: float) -> dict[str, str]:
    """Warnings about the steps so far, by name.

    Trivially separable pairs teach only the feature that separates them, which may be their length. Falling log-probs
    of chosen answers mean that probability goes to neither answer (Razin et al. 2024, arXiv 2410.08847).

    Args:
        steps: as the trainer logs them; those of SFT have no rewards and cause no warnings.
        batch: pairs per step.
    """
    rewarded = [step for step in steps if "rewards/chosen" in step]
    warnings = {}
    first = rewarded[1 : 1 + max(FIRST_STEPS, math.ceil(FIRST_PAIRS / batch))]
    enough = len(first) >= FIRST_STEPS and len(first) * batch >= FIRST_PAIRS
    if enough and all(step.get("rewards/accuracies", 0.0) == 1.0 for step in first):
        warnings["separable"] = (
            f"reward accuracy 1.0 in steps {first[0]['step']} to {first[-1]['step']}: something simple tells chosen "
            "from rejected (length, a phrase); look at the pairs (ccai show)"
        )
    last = rewarded[-max(1, len(rewarded) // 4) :]
    if len(rewarded) >= 2 * FIRST_STEPS:
        drift = sum(step["rewards/chosen"] for step in last) / len(last) / beta
        if drift < FALLING:
            warnings["falling"] = (
                f"log-probs of chosen answers are {-drift:.1f} nats below the reference's and fell; "
                "raise train.nll_coefficient or train.beta, or lower train.learning_rate"
            )
    return warnings


class Watch(TrainerCallback):  # type: ignore[misc]
    """Prints each warning once, as soon as it applies, and stops the training if loss or gradient are not finite."""

    def __init__(self, batch: int, beta: float, folder: Path) -> None:
        self._batch, self._beta, self._folder = batch, beta, folder
        self._warnings: set[str] = set()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        # In float16 the gradient scaler expects overflows and skips such steps itself.
        watched = ["loss"] if args.fp16 else ["loss", "grad_norm"]
        broken = next((name for name in watched if not math.isfinite(logs[name])), None)
        if broken:
            good = checkpoints.last(self._folder)
            checkpoint = f"kept {good.name} in {good.parent}" if good else "there was no checkpoint yet"
            raise UserError(
                f"train: {broken} is {logs[broken]} at step {state.global_step}; {checkpoint}; "
                "lower train.learning_rate"
            )
        steps = [row for row in state.log_history if "loss" in row]
        for name, line in detect(steps, self._batch, self._beta).items():
            if name not in self._warnings and state.is_world_process_zero:
                print(f"train: warning: {line}", flush=True)
            self._warnings.add(name)
