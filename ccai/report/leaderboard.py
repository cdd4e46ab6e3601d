"""The runs that git knows: commits and DVC experiments with their verdicts, side by side, one row each."""

from __future__ import annotations

import csv
import io
import math
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccai.base.errors import UserError
from ccai.base.files import read_json
from ccai.base.hashing import digest
from ccai.report import run_files
from ccai.report.run_files import Files, git

METRICS = "metrics/eval.json"
AIMS = ("safety", "helpfulness")

FIGURES = ("verdict", "metric", "better", "bound", "n", "base", "tuned", "mean", "low", "high")
"""Of each aim, as in metrics/eval.json under `registered`."""

NOTE = (
    "best of {k}: picked among {k} runs by its result on the evaluation set they share, so it looks better than it is. "
    "Measure it again on prompts that picked none of them (other prompts.sources or seed) before you report it."
)


@dataclass(frozen=True)
class LeaderboardRow:
    """A run, or why it can't be read.

    Attributes:
        names: the commit and the experiments whose metrics/eval.json this is; `.` if it is in this folder alone.
        date: of the commit.
        metrics: metrics/eval.json; empty if it can't be read.
        pairs: how many were kept; None if that is not known.
        seconds: what all stages took; None if the run was made elsewhere.
        questions: what it was asked, as a hash: equal for runs on one evaluation set; empty if not known.
        best_of: among how many runs on its evaluation set it is the best; 0 if it isn't, or all are alike.
        reason: why a part can't be read; empty if all can.
    """

    names: tuple[str, ...]
    date: str
    metrics: dict[str, Any]
    pairs: int | None
    seconds: float | None
    questions: str
    reason: str
    best_of: int = 0

    @property
    def rank(self) -> tuple[bool, float]:
        """Higher is better: helpfulness not lost, as far as can be told; then how much safer the tuned model is."""
        safety, helpfulness = (self.metrics["registered"][aim] for aim in AIMS)
        gain = safety.get("mean")
        sign = 1 if safety["better"] == "more" else -1
        return helpfulness["verdict"] != "not met", -math.inf if gain is None else sign * gain


def rows() -> list[LeaderboardRow]:
    """The commits of HEAD's history whose metrics/eval.json differs, the experiments, and the run in this folder.

    Runs with the same metrics/eval.json are one. Evaluation sets come newest run first, the best of each on top; runs
    that can't be read come last.

    Raises:
        UserError: no git, or nothing was ever evaluated.
    """
    by_blob: dict[str, LeaderboardRow] = {}
    for name, commit, date in [*_commits(), *_experiments()]:
        blob = _blob(commit) or commit
        if blob in by_blob:
            by_blob[blob] = replace(by_blob[blob], names=(*by_blob[blob].names, name))
        else:
            by_blob[blob] = _row(name, date, run_files.in_git(commit))
    by_blob = _with_this_folder(by_blob)
    if not by_blob:
        raise UserError(f"no commit or experiment has {METRICS}; run dvc repro, and commit what it wrote")
    return _marked(list(by_blob.values()))


def _commits() -> list[tuple[str, str, str]]:
    """Short name, commit and date; newest first."""
    try:
        output = git("log", "--format=%h %H %cs", "--", METRICS)
    except (OSError, subprocess.CalledProcessError):
        raise UserError("no git history here; run this in a clone of the project") from None
    entries = [tuple(line.split(" ")) for line in output.splitlines()]
    return [(name, commit, date) for name, commit, date in entries if _blob(commit)]  # others deleted it


def _experiments() -> list[tuple[str, str, str]]:
    """The same of DVC's experiments: refs/exps/BASELINE/NAME, the baseline's hash cut in two."""
    output = git("for-each-ref", "--format=%(refname) %(objectname) %(committerdate:short)", "refs/exps")
    entries = [
        (ref.split("/"), commit, date) for ref, commit, date in (line.split(" ") for line in output.splitlines())
    ]
    return [(ref[4], commit, date) for ref, commit, date in entries if len(ref) == 5 and len(ref[2] + ref[3]) == 40]


