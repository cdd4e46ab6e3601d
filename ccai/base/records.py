"""Record types of the files that stages pass on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ccai.base.hashing import digest

FinishReason = Literal["stop", "length"]
"""`stop`: the model ended the text itself. `length`: the token limit cut it off."""

HARMLESS = frozenset({"benign", "everyday", "none"})
"""Values of `hazard` that mean no hazard: answering these prompts harms nobody."""

UNSPECIFIED = "unspecified"
"""Label where the source gives none: neither hazardous nor harmless."""


def hazardous(hazard: str) -> bool:
    """Whether a value of `hazard` names a hazard."""
    return hazard not in HARMLESS | {UNSPECIFIED}


Tokens = Annotated[int, Field(ge=0, lt=2**31)]
"""A count of tokens, below the limit of any context."""


class Record(BaseModel):
    """A line of a JSONL file. Unknown keys are errors, so that a renamed field cannot vanish silently.

    `KEY` names the fields that identify a record in its file; empty: records may repeat.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    KEY: ClassVar[tuple[str, ...]] = ()


class Message(Record):
    """One turn of a conversation, in the format of chat templates and TRL."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(Record):
    """One user prompt. `prompt_id` is a hash of its text and source, never a row number."""

    KEY = ("prompt_id",)

    prompt_id: str
    text: str
    source: str
    source_id: str
    hazard: str
    persona: str
    principle: str
    split: Literal["train", "eval"]


class Completion(Record):
    """A completion with what is needed to trace and repeat it.

    `conversation` is the sha256 of the messages it answers, `model` the logical name (never a path). With
    `unverified_weights` only the name identifies the weights (an endpoint's cannot be hashed). `seed` is the record's
    own sampling seed. Token counts are those of the model's own tokenizer.
    """

    text: str
    finish_reason: FinishReason
    prompt_tokens: Tokens
    completion_tokens: Tokens
    conversation: str
    model: str
    unverified_weights: bool
    seed: int

    @property
    def sha256(self) -> str:
        """The `parent` of records made from this one: a hash of conversation, seed and text."""
        return digest([self.conversation, self.seed, self.text])


class Response(Completion):
    """First answer to a prompt."""

    KEY = ("prompt_id",)

    prompt_id: str


class Critique(Completion):
    """The model's critique of an answer by one principle of the constitution.

    `parent` is the `sha256` of the critiqued answer: in round 1 the response, later the revision of the previous round.
    """

    KEY = ("prompt_id", "principle", "round")

    prompt_id: str
    principle: str
    round: int
    principle_sha256: str
    parent: str


class Revision(Completion):
    """The answer rewritten after the critique. `parent` is the critique's `sha256`."""

    KEY = ("prompt_id", "principle", "round")

    prompt_id: str
    principle: str
    round: int
    principle_sha256: str
    parent: str


class Verdict(Record):
    """A judge's verdict on a pair by one principle; None where it cannot be read.

    `rejected_violation` and `chosen_violation` are probabilities in [0, 1] that the answer violates the principle;
    `addresses` is the probability that the revision addresses the prompt. `preference` is a tie where the two orders
    disagree.
    """

    rejected_violation: float | None
    chosen_violation: float | None
    preference: Literal["chosen", "rejected", "tie"] | None
    addresses: float | None


class Pair(Record):
    """A preference pair in TRL's conversational format, with its origin.

    `rejected` is the first answer, `chosen` its last revision, `round` the number of revisions (0: a ready-made pair).
    `chosen_tokens` and `rejected_tokens` count the completion only. `verdict` is None where no judge was used.
    """

    KEY: ClassVar[tuple[str, ...]] = ("pair_id",)

    pair_id: str
    prompt: list[Message]
    chosen: list[Message] = Field(min_length=1)
    rejected: list[Message] = Field(min_length=1)
    prompt_id: str
    principle: str
    hazard: str
    round: int
    chosen_tokens: Tokens
    rejected_tokens: Tokens
    chosen_model: str
    rejected_model: str
    verdict: Verdict | None = None


class DroppedPair(Pair):
    """A pair that a gate removed; `reason` names the gate. Duplicates may repeat."""

    KEY = ()

    reason: str


class Demonstration(Record):
    """A conversation to imitate, in the format of TRL's SFT trainer; the last message is the assistant's.

    `pair_id` names the pair whose chosen answer it is; None: a helpful demonstration from the file `source`.
    """

    KEY = ("prompt_id", "pair_id")

    messages: list[Message] = Field(min_length=1)
    prompt_id: str
    source: str
    principle: str
    pair_id: str | None


class Answer(Completion):
    """An evaluated answer and its verdicts. `arm` is the model that answered: `base` or `tuned`.

    `harmful` is the judge's probability in [0, 1]; None without a judge, or where the verdict cannot be read.
    """

    KEY = ("prompt_id",)

    prompt_id: str
    arm: str
    hazard: str
    refusal: str
    scores: dict[str, float]
    harmful: float | None


AnyRecord = TypeVar("AnyRecord", bound=Record)
