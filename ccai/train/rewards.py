"""Implicit rewards and divergence of a trained model against its reference model, on validation pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ccai.base.errors import UserError
from ccai.base.records import Message, Pair
from ccai.models import load
from ccai.models.model import Model
from ccai.models.placement import Placement


class Moved(NamedTuple):
    """Change of one answer against the reference model.

    `gain` is the gain in log-probability (nats, summed over its tokens), `divergence` the KL divergence (nats, summed
    over its positions), and `tokens` their number.
    """

    gain: float
    divergence: float
    tokens: int


def measure(
    model: Model, placement: Placement, trained: Path, reference: Path | None, pairs: Sequence[Pair], beta: float
) -> dict[str, Any]:
    """Rewards and divergence of a trained model on validation pairs, over all of them and by principle.

    A reward is beta * (log p - log p of the reference), as in DPO (arXiv 2305.18290, section 4), for every method.
    `kl` is KL(trained || reference) of the next token, exact over the vocabulary, in nats per token: the
    Rao-Blackwellized estimator of Amini et al. 2025 (arXiv 2504.10637), but over the positions of the pairs' answers
    instead of answers sampled from the trained model.

    Args:
        trained: folder of an adapter, or of all weights.
        reference: the same for the model that DPO started from; None: the model itself.

    Raises:
        UserError: a number is not finite.
    """
    tokenizer = load.tokenizer(model.folder)
    both = _Both(model, placement, trained, reference)
    moved: dict[str, list[tuple[Moved, Moved]]] = {pair.principle: [] for pair in pairs}
    for pair in pairs:
        chosen = _moved(both, *_tokens(tokenizer, pair.prompt, pair.chosen))
        rejected = _moved(both, *_tokens(tokenizer, pair.prompt, pair.rejected))
        moved[pair.principle].append((chosen, rejected))
    every = [sides for principle in moved.values() for sides in principle]
    answers = [answer for sides in every for answer in sides]
    values = {
        **_rewards(every, beta),
        "chosen_logp_drift": sum(chosen.gain for chosen, _ in every) / len(every),
        "rejected_logp_drift": sum(rejected.gain for _, rejected in every) / len(every),
        "kl": sum(answer.divergence for answer in answers) / max(1, sum(answer.tokens for answer in answers)),
    }
    for name, value in values.items():
        if not math.isfinite(value):
            raise UserError(f"train: {name} on validation is {value}; lower train.learning_rate or train.beta")
    each = {name: {"pairs": len(moved[name]), **_rewards(moved[name], beta)} for name in sorted(moved)}
    return {**values, "by_principle": each}


def _rewards(pairs: Sequence[tuple[Moved, Moved]], beta: float) -> dict[str, float]:
    return {
        "reward_accuracy": sum(chosen.gain > rejected.gain for chosen, rejected in pairs) / len(pairs),
        "reward_margin": beta * sum(chosen.gain - rejected.gain for chosen, rejected in pairs) / len(pairs),
    }


class _Both:
    """The trained model and its reference model. Two adapters share the weights of their base."""

    def __init__(self, model: Model, placement: Placement, trained: Path, reference: Path | None) -> None:
        if (trained / "adapter_config.json").exists():
            self._policy = self._reference = load.adapter(load.weights(model, placement), trained).eval()
            self._adapter = "reference" if reference else None
            if reference:
                load.adapter(self._policy, reference, name="reference")
        else:
            self._policy = load.weights(replace(model, folder=trained), placement).eval()
            self._reference = load.weights(replace(model, folder=reference or model.folder), placement).eval()

    def log_probs(self, ids: torch.Tensor, answer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities over the vocabulary for the last `answer` tokens, (answer, vocabulary), of both models."""
        row = ids[None].to(self._policy.device)
        trained = self._policy(row, logits_to_keep=answer + 1).logits[0, :-1].float().log_softmax(-1)
        with self._as_reference():
            reference = self._reference(row, logits_to_keep=answer + 1).logits[0, :-1].float().log_softmax(-1)
        return trained, reference

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        if self._policy is not self._reference:
            yield
        elif self._adapter is None:
            with self._policy.disable_adapter():
                yield
        else:
            self._policy.set_adapter(self._adapter)
            yield
            self._policy.set_adapter("default")


@torch.inference_mode()
def _moved(both: _Both, ids: torch.Tensor, answer: int) -> Moved:
    trained, reference = both.log_probs(ids, answer)
    difference = trained - reference
    gain = difference.gather(1, ids[len(ids) - answer :, None].to(difference.device)).sum()
    return Moved(gain.item(), (trained.exp() * difference).sum().item(), answer)


def _tokens(tokenizer: Any, prompt: Sequence[Message], answer: Sequence[Message]) -> tuple[torch.Tensor, int]:
    """A conversation's tokens, and how many of them belong to the answer.

    As in TRL these are the tokens after the point where the prompt alone ends or differs.
    """
    request = [message.model_dump() for message in prompt]
    whole = [*request, *(message.model_dump() for message in answer)]
    ids = tokenizer.apply_chat_template(whole, return_dict=True)["input_ids"]
    before = tokenizer.apply_chat_template(request, add_generation_prompt=True, return_dict=True)["input_ids"]
    return torch.tensor(ids), len(ids) - sum(
        1 for _ in takewhile(lambda two: two[0] == two[1], zip(before, ids, strict=False))
    )
