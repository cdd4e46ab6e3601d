"""How far the rule scores agree with people and with a strong judge.

    python -m bench.scorers --xstest FILE.csv --ratings FILE.jsonl

`--xstest`: answers with people's refusal labels (columns as in bench/fit_refusal.py). Cohen's kappa, refused (in full
or in part) against complied, and three classes: of weights fitted to all other models' answers and tested on the model
left out (`by_model`), the same with other prompts as well (`by_model_and_prompt`, `FOLDS` folds), and of the weights
that ship, which say little about the file that they were fitted to (`fitted_to_this_file`). `behind`: the same answers
behind sentences that answer nothing (`BEFORE`), by weights of the other models' plain answers: the share of people's
full refusals that is found, in full and in full or in part, and of people's full compliance that is called a refusal.

`--ratings`: lines with prompt_id, prompt, response and ratings (a mapping of names to numbers). Spearman's rank
correlation of a score with the rating of `RATED`, the same with the answer's length in words partialled out, and that
of length alone. Nothing is fitted to ratings.

Intervals are 95 % percentile bootstraps over prompts, since answers to one prompt are no independent draws.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.inter_rater import cohens_kappa

from bench import fit_refusal, machine
from bench.fit_refusal import Labelled
from ccai.base.errors import UserError, run
from ccai.rules import refusal
from ccai.rules import scores as rules

FOLDS = 5
RESAMPLES = 2000

RATED = {"empathy": "empathetic_tone", "guidance": "constructive_guidance", "wisdom": "wisdom_depth"}
"""Which rating each score is held against."""

BEFORE = {
    "warm": (
        "Thank you for trusting me with this.",
        "It sounds as though the last few weeks have been hard on you.",
        "Your feelings make sense, and they matter.",
        "I want to stay with that for a moment before anything else.",
        "Whatever happens, you deserve patience and kindness.",
    ),
    "mindful": (
        "Before I answer, I pause and notice my breath.",
        "Something tightens in me as I read your words, and I let it soften.",
        "We are all connected, the person who asks and the people who would be touched.",
        "May every one of them be at ease.",
        "With that in my heart I turn to what you wrote.",
    ),
    "weather": (
        "The rain has stopped, and the street is full of puddles.",
        "A blackbird sings on the roof across the road.",
        "It should clear up by the afternoon.",
        "The evenings are getting longer again.",
        "I hope it is as mild where you are.",
    ),
}
"""Sentences put before an answer, by kind; none was used when the rules were written."""

SENTENCES = (0, 1, 2, 3, 5)
"""How many of them."""

Counts = NDArray[np.float64]


def kappas(rows: Sequence[Labelled], found: Sequence[refusal.Refusal]) -> dict[str, Any]:
    """Both kappas with their intervals, and the confusion of classes (rows: people; columns: scorer)."""
    prompts = list(dict.fromkeys(row.prompt_id for row in rows))
    tables = np.zeros((len(prompts), 3, 3))
    places, classes = {prompt: at for at, prompt in enumerate(prompts)}, refusal.CLASSES
    for row, label in zip(rows, found, strict=True):
        tables[places[row.prompt_id], classes.index(row.label), classes.index(label)] += 1

    def three(at: Any) -> float:
        return float(cohens_kappa(tables[at].sum(axis=0), return_results=False))

    def refused(at: Any) -> float:
        table = tables[at].sum(axis=0)
        pooled = [[table[0, 0], table[0, 1:].sum()], [table[1:, 0].sum(), table[1:, 1:].sum()]]
        return float(cohens_kappa(np.array(pooled), return_results=False))

    return {
        "n": len(rows),
        "refused": _interval(refused, len(prompts)),
        "three_classes": _interval(three, len(prompts)),
        "confusion": tables.sum(axis=0).astype(int).tolist(),
    }


def cross_validated(
    rows: Sequence[Labelled], folds: int, tested: Sequence[Labelled] | None = None
) -> list[refusal.Refusal]:
    """Class of each answer by weights fitted to other models' answers, to other prompts if `folds` is above 1.

    `tested`: the answers to class instead, in the same order.
    """
    fold = [zlib.crc32(row.prompt_id.encode()) % folds for row in rows]
    found: dict[int, refusal.Refusal] = {}
    for model in sorted({row.model for row in rows}):
        for part in range(folds):
            model_of = fit_refusal.fit(
                [
                    row
                    for row, here in zip(rows, fold, strict=True)
                    if row.model != model and (folds == 1 or here != part)
                ]
            )
            for at, row in enumerate(tested or rows):
                if row.model == model and fold[at] == part:
                    found[at] = refusal.weigh(row.features, model_of)
    return [found[at] for at in range(len(rows))]


def behind(path: Path) -> dict[str, dict[str, Any]]:
    """By kind and number of the sentences before the answers: shares of people's classes by what is found of them."""
    rows = fit_refusal.read(path)
    found: dict[str, dict[str, Any]] = {}
    for kind, sentences in BEFORE.items():
        for count in SENTENCES:
            classes = cross_validated(rows, 1, fit_refusal.read(path, sentences[:count]))
            by_label: dict[str, list[refusal.Refusal]] = {}
            for row, label in zip(rows, classes, strict=True):
                by_label.setdefault(row.label, []).append(label)
            refused, complied = by_label["full_refusal"], by_label["full_compliance"]
            found.setdefault(kind, {})[str(count)] = {
                "found_in_full": round(refused.count("full_refusal") / len(refused), 3),
                "found": round(1 - refused.count("full_compliance") / len(refused), 3),
                "complied_called_refused": round(1 - complied.count("full_compliance") / len(complied), 3),
            }
    return found


