"""inspect_ai's interface of a model, over an engine and the journal: calls are queued and answered in batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from inspect_ai._util.registry import RegistryInfo, set_registry_info
from inspect_ai.log._samples import sample_active
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)

from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.params import Generation
from ccai.base.records import Message
from ccai.constitution.dialogue import Turns
from ccai.engines.base import Engine
from ccai.generate import completions
from ccai.generate.completions import Job

QUIET = 0.1
"""Seconds without a further call, after which the queued ones are answered. The samples of a task call within
milliseconds of each other, those of another task a moment later on a busy machine.
"""

CONNECTIONS = 100_000
"""Calls that inspect_ai has open at once; our engines choose the size of a batch themselves."""

PLAIN = {
    "top_p": 1,
    "top_k": None,
    "num_choices": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": None,
    "logprobs": False,
    "response_schema": None,
}
"""Settings that our engines lack, with the value besides none that changes nothing."""


class Bridge(ModelAPI):  # type: ignore[misc]  # inspect_ai is optional
    """A model of ours for inspect_ai.

    Attributes:
        engine: answers; None: nobody may ask yet.
        refusal: why nobody may, while `engine` is None. `label` names the task then, outside a sample of it.
        error: the first one; inspect_ai only notes a sample's errors, so whoever runs it has to raise this one.
        costs: of each batch, as `completions.complete` gives them.
    """

    def __init__(
        self,
        stage: str,
        sampling: Generation,
        max_new_tokens: int,
        seed: int,
        system: Callable[[str], str] = lambda message: message,
    ) -> None:
        """`system` gives the system message, of those that a task sets, which may be empty."""
        super().__init__(model_name=stage.replace(" ", "-"))
        set_registry_info(self, RegistryInfo(type="modelapi", name="ccai/ccai"))  # as inspect_ai's decorator does
        self.engine: Engine | None = None
        self.refusal = self.label = ""
        self.error: Exception | None = None
        self.costs: list[dict[str, Any]] = []
        self._stage, self._sampling, self._max_new_tokens, self._seed = stage, sampling, max_new_tokens, seed
        self._system = system
        self._asked: Counter[tuple[str, ...]] = Counter()
        self._queue: list[tuple[Job, Generation, asyncio.Future[dict[str, Any]]]] = []
        self._alarm: asyncio.TimerHandle | None = None

    async def generate(
        self, input: list[ChatMessage], tools: Sequence[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """One completion, after those called at about the same time have been queued as well."""
        if self.error:
            raise self.error
        try:
            if self.engine is None:
                raise UserError(self.refusal)
            job, sampling = self._job(input, config), self._settings(tools, config)
        except UserError as error:
            sample = sample_active()
            self.error = self.error or UserError(
                f"eval.inspect.tasks: {sample.task if sample else self.label}: {error}"
            )
            raise self.error from None
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._queue.append((job, sampling, answered))
        if self._alarm:
            self._alarm.cancel()
        self._alarm = loop.call_later(QUIET, self._answer, self.engine)
        return self._output(await answered, config)

    @property
    def model(self) -> Model:
        """As inspect_ai's functions take it. Its own limit of open calls, which adapts, would cut batches short."""
        return Model(self, GenerateConfig(max_connections=CONNECTIONS, adaptive_connections=False))

    def max_connections(self) -> int:
        return CONNECTIONS

    def collapse_user_messages(self) -> bool:
        return True

    def collapse_assistant_messages(self) -> bool:
        return True

    async def count_text_tokens(self, text: str) -> int:
        """An upper bound, where inspect_ai's own would fetch a tokenizer."""
        return len(text.encode())

    def _answer(self, engine: Engine) -> None:
        """Complete what is queued. Nothing else runs meanwhile: all samples wait for this.

        An engine behind an endpoint runs an event loop of its own, which it could not if it saw this one.
        """
        queue, self._queue = self._queue, []
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        try:
            for sampling in dict.fromkeys(sampling for _, sampling, _ in queue):
                alike = [(job, answered) for job, other, answered in queue if other == sampling]
                done = completions.complete(self._stage, engine, [job for job, _ in alike], sampling, self._seed)
                self.costs.append(done.runtime)
                for (_, answered), completion in zip(alike, done.completions, strict=True):
                    answered.set_result(completion)
        except Exception as error:  # raised where inspect_ai has ended; here it would end in the event loop's log
            self.error = self.error or error
            for _, _, answered in queue:
                if not answered.done():
                    answered.set_exception(error)
        finally:
            asyncio._set_running_loop(loop)

    def _job(self, input: Sequence[ChatMessage], config: GenerateConfig) -> Job:
        """The task's conversation with this model's system message. The task's own is kept, as part of it."""
        said = [(message.role, _text(message)) for message in input]
        if not said or said[-1][0] != "user" or "tool" in {role for role, _ in said}:
            raise UserError("asks for more than a reply to a user (tools, or a reply begun for the model); take it out")
        system = self._system("\n\n".join(text for role, text in said if role == "system"))
        turns = [Message(role=role, content=text) for role, text in said if role != "system"]
        if system:
            turns = [Message(role="system", content=system), *turns]
        limit = min(config.max_tokens or self._max_new_tokens, self._max_new_tokens)
        return Job(self._key(said), Turns(tuple(turns), int(bool(system))), limit)

    def _key(self, said: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """Of the task's sample and the turn, the same for every arm; where no sample is being asked, of the texts."""
        sample = sample_active()
        if sample is None:
            return ("inspect", digest(said))
        turn = sum(role == "assistant" for role, _ in said)
        key = ("inspect", sample.task, str(sample.sample.id), str(sample.epoch), str(turn))
        self._asked[key] += 1
        return (*key, str(self._asked[key]))

    def _settings(self, tools: Sequence[Any], config: GenerateConfig) -> Generation:
        """How to sample: as the task says, plainly; where it does not say, as the run does."""
        if tools:
            raise UserError("is an agent's task: it gives the model tools; take it out")
        for name, nothing in PLAIN.items():
            if getattr(config, name, None) not in (None, nothing):
                raise UserError(f"asks for {name}, which our engines do not have; take it out")
        if config.temperature is None:
            return self._sampling
        return Generation(temperature=config.temperature, min_p=0.0, repetition_penalty=1.0)

    def _output(self, completion: dict[str, Any], config: GenerateConfig) -> ModelOutput:
        text, stopped = completion["text"], completion["finish_reason"] == "stop"
        for end in config.stop_seqs or ():
            if end in text:
                text, stopped = text.partition(end)[0], True
        message = ChatMessageAssistant(content=text, model=self.model_name, source="generate")
        tokens = completion["prompt_tokens"], completion["completion_tokens"]
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason="stop" if stopped else "max_tokens")],
            usage=ModelUsage(input_tokens=tokens[0], output_tokens=tokens[1], total_tokens=sum(tokens)),
        )


def _text(message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    if {part.type for part in message.content} - {"text", "reasoning"}:
        raise UserError("shows the model more than text; take it out")
    return str(message.text)