def _blob(commit: str) -> str:
    """The hash of its metrics/eval.json; empty if it has none."""
    try:
        return git("rev-parse", "--verify", "--quiet", f"{commit}:./{METRICS}")
    except subprocess.CalledProcessError:
        return ""


def _row(name: str, date: str, files: Files) -> LeaderboardRow:
    """A run by what git has of it; one that can't be read has the reason."""
    row = LeaderboardRow((name,), date, {}, None, None, "", "")
    try:
        metrics = run_files.metrics_of(name, files.text, "eval")
        if metrics is None:
            return replace(row, reason=f"no {METRICS}")
        row = replace(row, metrics=metrics, questions=_questions(files, metrics["registered"]))
        pairs = run_files.metrics_of(name, files.text, "pairs")
        return replace(row, pairs=pairs["kept"] if pairs else None)
    except UserError as error:
        return replace(row, reason=str(error).removeprefix(f"{name}: "))


def _questions(files: Files, registered: Mapping[str, Any]) -> str:
    """A hash of what the aims were measured on: the metrics, and the prompts and question sets that dvc.lock names."""
    lock = run_files.lock(files.text("dvc.lock") or "{}", f"{files.name}: dvc.lock")["stages"].get("eval", {})
    metrics = [registered[aim]["metric"] for aim in AIMS if registered[aim]["metric"]]
    if not metrics:
        return ""
    suites = {metric.partition(".")[0] for metric in metrics}
    paths = ["data/prompts/eval.jsonl"] if suites & {"heldout", "jailbreaks"} else []
    paths += ["data/eval_sets"] if suites - {"heldout"} else []
    hashes = {dep["path"]: dep["md5"] for dep in lock.get("deps", []) if dep["path"].startswith(tuple(paths))}
    eval_params = lock.get("params", {}).get("params.yaml", {}).get("eval", {})
    if any(not any(path.startswith(one) for path in hashes) for one in paths):
        return ""
    return digest([metrics, sorted(hashes.items()), {suite: eval_params.get(suite) for suite in sorted(suites)}])


def _with_this_folder(by_blob: Mapping[str, LeaderboardRow]) -> dict[str, LeaderboardRow]:
    """What the run in this folder cost, on its row; one of its own, the first, if its metrics are in no commit."""
    _, _, folder = run_files.files(None)
    if folder.content(METRICS) is None:
        return dict(by_blob)
    blob, seconds = git("hash-object", METRICS), None if run_files.origin() else _seconds()
    if blob in by_blob:
        return {**by_blob, blob: replace(by_blob[blob], seconds=seconds)}
    return {blob: replace(_row(".", "", folder), seconds=seconds), **by_blob}


def _seconds() -> float | None:
    """What the stages took that ran last in this folder."""
    values = [read_json(path).get("seconds") for path in sorted(run_files.RUNTIME.glob("*.json"))]
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) if numbers else None


def _marked(rows: Sequence[LeaderboardRow]) -> list[LeaderboardRow]:
    """Set by set the best first, marked if it is the best of several; those that can't be read last."""
    sets: dict[str, list[LeaderboardRow]] = {}
    for at, row in enumerate(rows):
        if row.metrics:
            sets.setdefault(row.questions or f"unknown {at}", []).append(row)
    result = list[LeaderboardRow]()
    for of_set in sets.values():
        ranked = sorted(of_set, key=lambda row: row.rank, reverse=True)
        best, worst = ranked[0].rank, ranked[-1].rank
        result += [replace(row, best_of=len(ranked) if worst < row.rank == best else 0) for row in ranked]
    return [*result, *(row for row in rows if not row.metrics)]


# As text, Markdown and CSV

HEAD = ("run", "set", "safety", "helpfulness", "pairs", "model", "seed", "time")


def text(rows: Sequence[LeaderboardRow], limit: int = 0) -> str:
    """A table for the terminal, then what is to be known of it."""
    cells = _cells(rows, limit)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([*lines, *(f"\n{note}" for note in notes(rows, limit))])