def against_people(path: Path) -> dict[str, Any]:
    """Kappas of the refusal classes on labelled answers.

    Raises:
        UserError: the file can't be used, or holds answers of a single model.
    """
    rows = fit_refusal.read(path)
    models = sorted({row.model for row in rows})
    if len(models) < 2:
        raise UserError(f"{path}: answers of one model; leaving one model out needs two or more")
    left_out = cross_validated(rows, 1)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    fitted_to = json.loads(refusal.WEIGHTS.read_text(encoding="utf-8"))["fitted_to"]["sha256"]

    def of(model: str) -> dict[str, Any]:
        chosen = [at for at, row in enumerate(rows) if row.model == model]
        return kappas([rows[at] for at in chosen], [left_out[at] for at in chosen])

    return {
        "sha256": sha256,
        "by_model": {"all": kappas(rows, left_out), **{model: of(model) for model in models}},
        "by_model_and_prompt": kappas(rows, cross_validated(rows, FOLDS)),
        "behind": behind(path),
        "shipped": {
            "fitted_to_this_file": sha256 == fitted_to,
            **kappas(rows, [refusal.weigh(row.features, refusal.shipped()) for row in rows]),
        },
    }


def against_judge(path: Path) -> dict[str, Any]:
    """Rank correlations of scores and ratings.

    Raises:
        UserError: a line lacks a field; names it.
    """
    prompts, lengths, ratings, scores = [], [], [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            value = json.loads(line)
            ratings.append([float(value["ratings"][name]) for name in RATED.values()])
            prompts.append(str(value["prompt_id"]))
            lengths.append(len(value["response"].split()))
            found = rules.scores(value["prompt"], value["response"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}:{number}: {error}; see the fields in bench/scorers.py") from None
        scores.append([found[name] for name in RATED])
    if len(set(prompts)) < 2:
        raise UserError(f"{path}: answers to fewer than two prompts; give the rated answers")
    of_prompt: dict[str, list[int]] = {}
    for at, prompt in enumerate(prompts):
        of_prompt.setdefault(prompt, []).append(at)
    groups, words = list(of_prompt.values()), np.array(lengths, dtype=float)
    measured: dict[str, Any] = {"n": len(prompts), "prompts": len(groups)}
    for place, (name, rating) in enumerate(RATED.items()):
        score, rated = np.array(scores)[:, place], np.array(ratings)[:, place]

        def plain(at: Any, score: Counts = score, rated: Counts = rated) -> float:
            rows = [row for group in at for row in groups[group]]
            return _spearman(score[rows], rated[rows])

        def partial(at: Any, score: Counts = score, rated: Counts = rated) -> float:
            rows = [row for group in at for row in groups[group]]
            return partial_spearman(score[rows], rated[rows], words[rows])

        measured[name] = {
            "rating": rating,
            "spearman": _interval(plain, len(groups)),
            "without_length": _interval(partial, len(groups)),
            "length_alone": round(_spearman(words, rated), 3),
        }
    return measured


def partial_spearman(a: Counts, b: Counts, given: Counts) -> float:
    """Rank correlation of a and b with a third partialled out: the partial correlation of the three ranks."""
    ab, ag, bg = _spearman(a, b), _spearman(a, given), _spearman(b, given)
    return (ab - ag * bg) / math.sqrt((1 - ag**2) * (1 - bg**2))


def _spearman(a: Counts, b: Counts) -> float:
    return float(stats.spearmanr(a, b).statistic)


def _interval(statistic: Callable[[Any], float], groups: int) -> dict[str, float | None]:
    """Value over all groups and its bootstrap interval over groups; None where it is not defined, as without spread."""
    every = np.arange(groups)
    found = stats.bootstrap(
        (every,),
        statistic,
        n_resamples=RESAMPLES,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    values = {"value": statistic(every), "low": float(found.low), "high": float(found.high)}
    return {name: None if math.isnan(value) else round(value, 3) for name, value in values.items()}


def _say(what: str, values: dict[str, float | None]) -> str:
    value, low, high = ("undefined" if number is None else f"{number:.3f}" for number in values.values())
    return f"{what} {value} [{low}, {high}]"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.scorers", description="Agreement of the rule scores.")
    parser.add_argument("--xstest", type=Path, metavar="FILE.csv", help="answers with people's refusal labels")
    parser.add_argument("--ratings", type=Path, metavar="FILE.jsonl", help="answers with a judge's ratings")
    machine.add_results(parser)
    options = parser.parse_args()
    values: dict[str, Any] = {}
    for path in (options.xstest, options.ratings):
        if path and not path.is_file():
            raise UserError(f"{path}: no such file; give the labelled or rated answers")
    if options.xstest:
        values["xstest"] = people = against_people(options.xstest)
        lines = {f"left out: {name}": found for name, found in people["by_model"].items()}
        lines["left out: model and prompts"] = people["by_model_and_prompt"]
        if not people["shipped"]["fitted_to_this_file"]:
            lines["as shipped"] = people["shipped"]
        for name, found in lines.items():
            print(f"{name}: {_say('kappa refused', found['refused'])}, {_say('three classes', found['three_classes'])}")
    if options.ratings:
        values["ratings"] = judge = against_judge(options.ratings)
        for name, rating in RATED.items():
            found = judge[name]
            both = f"{_say('spearman', found['spearman'])}, {_say('without length', found['without_length'])}"
            print(f"{name} and {rating}: {both}; length alone {found['length_alone']:.3f}")
    if not values:
        raise UserError("nothing to do; give --xstest FILE, --ratings FILE or both")
    # The files lie outside the project: their names say enough.
    given = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]
    print(f"written: {machine.write(options.results, 'scorers', 'bench.scorers', given, values)}")


if __name__ == "__main__":
    run(main)
