"""The vLLM engine, offline, for a CUDA device and thousands of completions. It has its own requirements-vllm.txt.

Scheduler, kernels and prefix cache are vLLM's; chat template and sampling settings mean the same as in the other
engines. The noise is vLLM's, so a seed gives another text than with `Transformers`.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch

from ccai.base.errors import UserError
from ccai.base.records import FinishReason, Message
from ccai.engines.base import Completed, Request, begun
from ccai.engines.chat_template import Template
from ccai.models import files, load
from ccai.models.model import Model
from ccai.models.placement import Placement

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # errors keep their type, and a kill leaves no process on the GPU
    "VLLM_USE_V2_MODEL_RUNNER": "1",  # the one that `penalty_processor` is written for
    "VLLM_NO_USAGE_STATS": "1",  # no usage reports
}
USE_OF_FREE_MEMORY = 0.9
"""Share of the GPU's free memory that vLLM plans with; the rest is for allocations outside its plan."""

PENALTY = "written_penalty"
"""Name of a request's repetition penalty in the arguments of `penalty_processor`."""

ENDS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}
"""Reasons for which a completion ends. vLLM's other reasons (abort, error …) yield no completion."""


class Vllm:
    """A model, and optionally a LoRA adapter, in this process on one GPU.

    Attributes:
        name: logical name for records; `revision` identifies the weights.
        identity: everything about the engine that can change a completion's text; part of each journal key.

    Raises:
        UserError: vLLM is not installed, or does not support the placement.
    """

    unverified_weights = False

    def __init__(self, model: Model, placement: Placement, adapter: Path | None = None) -> None:
        _check(placement, adapter)
        os.environ.update(ENVIRONMENT)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ModuleNotFoundError:
            raise UserError(
                "hardware.engine: vllm is not installed; pip install -r requirements-vllm.txt (needs CUDA), "
                "or set it to transformers"
            ) from None
        load.check(model.folder, getattr(torch, placement.dtype))
        self._config = {} if adapter is None else load.check_adapter(adapter, model)
        self.name = model.name if adapter is None else f"{model.name}+adapter"
        self.revision = model.revision
        self._template = Template(model)
        where = {"device": placement.device, "dtype": placement.dtype, "quantization": placement.quantization}
        self.runtime: dict[str, Any] = {**where, "placement": placement.reason}
        self.identity: dict[str, Any] = {
            "engine": f"vllm-{'.'.join(vllm.__version__.split('.')[:2])}",
            "weights": files.fingerprint(model.folder),
            "adapter": None if adapter is None else files.fingerprint(adapter),
            "template": self._template.text,
            **where,
        }
        self._model, self._placement, self._adapter = model, placement, adapter
        self._lora = None if adapter is None else LoRARequest("adapter", lora_int_id=1, lora_path=str(adapter))

    @cached_property
    def _engine(self) -> Any:
        """vLLM's engine, loaded on first use: never, if the journal has every completion.

        Raises:
            UserError: vLLM cannot load the model, or cannot use the adapter.
        """
        import vllm

        free, total = torch.cuda.mem_get_info()
        try:
            engine = vllm.LLM(
                model=str(self._model.folder),
                load_format="safetensors",
                trust_remote_code=False,
                dtype=self._placement.dtype,
                max_model_len=-1,  # the model's context, or as much of it as fits
                gpu_memory_utilization=USE_OF_FREE_MEMORY * free / total,
                enable_prefix_caching=True,
                logits_processors=[penalty_processor()],
                use_tqdm_on_load=False,
                **_lora_settings(self._config),
            ).llm_engine
            # Otherwise the GPU stays full until garbage collection, and the next engine does not fit.
            weakref.finalize(self, engine.engine_core.shutdown)
            if self._lora is not None:  # so that an unusable adapter fails before the first prompt
                engine.add_lora(self._lora)
        except (torch.OutOfMemoryError, ValueError) as error:
            raise UserError(
                f"model {self._model.name}: vllm can't load it ({error}); free the card's memory, use another model, "
                "or set hardware.engine to transformers"
            ) from None
        return engine

    def complete(self, requests: Sequence[Request]) -> Iterator[list[tuple[int, Completed]]]:
        """Complete all requests; yields (index in `requests`, completion) at each step that finishes some.

        Raises:
            UserError: a prompt leaves no room in the model's context; raised before anything is generated.
        """
        from vllm import SamplingParams

        prompts = [self._prompt(request.messages, request.max_new_tokens) for request in requests]
        settings = [
            SamplingParams(
                temperature=request.sampling.temperature,
                min_p=request.sampling.min_p,
                extra_args={PENALTY: request.sampling.repetition_penalty},
                seed=request.seed,
                max_tokens=request.max_new_tokens,
                min_tokens=1,  # an empty completion is not allowed
                detokenize=False,
            )
            for request in requests
        ]
        for batch in self._run(prompts, settings):
            yield [(place, self._completed(prompts[place], output)) for place, output in batch]

    def score(
        self, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
    ) -> Iterator[list[tuple[int, list[float]]]]:
        """Probability of each label as the next token after each conversation, not renormalised.

        Yields (index in `conversations`, probabilities in the order of `labels`) as they become known. vLLM computes
        them from the model's logits over the whole vocabulary.

        Raises:
            UserError: a label is not one token of this model, or a conversation fills its context.
        """
        from vllm import SamplingParams

        columns = self._template.labels(labels, beginnings=any(map(begun, conversations)))
        prompts = [self._prompt(messages, 1) for messages in conversations]
        settings = [
            SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=columns, detokenize=False) for _ in prompts
        ]
        for batch in self._run(prompts, settings):
            yield [(place, [math.exp(output.logprobs[0][id].logprob) for id in columns]) for place, output in batch]

    def estimate(self, requests: Sequence[Request]) -> None:
        """None: the rate depends on how many rows fit in vLLM's memory."""

    def _prompt(self, messages: Sequence[Message], max_new_tokens: int) -> list[int]:
        """Token ids of a conversation in the model's chat template, with room for the completion."""
        ids = self._template.tokens(messages)
        self._template.check_room(len(ids), max_new_tokens, self._engine.model_config.max_model_len)
        return ids

    def _run(self, prompts: Sequence[list[int]], settings: Sequence[Any]) -> Iterator[list[tuple[int, Any]]]:
        """(place, vLLM's CompletionOutput) of each step's finished requests; abandoned requests are aborted."""
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        waiting = {str(place) for place in range(len(prompts))}
        try:
            for place, (ids, params) in enumerate(zip(prompts, settings, strict=True)):
                params.output_kind = RequestOutputKind.FINAL_ONLY
                self._engine.add_request(str(place), tokens_input(ids), params, lora_request=self._lora)
            while self._engine.has_unfinished_requests():
                done = [output for output in self._engine.step() if output.finished]
                waiting -= {output.request_id for output in done}
                if done:
                    yield [(int(output.request_id), output.outputs[0]) for output in done]
        finally:
            self._engine.abort_request(list(waiting))

    def _completed(self, prompt: Sequence[int], output: Any) -> Completed:
        reason = ENDS[output.finish_reason]
        ids = list(output.token_ids)[: -1 if reason == "stop" else None]  # without the end token
        return Completed(self._template.text_of(ids), reason, len(prompt), len(ids))


