"""Record types that flow between the stages, and their files: JSON lines, written whole or not at all."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ccai.base.hashing import digest

FinishReason = Literal["stop", "length"]
"""`stop`: the model ended by itself. `length`: the token limit cut it."""

HARMLESS = frozenset({"benign", "everyday", "none"})
"""Values of `hazard` that name no hazard: nobody is hurt by answering these prompts."""

UNSPECIFIED = "unspecified"
"""A label that the source does not give: neither hazardous nor harmless."""


def hazardous(hazard: str) -> bool:
    """Whether a value of `hazard` names one."""
    return hazard not in HARMLESS | {UNSPECIFIED}


Tokens = Annotated[int, Field(ge=0, lt=2**31)]
"""A count of tokens; more than that no context holds."""


class Record(BaseModel):
    """A line of a JSONL file. Unknown keys are errors: a renamed field must not vanish silently.

    `KEY` names the fields that tell a file's records apart; empty: they may be equal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    KEY: ClassVar[tuple[str, ...]] = ()


class Message(Record):
    """One turn of a conversation, as chat templates and TRL want it."""

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
    """What a model wrote, and what is needed to trace and repeat it.

    `conversation` is the sha256 of the messages it answered, `model` the logical name (never a path),
    `unverified_weights` says that only the name vouches for them (an endpoint's can't be hashed), `seed` is the
    record's own sampling seed, tokens are counts of the model's own tokenizer.
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
        """What records made from this one name as their `parent`: a hash of what was asked, the seed and the text."""
        return digest([self.conversation, self.seed, self.text])


class Response(Completion):
    """First answer to a prompt."""

    KEY = ("prompt_id",)

    prompt_id: str


class Critique(Completion):
    """The model's criticism of an answer, by one principle of the constitution.

    `parent` is the `sha256` of what it criticises: in round 1 the response, later the revision of the round before.
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
    """What a judge said of a pair by one principle; None where its verdict can't be read.

    `rejected_violation` and `chosen_violation` are probabilities in [0, 1] that the answer violates the principle,
    `addresses` that the revision addresses the prompt. `preference` is a tie where the two orders disagree.
    """

    rejected_violation: float | None
    chosen_violation: float | None
    preference: Literal["chosen", "rejected", "tie"] | None
    addresses: float | None


class Pair(Record):
    """A preference pair in TRL's conversational format, with where it came from.

    `rejected` is the first answer, `chosen` its last revision, `round` how many revisions that took (0: the pair came
    ready-made). `chosen_tokens` and `rejected_tokens` count the completion only. `verdict` is None where no judge was
    asked.
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
    """A pair that was not kept, and the gate that took it. Of duplicates several may be the same."""

    KEY = ()

    reason: str


class Demonstration(Record):
    """A conversation to imitate, as TRL's SFT trainer takes it; the last of `messages` is the assistant's.

    `pair_id` names the pair whose chosen answer it is; None: a helpful demonstration from the file `source`.
    """

    KEY = ("prompt_id", "pair_id")

    messages: list[Message] = Field(min_length=1)
    prompt_id: str
    source: str
    principle: str
    pair_id: str | None


class Answer(Completion):
    """An evaluated answer and its verdicts. `arm` says who answered: `base` or `tuned`.

    `harmful` is the judge's probability in [0, 1]; None when it was not asked or its verdict can't be read.
    """

    KEY = ("prompt_id",)

    prompt_id: str
    arm: str
    hazard: str
    refusal: str
    scores: dict[str, float]
    harmful: float | None


AnyRecord = TypeVar("AnyRecord", bound=Record)
