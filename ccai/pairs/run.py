"""From revisions to preference pairs: a judge's verdicts if it passed its exam, the gates, and what is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from ccai.base import files
from ccai.base.params import Params
from ccai.base.records import Demonstration, Prompt, Response, Revision, Verdict
from ccai.constitution import dialogue
from ccai.constitution.principles import Constitution
from ccai.engines.base import Engine
from ccai.judge import exam, judge
from ccai.models import find
from ccai.pairs import build, demonstrations, lengths, ready_made, user_files

Triple = tuple[Prompt, Response, Revision]


@dataclass(frozen=True)
class Inputs:
    """What pairs are made of.

    Attributes:
        revisions: their file, which is read line by line each time.
        evaluation: texts of the prompts that are evaluated with, which no pair may nearly equal.
    """

    prompts: files.Index[Prompt]
    responses: files.Index[Response]
    revisions: Path
    constitution: Constitution
    evaluation: Sequence[str]

    def triples(self) -> Iterator[Triple]:
        """Each prompt with its first answer and its last revision: those of earlier rounds were revised again."""
        last = max((revision.round for revision in files.each(self.revisions, Revision)), default=0)
        revisions = (revision for revision in files.each(self.revisions, Revision) if revision.round == last)
        wording = {principle.slug: principle.sha256 for principle in self.constitution.principles}
        return build.joined(self.prompts, self.responses, revisions, wording)


@dataclass(frozen=True)
class JudgedTriples:
    """What a judge said: a verdict for each triple (None: no judge, or it failed its exam), metrics and cost."""

    verdicts: list[Verdict] | None
    metrics: dict[str, Any]
    cost: dict[str, Any]


def let_judge(settings: Params, inputs: Inputs, written_by: Mapping[str, Mapping[str, Any]]) -> JudgedTriples:
    """Have the judge sit its exam and, if it passes, read every triple.

    Args:
        written_by: metrics of the stages that wrote the answers, for the judge's relatives among their models.
    """
    if not settings.pairs.judge:
        return JudgedTriples(None, {}, {})
    engine = judge.load(settings.models.judge, settings.hardware)
    sat = exam.sit("pairs exam", engine, inputs.constitution.principles)
    relatives = judge.relatives(
        "pairs", engine, {metrics["model"]: metrics["revision"] for metrics in written_by.values()}
    )
    verdicts, cost = None, {"exam": sat.runtime}
    if sat.passed:
        verdicts, cost["judge"] = _verdicts(engine, inputs.constitution, list(inputs.triples()), sat.cuts)
    else:
        print(f"pairs: {engine.name} failed its exam; no verdicts are asked of it, its gates are off", flush=True)
    return JudgedTriples(verdicts, {"judge": sat.metrics | {"relatives": relatives}}, cost)


def violations(inputs: Inputs, verdicts: Sequence[Verdict]) -> dict[tuple[str, str], float | None]:
    """What the verdicts say of the first answers, by prompt and principle."""
    return {
        (prompt.prompt_id, revision.principle): verdict.rejected_violation
        for (prompt, _, revision), verdict in zip(inputs.triples(), verdicts, strict=True)
    }


def write(folder: Path, settings: Params, inputs: Inputs, verdicts: Sequence[Verdict] | None) -> dict[str, Any]:
    """Decide on every candidate, then write pairs and demonstrations; returns their counts."""
    counter = lengths.Tokens(find.find(settings.models.train).folder)
    system, too_near = settings.responses.system, settings.prompts.contamination
    brought = chain.from_iterable(map(ready_made.prompts, settings.pairs.sources))
    near = user_files.near(brought, inputs.evaluation, too_near)

    def candidates() -> Iterator[build.Candidate]:
        own = build.candidates(inputs.triples(), system, verdicts or repeat(None))
        ready = (ready_made.candidates(entry, system, near, counter.text) for entry in settings.pairs.sources)
        return chain(own, *ready)

    form = dialogue.load_format(settings.critiques.format)
    fates = build.decide(
        candidates(),
        settings.pairs,
        settings.seed,
        lambda some: counter.over(some, settings.train.max_length),
        build.shown(form, inputs.constitution.principles, settings.critiques.examples),
    )
    helpful: dict[str, list[Demonstration]] = {}
    if settings.pairs.demonstrations is not None:
        helpful = demonstrations.mix(
            settings.pairs.demonstrations,
            settings.pairs.demonstrations_share,
            {side: fates.count(side) for side in build.SIDES},
            system,
            settings.seed,
            inputs.evaluation,
            too_near,
        )
    return build.write(folder, candidates(), fates, helpful).metrics()


def _verdicts(
    engine: Engine, constitution: Constitution, triples: Sequence[Triple], cuts: Mapping[str, float]
) -> judge.PairVerdicts:
    by_slug = {principle.slug: principle for principle in constitution.principles}
    return judge.verdicts(
        "pairs judge",
        engine,
        [by_slug[revision.principle] for _, _, revision in triples],
        [prompt.text for prompt, _, _ in triples],
        [response.text for _, response, _ in triples],
        [revision.text for _, _, revision in triples],
        cuts,
    )
