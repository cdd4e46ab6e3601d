"""params.yaml, typed: one section per stage. Unknown keys, wrong types and values out of range are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from ccai.base import yaml_io
from ccai.base.errors import UserError, first
from ccai.base.eval_params import Eval
from ccai.base.param_types import (
    SHOWN,
    Column,
    Count,
    Inside,
    Name,
    PathInside,
    Positive,
    Section,
    Several,
    Share,
    Tokens,
)

PARAMS = Path("params.yaml")


class Models(Section):
    """The model for each role: a name from conf/models.yaml, `hub-id@commit`, or a folder."""

    answer: str
    revise: str
    train: str
    judge: str


class Hardware(Section):
    """The engine, the device, and how weights are held. `auto` chooses, prints the reason and records it.

    Models behind an endpoint (conf/models.yaml) are called over HTTP, whatever these say.
    """

    engine: Literal["transformers", "vllm"]
    device: Literal["auto", "cuda", "mps", "cpu"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    quantization: Literal["auto", "none", "8bit", "4bit"]


class Generation(Section):
    """How tokens are sampled, in every stage.

    Attributes:
        temperature: 0 is greedy.
        min_p: tokens below this share of the likeliest token's probability are never drawn (arXiv 2407.01082); 0: off.
        repetition_penalty: divides the logits of tokens already in the same completion (arXiv 1909.05858, section 4.1);
            1: off. The prompt's tokens are exempt, because the token that ends a turn is among them.
    """

    temperature: float = Field(ge=0, le=2)
    min_p: float = Field(ge=0, le=1)
    repetition_penalty: float = Field(ge=1, le=2)


class PromptSet(Section):
    """A set of prompts and how to read it. In params.yaml the name alone is enough.

    Attributes:
        source: a name from data/sources or a file; see ccai/prompts/sources.py.
        columns: the file's names for our columns, where they differ.
        first_turn: the text is a transcript ("Human: … Assistant: …"); its first human turn is the prompt.
    """

    source: Inside
    columns: dict[Column, str] = {}
    first_turn: bool = False

    def __str__(self) -> str:
        return self.source


class WeightedSet(PromptSet):
    """`weight` over the sum of all sets' weights is this set's share of a sample, while it has prompts left."""

    weight: Positive = 1


class Only(Section):
    """Label values that a prompt may have, in upper or lower case; an empty list allows any value."""

    hazard: list[str] = []
    persona: list[str] = []
    principle: list[str] = []


def _named(value: Any) -> Any:
    return {"source": value} if isinstance(value, str) else value


def _as_written(entry: PromptSet) -> Any:
    values = entry.model_dump(exclude_defaults=True)
    return entry.source if values == {"source": entry.source} else values


NameOrMapping = (BeforeValidator(_named), PlainSerializer(_as_written))


class Prompts(Section):
    """Which prompts, how many, and how they are split. A count of 0 means all.

    Attributes:
        near_duplicate: cosine of character 5-grams from which two prompts go to the same side of the split.
        evaluation_sets: prompts to evaluate on besides the suites' sets; none of all these may be trained on.
        contamination: cosine of character 5-grams from which a training prompt is too close to an evaluation prompt;
            one that contains an evaluation prompt always is.
        contaminated: what to do then: `fail`, or `drop` such training prompts.
    """

    sources: list[Annotated[WeightedSet, *NameOrMapping]] = Field(min_length=1)
    exclude_hazards: list[str]
    only: Only
    train: Count
    eval: Count
    eval_share: Share
    near_duplicate: float = Field(gt=0, le=1)
    evaluation_sets: list[Annotated[PromptSet, *NameOrMapping]]
    contamination: float = Field(gt=0, le=1)
    contaminated: Literal["fail", "drop"]


class Responses(Section):
    """How a prompt is given to a model, in this stage and in eval. `system` may be empty."""

    system: str
    max_new_tokens: Tokens


class Critiques(Section):
    """The constitution, how much of it the critic sees, and how often each answer is critiqued and revised.

    Attributes:
        examples: worked examples per principle that the critic sees.
        rounds: critiques and revisions of each answer, one after another.
        principles: `all`: every principle has its own `rounds` with every answer. `random`: one principle is drawn for
            each prompt and round (Bai et al. 2022, arXiv 2212.08073, section 3.1).
    """

    constitution: PathInside
    format: Name
    examples: Count
    rounds: int = Field(ge=1, le=16)
    principles: Literal["all", "random"]
    max_new_tokens: Tokens


class Revisions(Section):
    """Length limit of revisions, in tokens."""

    max_new_tokens: Tokens


class Pairs(Section):
    """What a revision must satisfy to become a `chosen` answer.

    Attributes:
        min_length_ratio, max_length_ratio: least and most words of a revision, over the words of the first answer.
        balance: the label of which all values get equally many pairs.
        sources: ready-made pairs, as JSONL files or names of pinned sources; they pass the same gates.
        demonstrations: helpful answers for the SFT data, as a JSONL file or name.
        demonstrations_share: their share of all conversations in the SFT data.
    """

    validation_share: Share
    min_words: Count
    max_similarity: float = Field(gt=0, le=1)
    min_length_ratio: float = Field(ge=0, le=1)
    max_length_ratio: float = Field(ge=1, le=1e6)
    judge: bool
    require_violation: bool
    balance: Literal["none", "principle", "hazard"]
    sources: list[Inside]
    demonstrations: Inside | None
    demonstrations_share: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _complete(self) -> Pairs:
        if self.require_violation and not self.judge:
            raise ValueError("require_violation: true needs judge: true")
        if self.demonstrations_share and self.demonstrations is None:
            raise ValueError("demonstrations_share above 0 needs a file in demonstrations")
        return self


class Sft(Section):
    """Supervised fine-tuning on the demonstrations, alone (`sft`) or before DPO (`sft+dpo`)."""

    learning_rate: float = Field(gt=0, lt=1)
    epochs: float = Field(gt=0, le=1000)


class Train(Section):
    """The training method and its settings.

    Attributes:
        method: `sft+dpo` is SFT on one half of the prompts, then DPO on the other half from the SFT model.
        adapter: `none` trains all weights, `qlora` adds an adapter to weights held in 4 bit (arXiv 2305.14314).
        nll_coefficient: weight of the chosen answer's negative log-likelihood in the loss (arXiv 2404.19733).
        batch_size: pairs per optimizer step; `per_device` of them at a time on each device.
        sharding: `fsdp` spreads weights, gradients and optimizer over the processes, `none` copies them.
    """

    method: Literal["sft", "dpo", "dpo-norm", "ipo", "apo-zero", "apo-down", "kto", "sft+dpo"]
    adapter: Literal["lora", "qlora", "none"]
    learning_rate: float = Field(gt=0, lt=1)
    scheduler: Literal["linear", "cosine", "constant"]
    warmup_ratio: float = Field(ge=0, lt=1)
    beta: Positive
    nll_coefficient: float = Field(ge=0, le=1e6)
    epochs: float = Field(gt=0, le=1000)
    sft: Sft
    batch_size: Several
    per_device: Several
    max_length: Tokens
    lora_r: Several
    lora_alpha: Several
    gradient_checkpointing: Literal["auto", True, False]
    precompute_reference: Literal["auto", True, False]
    processes: int = Field(ge=1, le=1024)
    sharding: Literal["none", "fsdp"]

    @property
    def accumulation(self) -> int:
        """Backward passes per optimizer step."""
        return self.batch_size // (self.per_device * self.processes)

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        at_once = self.per_device * self.processes
        if self.batch_size % at_once:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of {at_once}, which is per_device x processes"
            )
        if self.sharding == "fsdp" and self.processes == 1:
            raise ValueError("sharding: fsdp needs processes above 1")
        if self.nll_coefficient and self.method not in ("dpo", "dpo-norm", "ipo", "apo-zero", "apo-down", "sft+dpo"):
            raise ValueError(f"nll_coefficient does not apply to method: {self.method}; set it to 0")
        return self


class Params(Section):
    """All of params.yaml."""

    scale: str
    seed: int = Field(ge=0, lt=2**63)
    models: Models
    hardware: Hardware
    generation: Generation
    prompts: Prompts
    responses: Responses
    critiques: Critiques
    revisions: Revisions
    pairs: Pairs
    train: Train
    eval: Eval


def parse(values: Any, where: str) -> Params:
    """Params from a mapping.

    Raises:
        UserError: names the first wrong key as `section.key` and what is wrong with it.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {first(error, '(whole file)', SHOWN.repr)}; correct it") from None


def load(path: Path = PARAMS) -> Params:
    """Params from a file, checked as a whole: a typo in `train` stops the first stage, not the sixth.

    Raises:
        UserError: missing file, not YAML, or a wrong key.
    """
    try:
        return parse(yaml_io.read(path), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this from the project's top folder") from None