def markdown(rows: Sequence[LeaderboardRow], limit: int = 0) -> str:
    """The same as a Markdown table."""
    head, *rest = [[cell.replace("|", "\\|") for cell in row] for row in _cells(rows, limit)]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest)]
    return "\n".join([*lines, *(f"\n{note}" for note in notes(rows, limit))])


def as_csv(rows: Sequence[LeaderboardRow], limit: int = 0) -> str:
    """All figures of all rows, those that can't be read among them; the reason stands in a column of its own."""
    written = io.StringIO()
    columns = ["run", "date", "set", "best_of", *(f"{aim}_{figure}" for aim in AIMS for figure in FIGURES)]
    columns += ["pairs", "model", "revision", "seed", "seconds", "reason"]
    writer = csv.DictWriter(written, columns, lineterminator="\n")
    writer.writeheader()
    sets = _sets(rows)
    for row in [*_shown(rows, limit), *(row for row in rows if not row.metrics)]:
        aims = row.metrics.get("registered", {})
        figures = {f"{aim}_{name}": aims[aim].get(name) for aim in aims if aim in AIMS for name in FIGURES}
        named = {name: row.metrics.get(name) for name in ("model", "revision", "seed")}
        about = {"run": " ".join(row.names), "date": row.date, "set": sets.get(row.questions, "")}
        rest = {"best_of": row.best_of or None, "pairs": row.pairs, "seconds": row.seconds, "reason": row.reason}
        writer.writerow(about | rest | figures | named)
    return written.getvalue().removesuffix("\n")


def _shown(rows: Iterable[LeaderboardRow], limit: int) -> list[LeaderboardRow]:
    readable = [row for row in rows if row.metrics]
    return readable[: limit or None]


def _sets(rows: Iterable[LeaderboardRow]) -> dict[str, str]:
    """A letter or two for each evaluation set, in the order of the rows."""
    hashes = dict.fromkeys(row.questions for row in rows if row.questions)
    return {questions: _letter(at) for at, questions in enumerate(hashes)}


def _letter(at: int) -> str:
    return ("" if at < 26 else _letter(at // 26 - 1)) + chr(ord("a") + at % 26)


def _cells(rows: Sequence[LeaderboardRow], limit: int) -> list[tuple[str, ...]]:
    sets = _sets(rows)
    return [
        HEAD,
        *(
            (
                f"{', '.join(row.names)} {row.date}".strip() + (f" (best of {row.best_of})" if row.best_of else ""),
                sets.get(row.questions, "?"),
                *(_aim(row.metrics["registered"][aim]) for aim in AIMS),
                "–" if row.pairs is None else str(row.pairs),
                f"{row.metrics['model']}@{row.metrics['revision'].removeprefix('sha256:')[:7]}",
                str(row.metrics["seed"]),
                "–" if row.seconds is None else f"{row.seconds / 60:.1f} min",
            )
            for row in _shown(rows, limit)
        ),
    ]


def _aim(value: Mapping[str, Any]) -> str:
    """The verdict, and the difference between the tuned model and its base."""
    if not value["n"]:
        return f"{value['verdict']}: {value['why']}"
    bounds = "no interval" if value["low"] is None else f"[{value['low']:+z.2f}, {value['high']:+z.2f}]"
    return f"{value['verdict']} {value['mean']:+z.2f} {bounds}"


def notes(rows: Sequence[LeaderboardRow], limit: int = 0) -> list[str]:
    """What is to be known of the table, which runs can't be read among it."""
    shown, readable = _shown(rows, limit), [row for row in rows if row.metrics]
    about = (
        "Differences are tuned minus base, by what each run registered; runs compare within a set (ccai compare A B)."
    )
    notes = [about] if shown else []
    if len(shown) < len(readable):
        notes.append(f"{len(readable) - len(shown)} more; the best of k counts them too. Raise -n to see them.")
    notes += [NOTE.format(k=k) for k in dict.fromkeys(row.best_of for row in shown if row.best_of)]
    if unread := [row for row in rows if row.reason]:
        notes.append(
            "\n".join(["Not read:", *(f"  {', '.join(row.names)} {row.date}: {row.reason}" for row in unread)])
        )
    return notes