def penalise(
    logits: torch.Tensor, tokens: torch.Tensor, prompts: torch.Tensor, lengths: torch.Tensor, penalties: torch.Tensor
) -> None:
    """Divide the logits of tokens already drawn by the penalty (multiply negative ones), in place.

    Args:
        logits: float32 (rows, vocabulary).
        tokens: int64 (rows, width), each row's prompt and completion, then anything.
        prompts: int (rows,), length of the prompt.
        lengths: int (rows,), length of prompt and completion.
        penalties: float32 (rows,); 1 changes nothing.
    """
    places = torch.arange(tokens.shape[1], device=tokens.device)
    written = (places >= prompts[:, None]) & (places < lengths[:, None])
    latest = tokens.gather(1, lengths[:, None].long() - 1)
    ids = torch.where(written, tokens, latest)  # the latest token in all other places, which changes nothing
    strength = torch.where(lengths > prompts, penalties, 1.0)[:, None]
    values = logits.gather(1, ids)
    logits.scatter_(1, ids, torch.where(values < 0, values * strength, values / strength))


def penalty_processor() -> type:
    """vLLM's logits processor for our repetition penalty, which exempts the prompt's tokens.

    The token that ends a turn is among them; vLLM's own repetition penalty would include it. The class is defined
    inside this function because its base class is vLLM's.
    """
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

    class WrittenPenalty(LogitsProcessor):  # type: ignore[misc]
        def __init__(self, vllm_config: Any, req_states: Any) -> None:
            self._states = req_states
            self._penalties = torch.ones(req_states.max_num_reqs, device=req_states.device)

        def add_request(self, req_idx: int, sampling_params: Any) -> bool:
            penalty: float = (sampling_params.extra_args or {}).get(PENALTY, 1.0)
            self._penalties[req_idx] = penalty
            return penalty != 1

        def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
            slots = ctx.expanded_idx_mapping.long()
            tokens = self._states.all_token_ids.gpu[slots, : int(ctx.seq_lens_upper_bound_np.max())].long()
            penalise(logits, tokens, self._states.prompt_len.gpu[slots], ctx.pos + 1, self._penalties[slots])
            return logits

    return WrittenPenalty


def _check(placement: Placement, adapter: Path | None) -> None:
    if placement.device != "cuda":
        raise UserError(f"hardware.engine: vllm needs cuda, not {placement.device}; set it to transformers")
    if placement.quantization != "none":
        raise UserError(
            f"hardware.quantization: vllm does not load in {placement.quantization}; set it to none and use a model "
            "that fits, or set hardware.engine to transformers"
        )
    if adapter is not None and placement.dtype == "float32":
        raise UserError("hardware.dtype: vllm runs an adapter in bfloat16 or float16 only; set it to one of them")


def _lora_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that vLLM needs for an adapter: the smallest supported rank that is large enough."""
    if not config:
        return {}
    from vllm.config.lora import MaxLoRARanks

    ranks = get_args(MaxLoRARanks)
    return {
        "enable_lora": True,
        "max_lora_rank": min((rank for rank in ranks if rank >= config["r"]), default=ranks[-1]),
    }
