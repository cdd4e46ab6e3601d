"""Each figure in README and docs is that of a file in git: `<!-- results: NAME -->` stands before what is held, and a
function below says how NAME reads by its file. `<!-- not measured: WHY -->` stands before other tables of numbers."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT

from ccai.base.files import read_json
from ccai.report import summary

DOCS = sorted([ROOT / "README.md", ROOT / "data/README.md", *ROOT.glob("docs/*.md")])
MARK = re.compile(r"<!-- (results|not measured): (.+?) -->")
FIGURE = re.compile(r"\d[\d,]*\.\d+|\d+ %")
ABOUT = {"date", "command"}
KEPT = tempfile.TemporaryDirectory()


class Block(NamedTuple):
    """What follows a mark, up to the next empty line (of a code block: to its end)."""

    doc: Path
    kind: str
    name: str
    lines: list[str]


def blocks(doc: Path) -> Iterator[Block]:
    lines = doc.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if mark := MARK.fullmatch(line):
            code = lines[number].startswith("```")
            last = next(at for at in range(number + 1, len(lines) + 1) if at == len(lines) or _over(lines[at], code))
            yield Block(doc, mark[1], mark[2], lines[number:last])


def _over(line: str, code: bool) -> bool:
    return line == "```" if code else not line


BLOCKS = [block for doc in DOCS for block in blocks(doc)]


def of(name: str) -> Any:
    """A file of bench/results."""
    return read_json(ROOT / "bench/results" / f"{name}.json")


@cache
def published() -> Path:
    """Metrics of the demo run: those that git has, whatever was run here since. Without git those that lie here."""
    folder = Path(KEPT.name)
    for name in ("prompts", "pairs", "train", "eval"):
        show = ["git", "-C", str(ROOT), "show", f"HEAD:./metrics/{name}.json"]
        committed = subprocess.run(show, capture_output=True)
        here = ROOT / f"metrics/{name}.json"
        (folder / here.name).write_bytes(here.read_bytes() if committed.returncode else committed.stdout)
    return folder


def metrics(name: str) -> Any:
    """Metrics of the demo run."""
    return read_json(published() / f"{name}.json")


def table(*rows: Sequence[object]) -> list[str]:
    """Rows as they stand in Markdown."""
    return ["| " + " | ".join(map(str, row)) + " |" for row in rows]


# What NAME has to say. Of a table: all rows below its head. Of a text: pieces of it, in which all its figures stand.


def kappa() -> list[str]:
    found = of("scorers")["xstest"]
    names = {"all": "all four, each left out in turn"} | {
        name: f"left out: {name}" for name in found["by_model"] if name != "all"
    }
    rows = [[label, *_kappas(found["by_model"][name])] for name, label in names.items()]
    rows.append(["each model left out, and the prompts too (5 folds)", *_kappas(found["by_model_and_prompt"])])
    return table(*(list(filter(None, row)) for row in rows))


def _kappas(found: dict[str, Any]) -> list[object]:
    return [found["n"], *(_interval(found[name]) for name in ("refused", "three_classes"))]


def _interval(found: dict[str, float]) -> str:
    return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**found)


def partial_refusals() -> list[str]:
    complied, partial, refused = of("scorers")["xstest"]["by_model"]["all"]["confusion"][1]
    return [
        f"Of {complied + partial + refused} partial refusals {partial} are recognised, {refused} called full refusals, "
        f"{complied} compliance"
    ]


def behind() -> list[str]:
    found = of("scorers")["xstest"]["behind"]
    names = {
        "warm": "kind words to the user",
        "mindful": "what the writer notices and wishes",
        "weather": "the weather",
    }
    shares = [each["complied_called_refused"] for by_count in found.values() for each in by_count.values()]
    assert len(set(shares)) == 1, "of full compliance none more is called a refusal"
    return table(*([name, *(f"{one['found']:.2f}" for one in found[kind].values())] for kind, name in names.items()))


def kappa_in_short() -> list[str]:
    found = of("scorers")["xstest"]["by_model"]
    every, *each = [found[name]["refused"]["value"] for name in ("all", "mistralguard", "mistralinstruct")]
    return [
        f"{found['all']['n']} answers",
        f"κ {every:.2f} for refused against complied and {found['all']['three_classes']['value']:.2f} for three",
        f"it is {each[0]:.2f} and {each[1]:.2f}",
    ]


def ratings() -> list[str]:
    found = of("scorers")["ratings"]
    return table(
        *(
            [
                score,
                found[score]["rating"],
                _interval(found[score]["spearman"]),
                _interval(found[score]["without_length"]),
                f"{found[score]['length_alone']:.2f}",
            ]
            for score in ("empathy", "guidance", "wisdom")
        )
    )


def coverage() -> list[str]:
    rows = {
        "difference of shares": ("difference, exact McNemar",),
        "difference of scores": ("difference, paired t",),
        "the same, four answers to a prompt": ("difference, cluster t",),
        "d_av": ("d_av, BCa",),
        "d_z": ("d_z, BCa",),
        "a share, exact": ("share, exact",),
        "a mean of one arm's scores": ("mean, BCa",),
    }
    return table(*([label, *_covered(kind)] for label, (kind,) in rows.items()))


def _covered(kind: str) -> list[str]:
    designs = of("coverage")["coverage"].values()
    cells, without = [], 0.0
    for size in ("n 24", "n 42", "n 100"):
        found = [design[size][kind] for design in designs if kind in design[size]]
        low, high = (pick(100 * each["left_out"] for each in found) for pick in (min, max))
        cells.append(f"{low:.1f}" if low == high else f"{low:.1f} to {high:.1f}")
        without = max([without, *(each["no_bounds"] for each in found)])
    return [*cells, f"{100 * without:.0f} %"]


def judge_errors() -> list[str]:
    result = of("judge_errors")
    shares, differences = (
        [100 * each["covered"] for each in result[kind].values()] for kind in ("shares", "differences")
    )
    return [
        f"Over {len(shares)} settings",
        f"{result['studies']:,} evaluations of each",
        f"the 95 % interval of a share held the truth in {min(shares):.1f} to {max(shares):.1f} of 100",
        f"over {len(differences)} settings",
        f"in {min(differences):.1f} to {max(differences):.1f} of 100.",
    ]


def demo_summary() -> list[str]:
    return summary.text(published()).splitlines()


def demo_pairs() -> list[str]:
    found = metrics("pairs")
    dropped = found["dropped_by"]
    return [
        f"{found['kept']} of {found['kept'] + found['dropped']} revisions became pairs",
        f"{dropped['chosen_truncated']} were cut at the token limit",
        f"{dropped['longer']} were far longer than the answer, {dropped['copied']} copied what they were shown",
        f"{dropped['rejected_truncated']} had an answer that was cut, and {dropped['meta_talk']} spoke",
    ]


def demo_jailbreaks() -> list[str]:
    found = metrics("eval")["jailbreaks"]["success"]
    assert all(found[arm]["mean"] == 1 for arm in ("base", "tuned"))
    return [f"Of the demo's {found['n']} wrapped attempts the default model refused none"]


def demo_over_refusal() -> list[str]:
    found = metrics("eval")["over_refusal"]
    for measure, wanted in {"refused_safe": 0, "complied_unsafe": 1}.items():
        assert all(found[measure][arm]["mean"] == wanted for arm in ("base", "prompted", "tuned"))
    return [
        f"refused none of the {found['refused_safe']['n']} safe prompts and none of the "
        f"{found['complied_unsafe']['n']} unsafe ones"
    ]


def _generation(file: str, best: str) -> Iterator[list[str]]:
    for name, found in of(file)["contenders"].items():
        error = found["standard_error"]
        seconds = f"{found['whole_work_seconds']:,.0f}" + (f" ± {error:,.0f}" if error else "")
        ours = name == "ours"
        yield [
            "**ours**" if ours else f"{name} (best)" if name == best else name,
            f"{found['completions_done']:,}",
            f"**{seconds}**" if ours else seconds,
            f"{found['completions_per_second']:.2f}",
            f"{found['tokens_per_second']:.0f}",
            "" if found["positions"] is None else f"{found['positions']:.2f}x",
            "" if found["padding"] is None else f"{found['padding']:.0%}".replace("%", " %"),
            f"{found['same_texts']:.0%}".replace("%", " %"),
            f"{found['peak_memory_mb']:,.0f}",
            "" if ours else f"{found['ours_is_faster']:.1f}x",
        ]


def generation(name: str) -> list[str]:
    return [re.sub(r"  +", " ", row) for row in table(*_generation(name, of(name)["best_fixed"]))]


def gates() -> list[str]:
    million, less = (of("gates")["sizes"][size] for size in ("1000000", "100000"))
    return [
        f"1,000,000 synthetic pairs (judge off) took {million['cpu_seconds']:.0f} s of one core and "
        f"{million['peak_memory_mb']:,} MB at most, 100,000 took {less['cpu_seconds']:.0f} s and "
        f"{less['peak_memory_mb']} MB"
    ]


def contamination() -> list[str]:
    found = of("contamination")
    gate, before, groups = found["gate"], found["cosine_before"], found["groups"]
    return [
        f"{found['training']:,} training by {found['evaluation']:,} evaluation prompts took {gate['seconds']:.1f} s "
        f"and {gate['peak_memory_mb']} MB and found {gate['pairs']:,} pairs by the cosine",
        f"and {gate['contained']:,} more by containment",
        f"{gate['sample']['true_pairs'] * gate['sample']['recall']:.0f} of {gate['sample']['true_pairs']} in a sample",
        f"took {before['seconds']:.1f} s and {before['peak_memory_mb']} MB",
        f"took {groups['seconds']:.0f} s and {groups['peak_memory_mb']} MB",
    ]


def containment() -> list[str]:
    found = of("contamination")["recall"]["3"]
    kinds = {
        "in a text of 50 words": "in_50_words",
        "in a text of 100 words": "in_100_words",
        "in a text of 200 words": "in_200_words",
        "in a text of 400 words": "in_400_words",
        "with role play around it": "role_play",
        "in 100 words, punctuation between its words": "punctuation",
        "in 100 words, in leetspeak": "leetspeak",
        "in 100 words, one of its words replaced": "one_word_replaced",
    }
    return table(
        *(
            [name, *(f"{100 * share:.1f} %" for share in (found[kind]["cosine"], found[kind]["containment"]["0.85"]))]
            for name, kind in kinds.items()
        )
    )


def containment_text() -> list[str]:
    found = of("contamination")["recall"]["3"]
    return [f"{found['prompts']} prompts of the suites, {found['too_short']} of them too short"]


def containment_thresholds() -> list[str]:
    return table(*([length, *found["pairs"].values()] for length, found in of("contamination")["unrelated"].items()))


def containment_unrelated() -> list[str]:
    found = of("contamination")["unrelated"]["3"]
    return [f"{found['evaluation']} evaluation prompts and {found['training']:,} training prompts"]


def flips() -> list[str]:
    return table(*_flips())


def _flips() -> Iterator[list[object]]:
    layouts = list(of("flips")["layouts"].values())
    for found in [*layouts, None]:
        these = [found] if found else layouts
        moved = f"{max(each['moved'] for each in these):.1e}"
        tokens, draws = (f"{sum(each[name] for each in these):,}" for name in ("tokens", "draws"))
        flipped, apart = (sum(each[name] for each in these) for name in ("flips", "draws_apart"))
        yield [found["name"] if found else "**all**", tokens, flipped, draws, apart, moved]


def training() -> list[str]:
    ours, script, ratio = (of("training")[name] for name in ("contenders", "contenders", "ours_over_trl"))
    ours, script = ours["ours"], next(found for name, found in script.items() if name != "ours")
    labels = {
        "tokens_per_second": "tokens/s in the steps, checkpoints among them",
        "tokens_per_cpu_second": "tokens per second of processor time in the steps",
        "loop_tokens_per_second": "tokens/s in the loop, ours with an evaluation before the first step",
        "whole_tokens_per_second": "tokens/s of the whole process, ours with two evaluations and the rewards, the "
        "script's with one evaluation",
        "peak_memory_mb": "peak memory, MB",
    }
    rows = []
    for name, label in labels.items():
        form = "{:,.0f}" if name == "peak_memory_mb" else "{:.1f}"
        times = f"{ratio[name]:.2f}x"
        times = f"**{times}**" if name == "tokens_per_second" else times
        rows.append([label, form.format(ours[name]), form.format(script[name]), times])
    return table(*rows)


def training_text() -> list[str]:
    found = of("training")
    losses = {
        tuple(f"{each[name]:.4f}" for name in ("first_loss", "last_loss", "validation_loss"))
        for each in found["contenders"].values()
    }
    [(first, last, validation)] = losses
    *rounds, last_round = [f"{each:.2f}" for each in found["ours_over_trl"]["each_round"]]
    return [f"({first} → {last}; validation {validation})", f"is {', '.join(rounds)} and {last_round}"]


def labels() -> list[str]:
    found = of("scoring-float32")
    seconds, share = found["seconds"], found["share"]

    def row(name: str, score: str, verdict: str, key: str) -> list[str]:
        return [name, f"{1000 * seconds[score]:,.0f}", f"{1000 * seconds[verdict]:,.0f}", f"{share[key]:.3f}"]

    return table(
        row("one at a time", "score_alone", "verdict_alone", "alone"),
        row("all together", "score_together", "verdict_together", "together"),
        row("in use", "score_together", "verdict_alone", "in use"),
    )


def labels_text() -> list[str]:
    found = of("scoring-float32")
    return [f"{found['questions']} of 128 verdicts", f"{found['alone']} questions one at a time"]


def labels_without_avx512() -> list[str]:
    found = of("scoring-float32-no-avx512")
    share = found["share"]
    return [
        f"{share['alone']:.3f} alone, {share['together']:.3f} all together, {share['in use']:.3f} in use",
        f"Only {found['questions']} of the 16 verdicts",
    ]


def goals() -> list[str]:
    one, half = of("generation-float32"), of("generation-bfloat16")
    labels = of("scoring-float32")["share"]

    def cell(value: float, asked: float, form: str, most: bool = False) -> str:
        text = f"{100 * value:.0f} %" if form == "%" else form.format(value)
        return text if (value <= asked if most else value >= asked) else f"**{text}: missed**"

    def share(name: str) -> list[float]:
        return [found["summary"][name] for found in (one, half)]

    def row(label: str, asked: str, name: str, wanted: Sequence[float], form: str, most: bool = False) -> list[str]:
        return [label, asked, *(cell(value, w, form, most) for value, w in zip(share(name), wanted, strict=True))]

    return table(
        row("over one prompt at a time", "10x (float32), 12x (bfloat16)", "ours_over_naive", (10, 12), "{:.1f}x"),
        row("over unsorted batches of 8", "2.5x", "ours_over_fixed-8", (2.5, 2.5), "{:.1f}x"),
        row("over the best fixed batch size", "1.8x", "ours_over_best_fixed", (1.8, 1.8), "{:.1f}x"),
        row("share of the machine's limit", "60 %", "share_of_the_limit", (0.6, 0.6), "%"),
        row(
            "peak memory over the best fixed batch's",
            "at most 1.3x",
            "memory_over_best_fixed",
            (1.3, 1.3),
            "{:.2f}x",
            True,
        ),
        [
            "a label's score over a verdict of 64 tokens",
            "at most 0.1",
            f"**{labels['alone']:.2f} alone: missed**; {labels['in use']:.2f} in use",
            "not measured",
        ],
        ["flips per million tokens", "0", f"[0 in {_draws()} million draws](#flips)", "not promised"],
    )


def _draws() -> str:
    layouts = of("flips")["layouts"].values()
    assert not any(each["flips"] or each["draws_apart"] for each in layouts)
    return f"{sum(each['draws'] for each in layouts) / 1e6:.2f}"


def flips_text() -> list[str]:
    draws = sum(each["draws"] for each in of("flips")["layouts"].values())
    return [f"0 in {_draws()} million", f"at {3 / draws * 1e6:.1f} per million (95 %)"]  # the rule of three


def limits() -> list[str]:
    one, half = of("generation-float32")["limits"], of("generation-bfloat16")["limits"]
    rows = []
    for (name, height, width, count, rate), (*_, other) in zip(
        [*one["linears"], one["head"]], [*half["linears"], half["head"]], strict=True
    ):
        shape = f"({height}, {width})" + (f" x {count}" if count > 1 else "")
        rows.append([name, shape, f"{rate / 1e9:.0f}", f"{other / 1e9:.0f}"])
    token = [
        sum(h * w * n for _, h, w, n, _ in each) / sum(h * w * n / rate for _, h, w, n, rate in each)
        for each in ([*one["linears"], one["head"]], [*half["linears"], half["head"]])
    ]
    memory = [f"{each['read'] / 1e9:.0f}, {each['copy'] / 1e9:.0f}" for each in (one, half)]
    written = table(*rows, ["**a whole token**", "", *(f"{rate / 1e9:.0f}" for rate in token)])
    return [re.sub(r"  +", " ", row) for row in [*written, *table(["memory: read, copy (GB/s)", "", *memory])]]


def least() -> list[str]:
    one, half = of("generation-float32")["least"], of("generation-bfloat16")["least"]

    def row(label: str, a: dict[str, float], b: dict[str, float], form: str = "{:,.0f}") -> list[str]:
        seconds = [form.format(each["seconds"]) for each in (a, b)]
        size = [
            f"{each['bytes'] / 1e9:,.0f}" if each["bytes"] >= 1e10 else f"{each['bytes'] / 1e9:.1f}" for each in (a, b)
        ]
        return [label, f"{a['flops'] / 1e12:.1f}", size[0], seconds[0], size[1], seconds[1]]

    phases = ("prefill matmul", "prefill attention", "decode matmul", "decode attention")
    labels = ("prefill, matmuls", "prefill, attention", "decode, matmuls", "decode, attention")
    rows = [
        row(label, one["phases"][phase], half["phases"][phase]) for phase, label in zip(phases, labels, strict=True)
    ]
    return table(*rows, row("all", one, half, "**{:,.0f}**"))


def least_text() -> list[str]:
    one, half = of("generation-float32"), of("generation-bfloat16")
    took = [f"{each['contenders']['ours']['whole_work_seconds']:.0f} s" for each in (one, half)]
    shares = [f"**{100 * each['summary']['share_of_the_limit']:.0f} %**" for each in (one, half)]
    assert one["least"]["overlapped"] == one["least"]["seconds"]
    return [
        f"Ours took {took[0]} and {took[1]}: {shares[0]} and {shares[1]} of the limit",
        f"in bfloat16 it is {half['least']['overlapped']:.0f} s",
    ]


def slow_machine() -> list[str]:
    rows = list(_generation("generation-float32-no-avx512-48", "fixed-16"))
    rows[0][-1] = f"({rows[0][-1]})"  # of three completions
    done, seconds, rate = _naive_again()
    again = ["naive, again", str(done), f"{seconds:,.0f}", f"{rate:.2f}", *[""] * 5, f"**{_times_naive():.1f}x**"]
    return [re.sub(r"  +", " ", row) for row in table(again, *rows)]


def _naive_again() -> tuple[int, float, float]:
    """Completions of the longer sample, seconds for the whole work by them, completions a second."""
    stages = of("generation-float32-no-avx512-48")["work"]["stages"]
    batches = of("generation-float32-no-avx512-48-naive")["batches"]
    total = 0.0
    for name, stage in stages.items():
        took = [batch["seconds"] for batch in batches if batch["stage"] == name]
        total += stage["completions"] * sum(took) / len(took)
    return len(batches), total, sum(stage["completions"] for stage in stages.values()) / total


def _times_naive() -> float:
    """How many times as fast as one prompt at a time, by the longer sample."""
    return _naive_again()[1] / float(of("generation-float32-no-avx512-48")["contenders"]["ours"]["whole_work_seconds"])


def slow_machine_text() -> list[str]:
    found = of("generation-float32-no-avx512-48")
    done, seconds, _ = _naive_again()
    rates = [(h * w * n, rate) for _, h, w, n, rate in [*found["limits"]["linears"], found["limits"]["head"]]]
    peak = sum(size for size, _ in rates) / sum(size / rate for size, rate in rates)
    return [
        f"{done} of them",
        f"give {seconds:,.0f} s, and {_times_naive():.1f}x is what counts",
        f"is {found['summary']['least_seconds']:.0f} s at this machine's peaks ({peak / 1e9:.0f} GFLOP/s)",
        f"ours reaches {100 * found['summary']['share_of_the_limit']:.0f} % of the limit, and 60 % is missed",
        f"Memory is {found['summary']['memory_over_best_fixed']:.2f}x",
    ]


def how_fast() -> list[str]:
    found = of("generation-float32-no-avx512-48")
    completions = sum(stage["completions"] for stage in found["work"]["stages"].values())
    return [
        f"{found['work']['prompts']} AILuminate prompts with four principles are {completions} completions",
        f"writes them in {found['contenders']['ours']['whole_work_seconds']:.0f} s: {_times_naive():.1f} times as fast "
        f"as one prompt at a time, {found['summary']['ours_over_best_fixed']:.1f} times as fast as the best fixed",
        f"with {found['summary']['memory_over_best_fixed']:.2f} times that batch's memory, and "
        f"{100 * found['summary']['share_of_the_limit']:.0f} % of what",
    ]


def how_fast_before() -> list[str]:
    one, half = (of(name)["summary"] for name in ("generation-float32", "generation-bfloat16"))
    return [
        f"{one['ours_over_naive']:.1f} times as fast as one prompt at a time",
        f"and {100 * one['share_of_the_limit']:.0f} % of the limit in float32",
        f"{half['ours_over_naive']:.1f} times and {100 * half['share_of_the_limit']:.0f} % in bfloat16",
    ]


def how_fast_besides() -> list[str]:
    ratio = of("training")["ours_over_trl"]
    return [
        f"no flip in {_draws()} million draws",
        f"{ratio['tokens_per_second']:.1f} times as fast a step as",
        f"with {ratio['peak_memory_mb']:.2f} times the memory",
    ]


HELD: dict[str, Callable[[], list[str]]] = {
    "behind": behind,
    "containment": containment,
    "containment-text": containment_text,
    "containment-thresholds": containment_thresholds,
    "containment-unrelated": containment_unrelated,
    "contamination": contamination,
    "coverage": coverage,
    "demo-jailbreaks": demo_jailbreaks,
    "demo-over-refusal": demo_over_refusal,
    "demo-pairs": demo_pairs,
    "demo-summary": demo_summary,
    "flips": flips,
    "flips-text": flips_text,
    "gates": gates,
    "generation-bfloat16": lambda: generation("generation-bfloat16"),
    "generation-float32": lambda: generation("generation-float32"),
    "goals": goals,
    "how-fast": how_fast,
    "how-fast-before": how_fast_before,
    "how-fast-besides": how_fast_besides,
    "judge-errors": judge_errors,
    "kappa": kappa,
    "kappa-in-short": kappa_in_short,
    "labels": labels,
    "labels-no-avx512": labels_without_avx512,
    "labels-text": labels_text,
    "least": least,
    "least-text": least_text,
    "limits": limits,
    "no-avx512": slow_machine,
    "no-avx512-text": slow_machine_text,
    "partial-refusals": partial_refusals,
    "ratings": ratings,
    "training": training,
    "training-text": training_text,
}


@pytest.mark.parametrize("name", HELD)
def test_published_figure_is_that_of_its_file(name: str) -> None:
    found = [block for block in BLOCKS if (block.kind, block.name) == ("results", name)]
    assert found, f"no <!-- results: {name} --> in the docs"
    wanted = HELD[name]()
    for block in found:
        if block.lines[0].startswith("|"):
            assert block.lines[2:] == wanted
        elif block.lines[0].startswith("```"):
            _same_but_for_gaps(block.lines[1:], wanted)
        else:
            text = " ".join(" ".join(block.lines).split())
            for piece in wanted:
                assert piece in text
                text = text.replace(piece, "")
            assert not FIGURE.findall(re.sub(r"\[[^]]*\]\([^)]*\)", "", text)), "a figure that nothing holds"


def _same_but_for_gaps(shown: list[str], wanted: list[str]) -> None:
    """Lines as they are, but `…` stands for some that are left out."""
    at = 0
    gap = False
    for line in shown:
        if line == "…":
            gap = True
        else:
            found = wanted.index(line, at) if gap else at
            assert wanted[found] == line
            at, gap = found + 1, False
    assert at == len(wanted) or gap


def test_every_mark_is_held() -> None:
    assert {block.name for block in BLOCKS if block.kind == "results"} == set(HELD)


@pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)
def test_table_of_numbers_has_a_mark(doc: Path) -> None:
    """Columns of numbers are set right (`--:`) here."""
    lines = doc.read_text(encoding="utf-8").splitlines()
    heads = [number for number, line in enumerate(lines) if re.fullmatch(r"\|[-:| ]+\|", line) and "--:" in line]
    assert [lines[number - 1] for number in heads if not MARK.fullmatch(lines[number - 2])] == []


def test_every_result_says_where_it_is_from() -> None:
    for path in ROOT.glob("bench/results/*.json"):
        assert set(read_json(path)) >= ABOUT, path
    for path in ROOT.glob("results/*.json"):
        assert set(read_json(path)) >= ABOUT | {"machine", "commit", "params", "seed", "metrics"}, path
