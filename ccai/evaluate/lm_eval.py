"""EleutherAI's lm-evaluation-harness: its tasks by name, run with the weights of an engine."""

from __future__ import annotations

import copy
import functools
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import datasets
import httpx2
import lm_eval
import numpy as np
import torch
from datasets.exceptions import DatasetsError
from lm_eval.api.metrics import mean
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import DynamicCache

from ccai.base import cache
from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.engines import attention
from ccai.engines.transformers import Transformers
from ccai.generate.journal import Journal, whole

TASKS = Path("conf/lm_eval")
"""This project's tasks, in the harness's format. One of them replaces the harness's task of the same name."""

CHUNK = 64
"""Requests that are answered and kept in the journal together. Chunks are always the same, because rows that run side
by side differ in their last digits from rows that run alone.
"""

ROWS = {"cpu": 16, "mps": 16, "cuda": 32}
"""Number of rows that run side by side."""

SEED = 1234
"""The harness's default for few-shot examples and sampling, so that results equal those of its command line."""


def load(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Tasks with their documents: by the requested name, then by their own; a group or a tag has several.

    Raises:
        UserError: no such task, its data is not available, or it has no metric that is a mean over documents.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = cache.folder("datasets")
    ours = _manager(TASKS.resolve(), False)
    manager = ours if set(names) <= set(ours.all_tasks) else _manager(TASKS.resolve(), True)
    return {name: _load(manager, name, ours.all_tasks) for name in names}


@functools.cache
def _manager(folder: Path, theirs: bool) -> Any:
    """The harness's index of our tasks, and of its own if needed: reading its thousands of files takes seconds."""
    return TaskManager(include_path=folder, include_defaults=theirs)


def _load(manager: TaskManager, name: str, ours: Sequence[str]) -> dict[str, Any]:
    where = f"eval.capability.tasks: {name}"
    if name not in manager.all_tasks:
        raise UserError(f"{where}: no such task; {TASKS} has {', '.join(ours)}, lm_eval ls tasks lists the harness's")
    random.seed(0)  # some tasks shuffle on loading; these are the harness's seeds
    np.random.seed(SEED)
    try:
        tasks: dict[str, Any] = manager.load([name])["tasks"]
    except (OSError, httpx2.HTTPError, DatasetsError) as error:
        reason = str(error).strip().splitlines()[0]
        remedy = "fetch it, or run once where there is a network"
        raise UserError(f"{where}: its data is not available ({reason}); {remedy}") from None
    except ImportError as error:
        raise UserError(f"{where}: needs a package that is not installed ({error.name}); install it") from None
    for task in tasks.values():
        if not means(task):
            raise UserError(f"{where}: {task.task_name} has no metric that is a mean over documents; take it out")
        task.set_config(key="num_fewshot", value=task.get_config("num_fewshot") or 0)
    return tasks


def means(task: Any) -> list[str]:
    """Names of a task's metrics that are means over documents. Others, such as perplexity, have no value for each."""
    return [name for name, aggregation in task.aggregation().items() if aggregation is mean]


def ask(
    stage: str, engine: Transformers, tasks: Mapping[str, Any], system: str, samples: Mapping[str, Sequence[int]]
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Run tasks with an engine's weights, reusing the journal's answers.

    Args:
        tasks: by name, from `load`.
        system: the system message; may be empty.
        samples: by name, the positions of the documents in the task's set.

    Returns:
        By task the harness's samples, one for each document and filter; and the costs.
    """
    for task in tasks.values():
        task.set_fewshot_seed(seed=SEED)  # the sampler advances with each document: reset it for every arm
    with closing(Journal(cache.folder("journal"), whole)) as journal, _plain_attention(engine):
        weights = Weights(stage, engine, journal)
        done = evaluate(
            lm=weights,
            task_dict={"tasks": dict(tasks), "groups": {}, "group_map": {}},
            samples={name: list(places) for name, places in samples.items()},
            bootstrap_iters=0,
            system_instruction=system or None,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
        )
    return done["samples"], {"generated": weights.generated, "reused": weights.reused, **engine.runtime}


class Weights(HFLM):  # type: ignore[misc]  # lm_eval has no types
    """An engine's model, with or without its adapter, in the harness's interface; answers are kept in the journal.

    Attributes:
        generated, reused: number of requests answered by the model, and by the journal.
    """

    def __init__(self, stage: str, engine: Transformers, journal: Journal) -> None:
        super().__init__(
            pretrained=engine.model,
            tokenizer=copy.deepcopy(engine.template.tokenizer),  # the harness modifies it
            backend="causal",
            batch_size=ROWS[engine.placement.device],
        )
        self._stage, self._journal = stage, journal
        self._identity = {**engine.identity, "harness": f"lm_eval {lm_eval.__version__}"}
        self.generated = self.reused = 0

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """As the harness's, but a template that refuses a system message is an error.

        The harness would drop the message, and the prompted arm would equal the base.
        """
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether it is the likeliest."""
        answers = self._kept("loglikelihood", super().loglikelihood, requests)
        return [(log_probability, likeliest) for log_probability, likeliest in answers]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[float]:
        """Log-probability of each text."""
        return self._kept("loglikelihood_rolling", super().loglikelihood_rolling, requests)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = True) -> list[str]:
        """Completions, with the task's sampling."""
        return self._kept("generate_until", super().generate_until, requests)

    @torch.inference_mode()
    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = True,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Log-probabilities of continuations, with a cache of the tokens that successive requests share.

        Requests are sorted by their tokens, and each is read from where it differs from the one before. Choices share a
        question and questions a system message, which the harness would read again for every choice.
        """
        rows = [(context + continuation)[-(self.max_length + 1) :] for _, context, continuation in requests]
        answers: dict[int, tuple[float, bool]] = {}
        read, before = DynamicCache(), list[int]()
        for place in sorted(range(len(rows)), key=lambda place: rows[place]):
            row, count = rows[place], len(requests[place][2])
            same = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(before, row, strict=False)))
            same = min(same, len(row) - count - 1)  # the token before the continuation predicts its first
            if same < len(before):
                read.crop(same - len(before))
            ids = torch.tensor([row[same:]], device=self.device)
            logits = self.model(ids[:, :-1], past_key_values=read, use_cache=True, logits_to_keep=count).logits[0]
            scores, targets = logits.float().log_softmax(-1), ids[0, -count:]
            likeliest = bool((scores.argmax(-1) == targets).all())
            answers[place] = (scores.gather(-1, targets[:, None]).sum().item(), likeliest)
            before = row[:-1]
        return [answers[place] for place in range(len(rows))]

    def _kept(self, kind: str, answer: Callable[..., list[Any]], requests: Sequence[Any]) -> list[Any]:
        chunks = [requests[start : start + CHUNK] for start in range(0, len(requests), CHUNK)]
        keys = [digest({**self._identity, kind: [request.args for request in chunk]}) for chunk in chunks]
        reused = sum(len(chunk) for chunk, key in zip(chunks, keys, strict=True) if key in self._journal)
        print(f"{self._stage}: {len(requests) - reused} {kind} requests to answer ({reused} reused)", flush=True)
        answers: list[Any] = []
        for chunk, key in zip(chunks, keys, strict=True):
            value = self._journal.get(key)
            if value is not None and not _fits(kind, value.get("answers", ()), len(chunk)):
                self._journal.reject(key)
                value = None
            if value is None:
                torch.manual_seed(SEED)
                value = {"answers": answer(chunk, disable_tqdm=True)}
                self._journal.put({key: value})
                self.generated += len(chunk)
            else:
                self.reused += len(chunk)
            answers += value["answers"]
        return answers


def _fits(kind: str, answers: Sequence[Any], count: int) -> bool:
    """Whether these can be the answers to that many requests."""

    def fits(answer: Any) -> bool:
        match kind, answer:
            case "loglikelihood", [int() | float(), bool()]:
                return True
            case "loglikelihood_rolling", int() | float():
                return True
            case "generate_until", str():
                return True
        return False

    return len(answers) == count and all(map(fits, answers))


@contextmanager
def _plain_attention(engine: Transformers) -> Iterator[None]:
    """Give the model transformers' own attention while the harness runs it."""
    engine.model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        engine.model.set_attn_implementation(attention.NAME)
