"""Turn answers and revisions into preference pairs; keep those that pass the gates.

python -m stages.pairs
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from ccai.base import files, metrics_json, params, timing, versions
from ccai.base.errors import UserError, run
from ccai.base.records import Demonstration, Prompt, Response, Revision, Verdict
from ccai.constitution import dialogue
from ccai.constitution import principles as constitution
from ccai.constitution.principles import Constitution
from ccai.engines.base import Engine
from ccai.judge import exam, judge
from ccai.models import find
from ccai.pairs import baseline, build, card, demonstrations, lengths, ready_made, user_files
from ccai.prompts import sources

PROMPTS = Path("data/prompts/train.jsonl")
HELD_OUT = Path("data/prompts/eval.jsonl")
RESPONSES = Path("data/responses.jsonl")
REVISIONS = Path("data/revisions.jsonl")
OUT = Path("data/pairs")
METRICS = Path("metrics/pairs.json")
GENERATED = {"rejected": Path("metrics/responses.json"), "chosen": Path("metrics/revisions.json")}


def main() -> None:
    """Go through the revisions twice: decide, then write pairs, SFT data and their card."""
    settings, stopwatch = params.load(), timing.Stopwatch()
    versions.check("torch", "transformers")
    principles = constitution.load(settings.critiques.constitution)
    prompts = files.Index(PROMPTS, Prompt)
    responses = files.Index(RESPONSES, Response)
    if odd := set(prompts) ^ set(responses):
        raise UserError(f"{RESPONSES}: not the answers to {PROMPTS}, such as to prompt_id {min(odd)}; run dvc repro")
    evaluation = [prompt.text for prompt in files.read(HELD_OUT, Prompt)]
    evaluation += [row.text for row in sources.load_all(settings.prompts.evaluation_sets)]
    too_near = settings.prompts.contamination
    counter = lengths.Tokens(find.find(settings.models.train).folder)
    system = settings.responses.system

    def triples() -> Iterator[tuple[Prompt, Response, Revision]]:
        """Those of earlier rounds were revised again: the last is the answer."""
        revisions = (r for r in files.each(REVISIONS, Revision) if r.round == last)
        return build.joined(prompts, responses, revisions, wording)

    wording = {principle.slug: principle.sha256 for principle in principles.principles}
    written_by = {role: metrics_json.read(path) for role, path in GENERATED.items()}
    last = max((revision.round for revision in files.each(REVISIONS, Revision)), default=0)
    about: dict[str, Any] = {}
    cost: dict[str, Any] = {}
    verdicts = None
    if settings.pairs.judge:
        engine = judge.load(settings.models.judge, settings.hardware)
        sat = exam.sit("pairs exam", engine, principles.principles)
        made_by = written_by.values()
        relatives = judge.relatives(engine, {made["model"]: made["revision"] for made in made_by})
        about["judge"], cost["exam"] = sat.metrics | {"relatives": relatives}, sat.runtime
        if relatives:
            print(f"pairs: WARNING: {engine.name} is of the family it judges: {', '.join(relatives)}", flush=True)
        if sat.passed:
            verdicts, cost["judge"] = judged(engine, principles, list(triples()))
        else:
            print(f"pairs: {engine.name} failed its exam; no verdicts are asked of it, its gates are off", flush=True)
        del engine
    about["baseline"] = baseline.measure(
        (prompt for prompt in files.each(PROMPTS, Prompt) if prompt.prompt_id in responses),
        files.each(RESPONSES, Response),
        None if verdicts is None else violations(list(triples()), verdicts),
    )

    brought = chain.from_iterable(map(ready_made.prompts, settings.pairs.sources))
    near = user_files.near(brought, evaluation, too_near)

    def candidates() -> Iterator[build.Candidate]:
        made = build.candidates(triples(), system, verdicts or repeat(None))
        ready = (ready_made.candidates(entry, system, near, counter.text) for entry in settings.pairs.sources)
        return chain(made, *ready)

    asked = dialogue.load_format(settings.critiques.format)
    fates = build.decide(
        candidates(),
        settings.pairs,
        settings.seed,
        lambda some: counter.over(some, settings.train.max_length),
        build.shown(asked, principles.principles, settings.critiques.examples),
    )
    helpful: dict[str, list[Demonstration]] = {}
    if settings.pairs.demonstrations is not None:
        helpful = demonstrations.mix(
            settings.pairs.demonstrations,
            settings.pairs.demonstrations_share,
            {side: fates.count(side) for side in build.SIDES},
            system,
            settings.seed,
            evaluation,
            too_near,
        )
    counts = build.write(OUT, candidates(), fates, helpful).metrics()
    metrics = {"seed": settings.seed, **counts, **about}
    files.write_text(OUT / "README.md", card.text(metrics, principles, written_by))
    files.write_json(METRICS, metrics)
    timing.write("pairs", stopwatch, **cost)
    print(f"pairs: {counts['kept']} kept ({counts['train']} train, {counts['validation']} validation)")
    if reasons := ", ".join(f"{gate} {n}" for gate, n in counts["dropped_by"].items() if n):
        print(f"pairs: dropped: {reasons}")


def judged(
    engine: Engine, principles: Constitution, triples: Sequence[tuple[Prompt, Response, Revision]]
) -> judge.Verdicts:
    """A verdict on each revision."""
    by_slug = {principle.slug: principle for principle in principles.principles}
    return judge.verdicts(
        "pairs judge",
        engine,
        [by_slug[revision.principle] for _, _, revision in triples],
        [prompt.text for prompt, _, _ in triples],
        [response.text for _, response, _ in triples],
        [revision.text for _, _, revision in triples],
    )


def violations(
    triples: Sequence[tuple[Prompt, Response, Revision]], verdicts: Sequence[Verdict]
) -> dict[tuple[str, str], float | None]:
    """What the verdicts say of the first answers, by prompt and principle."""
    return {
        (prompt.prompt_id, revision.principle): verdict.rejected_violation
        for (prompt, _, revision), verdict in zip(triples, verdicts, strict=True)
    }


if __name__ == "__main__":
    run(main, __doc__)
