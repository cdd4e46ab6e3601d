"""params.yaml, typed: one section per stage; unknown keys, wrong types and values out of range are errors."""

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
from ccai.base.errors import UserError, run
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
    """Which model plays each role: a name from conf/models.yaml, `hub-id@commit`, or a folder."""

    answer: str
    revise: str
    train: str
    judge: str


class Hardware(Section):
    """What runs a model, and where and how its weights are held; `auto` chooses, prints the reason and records it.

    Models behind an endpoint (conf/models.yaml) are asked over HTTP, whatever stands here.
    """

    engine: Literal["transformers", "vllm"]
    device: Literal["auto", "cuda", "mps", "cpu"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    quantization: Literal["auto", "none", "8bit", "4bit"]


class Generation(Section):
    """How tokens are drawn, in every stage.

    Attributes:
        temperature: 0 is greedy.
        min_p: tokens below this share of the likeliest one's probability are never drawn (arXiv 2407.01082); 0: off.
        repetition_penalty: divides the logits of tokens already written in the same completion (arXiv 1909.05858,
            section 4.1); 1 is off. The prompt's tokens are left alone: among them is the one that ends a turn.
    """

    temperature: float = Field(ge=0, le=2)
    min_p: float = Field(ge=0, le=1)
    repetition_penalty: float = Field(ge=1, le=2)


class PromptSet(Section):
    """A set of prompts and how it is read. In params.yaml its name alone will do.

    Attributes:
        source: a name from data/sources or a file; see ccai/prompts/sources.py.
        columns: what the file calls its columns, where that is not what we call them.
        first_turn: the text is a transcript ("Human: … Assistant: …"); its first human turn is the prompt.
    """

    source: Inside
    columns: dict[Column, str] = {}
    first_turn: bool = False

    def __str__(self) -> str:
        return self.source


class WeightedSet(PromptSet):
    """`weight` against the other sets' weights is its share of a sample, as long as it has prompts left."""

    weight: Positive = 1


class Only(Section):
    """Values a prompt's labels may have, upper or lower case; none: any value."""

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
    """Which prompts, how many, and how they are split. 0 means all there are.

    Attributes:
        near_duplicate: cosine of character 5-grams from which two prompts are kept on one side.
        evaluation_sets: further prompts that a model is evaluated on and must not be trained on.
        contamination: cosine of character 5-grams from which a training prompt is too near an evaluation prompt.
        contaminated: what happens then: `fail`, or `drop` such training prompts.
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
    """How a question is put to a model; eval asks the same way. `system` may be empty."""

    system: str
    max_new_tokens: Tokens


class Critiques(Section):
    """The constitution, how much of it the critic is shown, and how often each answer is criticised and revised.

    Attributes:
        principles: `all`: each principle has its own `rounds` with every answer. `random`: one principle is drawn for
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
    """What a revision must be to become a `chosen` answer.

    Attributes:
        min_length_ratio: least words of a revision, over those of the answer; `max_length_ratio`: most.
        balance: what all have equally many pairs of.
        sources: ready-made pairs, as JSONL files or names of pinned sources; they pass the same gates.
        demonstrations: helpful answers for the SFT data, as a JSONL file or name.
        demonstrations_share: theirs among all conversations of the SFT data.
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
    """What is trained on the pairs, and how.

    Attributes:
        method: `sft+dpo` is SFT on one half of the prompts, then DPO on the other from the SFT model.
        adapter: `none` trains all weights, `qlora` adds an adapter to weights held in 4 bit (arXiv 2305.14314).
        nll_coefficient: weight of the chosen answer's negative log-likelihood in the loss (arXiv 2404.19733).
        batch_size: pairs in an optimizer step; `per_device` of them at once on each device.
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
        """Backward passes before an optimizer step."""
        return self.batch_size // (self.per_device * self.processes)

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        at_once = self.per_device * self.processes
        if self.batch_size % at_once:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of {at_once}, which is per_device x processes"
            )
        if self.sharding == "fsdp" and self.processes == 1:
            raise ValueError("sharding: fsdp needs more than one of processes")
        if self.nll_coefficient and self.method not in ("dpo", "dpo-norm", "ipo", "apo-zero", "apo-down", "sft+dpo"):
            raise ValueError(f"nll_coefficient has no place in method: {self.method}; set it to 0")
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
        UserError: names the first wrong key as `section.key` and says what is wrong with it.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "(whole file)"
        if first["type"] == "extra_forbidden":
            raise UserError(f"{where}: {key}: no such parameter; remove it or correct its name") from None
        given = "" if first["type"] in ("missing", "value_error") else f", not {SHOWN.repr(first['input'])}"
        message = first["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        raise UserError(f"{where}: {key}: {message}{given}; correct it") from None


def load(path: Path = PARAMS) -> Params:
    """Params from a file, the whole of it checked: a typo in `train` stops the first stage, not the sixth.

    Raises:
        UserError: missing file, not YAML, or a wrong key.
    """
    try:
        return parse(yaml_io.read(path), str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run this from the project's top folder") from None


def main() -> None:
    """`ccai check`: check params.yaml before DVC deletes a stage's outs to run it."""
    settings = load()
    print(f"{PARAMS}: valid ({settings.scale})")


if __name__ == "__main__":
    run(main, __doc__)
