"""Over-refusal: safe prompts that sound unsafe, and unsafe prompts in like words, after XSTest (arXiv 2308.01263)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import Any

from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.params import Params, PromptSet
from ccai.base.records import UNSPECIFIED, Completion
from ccai.constitution import dialogue
from ccai.evaluate.arms import Arm
from ccai.evaluate.comparison import Comparison, Items
from ccai.evaluate.suites.suite import Answers, Suite
from ccai.generate.completions import Job
from ccai.prompts import sources
from ccai.prompts.sources import SourcePrompt
from ccai.rules import scores
from ccai.rules.outcomes import refused

UNSAFE = "contrast_"
"""Prefix of the type of an unsafe prompt, in XSTest and here."""


class ContrastAnswer(Completion):
    """An answer to a contrast prompt. `asked` is the prompt, `type` its type, `safe` whether it should be answered."""

    prompt_id: str
    arm: str
    type: str
    safe: bool
    asked: str
    refusal: str


class OverRefusal(Suite[ContrastAnswer]):
    """Contrast prompts of the sets in params."""

    name = "over_refusal"
    record = ContrastAnswer

    def __init__(self, settings: Params) -> None:
        """Choose `per_type` prompts of each type by hash, independently of the files' order.

        Raises:
            UserError: a set is missing, malformed or not the pinned one, or a prompt has no type.
        """
        options = settings.eval.over_refusal
        self._system, self._max_new_tokens = settings.responses.system, options.max_new_tokens
        of_type: dict[str, dict[str, SourcePrompt]] = defaultdict(dict)
        for name in options.sets:
            # A SourcePrompt has no field `type`; the label is stored in `hazard`.
            for row in sources.load(PromptSet(source=name, columns={"hazard": "type"})):
                if row.hazard == UNSPECIFIED:
                    raise UserError(f"{name}:{row.place}: type: empty; say which type the prompt is of")
                of_type[row.hazard][digest([row.source, row.text])[:16]] = row
        self.prompts = {
            key: row
            for _, rows in sorted(of_type.items())
            for key, row in sorted(rows.items())[: options.per_type or None]
        }

    def count(self, measure: str) -> int | None:
        """Safe and unsafe prompts."""
        unsafe = sum(row.hazard.startswith(UNSAFE) for row in self.prompts.values())
        return {"refused_safe": len(self.prompts) - unsafe, "complied_unsafe": unsafe}.get(measure)

    def jobs(self, arm: Arm) -> list[Job]:
        """Type by type, under the system message of `responses`, like the held-out prompts."""
        system = arm.system(self._system)
        return [
            Job(("contrast", key), dialogue.to_answer(system, row.text), self._max_new_tokens)
            for key, row in self.prompts.items()
        ]

    def ask(self, arm: Arm) -> list[ContrastAnswer]:
        """One answer to each prompt."""
        done = arm.complete(self.name, self.jobs(arm))
        return [
            ContrastAnswer(
                **fields,
                prompt_id=key,
                arm=arm.name,
                type=row.hazard,
                safe=not row.hazard.startswith(UNSAFE),
                asked=row.text,
                refusal=scores.refusal(row.text, fields["text"]),
            )
            for (key, row), fields in zip(self.prompts.items(), done, strict=True)
        ]

    @classmethod
    def key(cls, record: ContrastAnswer) -> Hashable:
        return record.prompt_id

    @classmethod
    def measure(cls, answers: Answers[ContrastAnswer], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """Refusals of safe prompts, in full or in part; compliance with unsafe ones; refusals by type."""

        def refuses(reply: ContrastAnswer) -> bool:
            return refused(reply.refusal)

        items, apart = Items.of(answers, lambda reply: reply.prompt_id), comparison.apart()
        safe, unsafe = items.only(lambda reply: reply.safe), items.only(lambda reply: not reply.safe)
        by_type = sorted(items.by(lambda reply: reply.type).items())
        return {
            "refused_safe": safe.measure(comparison, refuses, yes_no=True),
            "complied_unsafe": unsafe.measure(comparison, lambda reply: not refuses(reply), yes_no=True),
            "by_type": {"refused": {kind: of.measure(apart, refuses, yes_no=True) for kind, of in by_type}},
        }
