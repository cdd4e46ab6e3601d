"""The report: what it says, that nothing in it can run or be cut off, and that it shows any suite."""

from __future__ import annotations

import argparse
import html.parser
import os
import random
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.evaluation import ACCURACY, FAILED, PASSED, arms
from helpers.project import Built

from ccai.base import files, params
from ccai.base.errors import UserError
from ccai.base.eval_params import Primary
from ccai.base.records import Answer, Prompt
from ccai.cli.report import main
from ccai.evaluate import run
from ccai.evaluate.comparison import Comparison, registered
from ccai.evaluate.suites.suite import Suite
from ccai.judge.exam import Exam, Mark
from ccai.report import charts, run_files, suites
from ccai.report import page as report
from ccai.report.suites import MOST
from ccai.rules.scores import FAMILIES

ROOT = Path(__file__).parents[1]
ARMS = ("base", "prompted", "tuned", "org/a-model-with-a-long-name")
HAZARDS = ("spc_hlt", "dfm", "benign", "own <b>hazard</b>" + "x" * 3000)
PRINCIPLES = ("mindfulness", "emptiness", "p" * 3000)
NASTY = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>{{ 7 * 7 }}</details>"
    "<style>* { display: none }</style>\u2028next\x00\x1b[31m\u202e trick http://example.org/i.png &lt;p&gt;"
)
METRICS = Path("metrics/eval.json")
PRIMARY = Primary(safety="heldout.judge.harmful", helpfulness="heldout.refusal.harmless_refused", bound=0.1)


def prompts(count: int, text: str = "") -> list[Prompt]:
    return [
        Prompt(
            prompt_id=f"{number:016x}",
            text=f"Question {number}? {NASTY if number == 1 else text}",
            source="own",
            source_id=str(number),
            hazard=HAZARDS[number % 4],
            persona="skilled",
            principle=PRINCIPLES[number % 3],
            split="eval",
        )
        for number in range(count)
    ]


def answers(asked: Sequence[Prompt], arm: str, text: str = "") -> list[Answer]:
    luck = random.Random(arm)
    return [
        Answer(
            text=f"{arm} says {place}. {NASTY if place == 1 else text}",
            finish_reason=luck.choice(["stop", "length"]),
            prompt_tokens=9,
            completion_tokens=luck.randint(9, 99),
            conversation="c",
            model="m",
            unverified_weights=False,
            seed=1,
            prompt_id=prompt.prompt_id,
            arm=arm,
            hazard=prompt.hazard,
            refusal=luck.choice(["full_refusal", "partial_refusal", "full_compliance"]),
            scores={name: luck.random() for names in FAMILIES.values() for name in names},
            harmful=luck.choice([None, 0.1, 0.9]),
        )
        for place, prompt in enumerate(asked)
    ]


def measure(answered: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """What the suites measure of answers in the current folder, of which those to held-out prompts are given; and a
    suite that there is not, with other shapes."""
    settings = params.load()
    suites = [kind(settings) for kind in run.SUITES if Path(f"data/eval/{kind.name}").exists()]
    everything: run.Answers = {suite.name: {arm: read(suite, arm) for arm in ARMS} for suite in suites}
    everything["heldout"] = {arm: list(given) for arm, given in answered.items()}
    costs = {name: {"seconds": 0.0} for name in everything}
    found = run.measure(settings, suites, everything, {"helpful": ACCURACY}, costs)
    comparison = Comparison(1, 200)
    keys = [answer.prompt_id for answer in answered["base"]]
    refused = {arm: [float(one.refusal != "full_compliance") for one in given] for arm, given in answered.items()}
    nothing = comparison.measure({arm: [] for arm in ARMS}, [])
    found["weather_of_mars"] = {
        "deep": {"er": {"dust_storms": comparison.measure(refused, keys, yes_no=True)}},
        "empty": nothing,
        "unheard": comparison.measure({arm: [None] * len(keys) for arm in ARMS}, keys),
        "by_hazard": {"refused": {"nowhere": nothing}},
        "station": "north",
        "odd": None,
    }
    comparison.adjust()
    return found


def read(suite: Suite[Any], arm: str) -> list[Any]:
    """The toy run's answers; of an arm that it has not, those of another."""
    there = ARMS[1] if arm == ARMS[3] else arm
    given = files.read(Path(f"data/eval/{suite.name}/{there}.jsonl"), suite.record)
    return [one.model_copy(update={"arm": arm} if "arm" in one.model_fields_set else {}) for one in given]


def make(count: int, text: str = "") -> None:
    """Other held-out prompts and answers in the toy run's files in the current folder, and all measured anew."""
    asked = prompts(count, text)
    given = {arm: answers(asked, arm, text) for arm in ARMS}
    files.write(Path("data/prompts/eval.jsonl"), asked)
    measured = measure(given)
    for arm in ARMS:
        files.write(Path(f"data/eval/heldout/{arm}.jsonl"), given[arm])
    metrics = files.read_json(METRICS)
    questions = {"harm": Mark(160, 160, None, 0.5, None, None), "helpful": Mark(160, 0, ACCURACY, 0.5, 0.95, 0.1)}
    exam = Exam("judge <i>", "r1", questions, None, {})
    assert metrics.keys() >= {"arms", "registered", *(name for name in measured if name != "weather_of_mars")}
    metrics |= {"arms": list(ARMS), "registered": registered(measured, PRIMARY)}
    files.write_json(METRICS, metrics | measured | {"judge": metrics["judge"] | exam.metrics})
    Path("metrics/runtime/eval.json").touch()  # the stage writes it last


@pytest.fixture(scope="module")
def finished(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy run's files with 24 held-out prompts of every kind and a fourth arm."""
    folder = tmp_path_factory.mktemp("report") / "run"
    no_pages = shutil.ignore_patterns(".gitignore", "*.html")
    for name in ("conf", "data", "metrics"):
        shutil.copytree(built.project.folder / name, folder / name, ignore=no_pages)
    for name in ("params.yaml", "dvc.lock"):
        shutil.copy(built.project.folder / name, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make(24)
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run; the current one."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Outline(html.parser.HTMLParser):
    """Tags and headings of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "srcset", "data"):
                self.addresses.append(value or "")


def test_others_text_is_text_and_headings_are_in_order(project: Path) -> None:
    report.write(run_files.here())
    text = report.PAGE.read_bytes().decode()
    outline = Outline(text)
    assert outline.tags.count("script") == outline.tags.count("style") == 1
    assert not {"img", "iframe", "object", "embed", "base"} & set(outline.tags)
    assert all(address.startswith(("#", "data:,")) for address in outline.addresses)
    assert len(set(outline.ids)) == len(outline.ids)
    assert "{{ 7 * 7 }}" in text and "&lt;script&gt;window.hacked" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", text)
    levels = [int(tag[1]) for tag in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_any_suite_is_shown_to_its_last_measure(project: Path) -> None:
    report.write(run_files.here())
    text = report.PAGE.read_text()
    pairwise = files.read_json(METRICS)["helpfulness"]["pairwise"]["tuned"]
    outcomes = " / ".join(str(pairwise[outcome]) for outcome in ("wins", "ties", "losses"))
    for said in (
        *("Jailbreaks", "Weather of mars", "Deep › er", "dust storms", "success › none › plain", "thin cells"),
        *("for want of such items: empty", "for want of such items: refused › nowhere", "north", "joint reward"),
        *("pairwise against the base", outcomes, "all 24", "judge &lt;i&gt;", "md5 ", "defamation"),
    ):
        assert said.lower() in text.lower(), said


def test_heat_map_has_each_arms_own_answers(project: Path) -> None:
    """Mean and n of each cell, as counted by hand from the answers' files."""
    report.write(run_files.here())
    text = report.PAGE.read_text()
    asked = {prompt.prompt_id: prompt for prompt in files.read(Path("data/prompts/eval.jsonl"), Prompt)}
    found = {
        (score, arm): [
            None if "–" in cell else tuple(float(part) for part in re.findall(r"[\d.]+(?=<)", cell))
            for cell in re.findall(r"<td .*?</td>|<td>.*?</td>", rest.partition("</table>")[0].partition("<tbody>")[2])
        ]
        for score, arm, rest in re.findall(r'data-score="(\w+)" data-arm="([^"]+)">(.*?</table>)', text, re.DOTALL)
    }
    assert {arm for _, arm in found} == set(ARMS)
    for (score, arm), cells in found.items():
        given = files.read(Path(f"data/eval/heldout/{arm}.jsonl"), Answer)
        values: dict[tuple[str, str], list[float]] = {}
        for answer in given:
            prompt = asked[answer.prompt_id]
            value = answer.refusal != "full_compliance" if score == "refused" else answer.scores[score]
            values.setdefault((prompt.hazard, prompt.principle), []).append(float(value))
        expected = sorted((float(charts.number(sum(some) / len(some))), len(some)) for some in values.values())
        assert sorted(cell for cell in cells if cell) == expected, (score, arm)


def test_every_arms_own_answers_and_shares_are_shown(project: Path) -> None:
    report.write(run_files.here())
    text = report.PAGE.read_text()
    for arm in ARMS:
        assert all(f"{arm} says {place}." in text for place in range(24))
    measured = files.read_json(Path("metrics/eval.json"))
    for harmless, hazardous in (
        [measured["heldout"]["refusal"][name] for name in ("harmless_refused", "hazardous_refused")],
        [measured["over_refusal"][name] for name in ("refused_safe", "complied_unsafe")],
    ):
        for arm in ARMS:
            unsafe = hazardous is measured["over_refusal"]["complied_unsafe"]
            y = 1 - hazardous[arm]["mean"] if unsafe else hazardous[arm]["mean"]
            assert f"{charts.number(harmless[arm]['mean'])} and {charts.number(y)}" in text, arm


def test_each_arm_is_shown_by_its_own_values(project: Path) -> None:
    """In the heat map, in the plots and in the tables."""
    report.write(run_files.here())
    text = report.PAGE.read_text()
    measured = files.read_json(Path("metrics/eval.json"))["heldout"]["refusal"]["hazardous_refused"]
    shares, means = {}, {}
    for arm in ARMS:
        given = files.read(Path(f"data/eval/heldout/{arm}.jsonl"), Answer)
        shares[arm] = sum(answer.refusal != "full_compliance" for answer in given) / len(given)
        [heat] = re.findall(rf'<table class="heat" data-score="refused" data-arm="{arm}">(.*?)</table>', text, re.S)
        cells = [(float(mean), int(n)) for mean, n in re.findall(r'--share:([\d.]+)".*?<small>(\d+)', heat)]
        assert sum(n for _, n in cells) == len(given)
        assert sum(mean * n for mean, n in cells) / len(given) == pytest.approx(shares[arm], abs=0.001)
        means[arm] = charts.number(measured[arm]["mean"])
    assert len(set(shares.values())) > 1 and len(set(means.values())) > 1
    suite = text[text.index('id="suite-heldout"') :]
    rows = re.findall(
        r'hazardous refused</th><td data-of="arm">(.*?)</td>.*?<td data-of="mean"><span>(\S+)', suite, re.S
    )
    assert dict(rows[: len(ARMS)]) == means
    [plot] = re.findall(r"<figcaption>Means</figcaption>(.*?)</svg>", suite, re.S)[:1]
    words = re.findall(r"<text[^>]*>(.*?)</text>", plot)
    at = words.index("hazardous refused")
    assert words[at + 2 : at + 2 + 2 * len(ARMS) : 2] == [arm if len(arm) < 13 else f"{arm[:11]}…" for arm in ARMS]
    assert words[at + 3 : at + 3 + 2 * len(ARMS) : 2] == list(means.values())


def test_unreadable_is_not_called_absent(project: Path) -> None:
    report.write(run_files.here())
    told = " ".join(report.PAGE.read_text().split())
    assert "nothing could be read for every arm (in brackets: of how many): unheard (24)" in told


def test_same_results_same_bytes_whatever_they_took(project: Path, unjudged: Built) -> None:
    report.write(run_files.here())
    first, timed = report.PAGE.read_bytes(), report.TIMED.read_bytes()
    shutil.copy(unjudged.project.folder / "metrics/runtime/eval.json", "metrics/runtime/eval.json")
    report.write(run_files.here())
    assert report.PAGE.read_bytes() == first
    assert report.TIMED.read_bytes() != timed
    assert report.TIMED.read_bytes().split(b'<section id="time">')[0] == timed.split(b'<section id="time">')[0]


def test_a_thousand_prompts_are_sampled_and_the_page_says_so(project: Path) -> None:
    make(1000, text="word " * 300)
    report.write(run_files.here())
    text = report.PAGE.read_text()
    assert f"A sample of {MOST} of 1000 prompts" in " ".join(text.split())
    assert text.count('class="example"') == MOST
    assert report.PAGE.stat().st_size < 5e6


def test_a_sample_is_even_whatever_the_order() -> None:
    many = prompts(120)
    rare = many[:60] + [prompt for prompt in many[60:] if prompt.hazard != "dfm"]
    taken = report.sample(rare, 48)
    shuffled = random.Random(3).sample(rare, len(rare))
    assert report.sample(shuffled, 48) == taken
    cells = [(prompt.hazard, prompt.principle) for prompt in taken]
    assert {cells.count(cell) for cell in set(cells)} == {4} and len(set(cells)) == 12
    assert {prompt.prompt_id for prompt in report.sample(many, 1000)} == {prompt.prompt_id for prompt in many}


@pytest.mark.parametrize(
    ("harmful", "one_prompt", "judge", "verdict", "said"),
    [
        ((14, 2), False, PASSED, "met", ["Safer than the base", "better side of no change"]),
        ((2, 14), False, PASSED, "not met", ["Less safe than the base", "worse side of no change"]),
        ((10, 8), False, PASSED, "can't tell", ["can&#39;t tell whether the tuned model is safer", "holds no change"]),
        ((24, 0), True, PASSED, "can't tell", ["Too few prompts differ"]),
        ((14, 2), False, FAILED, "can't tell", ["No judge that passed its exam read the answers"]),
    ],
)
def test_the_verdict_is_said_in_words(
    project: Path, harmful: tuple[int, int], one_prompt: bool, judge: Exam, verdict: str, said: list[str]
) -> None:
    same = {"prompt_id": "p"} if one_prompt else {}
    base, tuned = (
        [{"hazard": "dfm", "harmful": 0.9 if at < count else 0.1} | same for at in range(24)] for count in harmful
    )
    found = registered({"heldout": arms(base, tuned, judge=judge)}, PRIMARY)
    assert found["safety"]["verdict"] == verdict
    files.write_json(METRICS, files.read_json(METRICS) | {"registered": found})
    report.write(run_files.here())
    text = report.PAGE.read_text()
    assert "were named in params.yaml before the" in text
    for words in said:
        assert words in text


def test_nothing_registered_is_said(project: Path) -> None:
    found = registered(files.read_json(METRICS), None)
    files.write_json(METRICS, files.read_json(METRICS) | {"registered": found})
    report.write(run_files.here())
    text = " ".join(report.PAGE.read_text().split())
    verdict = text[text.index('<section id="verdict">') :].partition("</section>")[0]
    assert "No metric was registered before this run" in verdict
    assert "No judge that passed its exam was registered to read the answers (eval.primary is null)." in verdict
    assert verdict.count("Can&#39;t tell</p>") == 2
    assert "None" not in verdict and "is better" not in verdict and "<svg" not in verdict


@pytest.mark.parametrize(
    ("metric", "limit"), [("heldout.refusal.harmless_refused", "+0.1"), ("helpfulness.win_rate", "-0.1")]
)
def test_the_accepted_loss_is_on_the_worse_side(project: Path, metric: str, limit: str) -> None:
    """Half of 24 prompts refused, or won, by either arm, and not the same: less than the loss, or more."""
    values = {"base": [0.0, 1.0] * 12, "tuned": [1.0, 0.0] * 6 + [0.0, 1.0] * 6}
    *names, last = metric.split(".")
    measured: dict[str, Any] = {last: Comparison(7, 200).measure(values, [str(at) for at in range(24)], yes_no=True)}
    for name in reversed(names):
        measured = {name: measured}
    found = registered(measured, PRIMARY.model_copy(update={"helpfulness": metric}))
    files.write_json(METRICS, files.read_json(METRICS) | {"registered": found})
    report.write(run_files.here())
    text = report.PAGE.read_text()
    helpfulness = text[text.index("<h3>Helpfulness</h3>") :].partition("</article>")[0]
    assert f"The interval holds a change of {limit}." in helpfulness
    assert suites.limit(found["helpfulness"]) == float(limit), "the dashed line in the chart"
    assert "<svg" in helpfulness


def test_what_is_not_here_is_said(project: Path, finished: Path) -> None:
    for path in ("dvc.lock", "metrics/runtime", "data/eval/heldout/tuned.jsonl"):
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    report.write(run_files.here())
    text = report.TIMED.read_text()
    for said in ("tuned.jsonl is neither here nor in the cache", "no dvc.lock here", "No record of time and cost"):
        assert said in text
    assert 'class="heat"' not in text and 'class="example"' not in text
    Path("data/eval/heldout/tuned.jsonl").write_text('{"old": 1}\n')
    report.write(run_files.here())
    assert "tuned.jsonl:1: " in report.TIMED.read_text()
    for key in ("registered", "arms"):
        metrics = files.read_json(METRICS)
        del metrics[key]
        files.write_json(METRICS, metrics)
        with pytest.raises(UserError, match=key):
            report.write(run_files.here())
        shutil.copy(finished / METRICS, METRICS)


def test_metrics_that_git_put_here_are_said_to_be_gits(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the page that belongs to DVC stays as it is."""
    Path(".gitignore").write_text("/metrics/runtime/\n/metrics/*.html\n/data/\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for line in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "<b>one</b>")):
        subprocess.run(["git", *line], check=True)
    assert run_files.origin() == ""
    subprocess.run(["git", "clone", "-q", ".", "clone"], check=True)
    os.chdir("clone")
    assert run_files.origin().startswith("from git, commit ")
    report.write_at_hand()
    assert capsys.readouterr().out == f"{report.TIMED}\n"
    assert "no run in this folder wrote it" in report.TIMED.read_text() and not report.PAGE.exists()
    Path("metrics/eval.json").write_text(Path("metrics/eval.json").read_text() + "\n")
    assert run_files.origin() == "", "a changed file is not git's"


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(0.004, True, "0.00"), (-0.004, True, "0.00"), (-0.5, False, "−0.50"), (49.71, True, "+49.7"), (None, True, "–")],
)
def test_numbers_as_they_are_read(value: float | None, signed: bool, text: str) -> None:
    assert charts.number(value, signed=signed) == text


# Two runs


def test_two_revisions_side_by_side(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dvc.repo import Repo

    def call(*line: str) -> None:
        subprocess.run(line, check=True, capture_output=True)

    def commit(text: str) -> None:
        call("git", "add", "--all")
        call("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", text)

    Path(".gitignore").write_text("/metrics/runtime/\n")
    call("git", "init", "--quiet", "--initial-branch=main")
    with Repo.init() as repo:
        repo.add(["data/eval", "data/prompts/eval.jsonl"])
    commit("one")
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("seed: 7", "seed: 8"))
    commit("two")
    main(argparse.Namespace(revisions=["main~1", "main"]))
    assert capsys.readouterr().out.endswith("metrics/compare.html\n")
    text = report.COMPARED.read_text()
    assert "tuned, A" in text and "tuned, B" in text and text.count('class="example"') == 24
    assert re.search(r"<code>seed</code></th><td data-of=\"A\">7</td><td data-of=\"B\">8</td>", text)
    shutil.rmtree(".dvc/cache")  # what lies in the working tree is of no revision
    report_of = report.comparison(run_files.at("main~1"), run_files.at("main"))
    assert "No answers of main~1: data/prompts/eval.jsonl is neither here" in report_of
    with pytest.raises(UserError, match=r"^nosuch: no such revision .*; name a commit"):
        run_files.at("nosuch")


# In Chromium


class Tab:
    """The report in a browser, and what it asked for and complained of."""

    def __init__(self, browser: Any, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(report.PAGE.resolve().as_uri())


CUT_OFF = """() => {
    const wide = document.documentElement.clientWidth, cut = [];
    for (const element of document.querySelectorAll("main *")) {
        const head = element.closest("thead");
        const unseen = head && getComputedStyle(head).position === "absolute";  // read out, but not shown on a phone
        if (!element.getClientRects().length || unseen) continue;
        const box = element.getBoundingClientRect();
        const frame = element.closest("svg")?.getBoundingClientRect();
        const right = frame ? frame.right : wide, left = frame ? frame.left : 0;
        if ((element.tagName === "text" || !frame) && (box.right > right + 3 || box.left < left - 3))
            cut.push(`${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
        if (!frame && element.scrollWidth > element.clientWidth + 3 && getComputedStyle(element).overflowX !== "visible"
            && element.clientWidth && !element.matches("select, input, .prompt"))
            cut.push(`inside ${element.tagName} ${element.textContent.trim().slice(0, 40)}`);
    }
    return cut;
}"""
EMPTY = """() => [...document.querySelectorAll("section, figure, table, article, details, dl, ul")]
    .filter(one => one.textContent.trim().length < 3).map(one => one.outerHTML.slice(0, 99))"""


def test_nothing_is_cut_off_empty_or_fetched(project: Path, chromium: Any) -> None:
    report.write(run_files.here())
    for width, scheme in ((375, "light"), (375, "dark"), (768, "light"), (1280, "light"), (1280, "dark")):
        tab = Tab(chromium, viewport={"width": width, "height": 800}, color_scheme=scheme)
        for opened in (False, True):
            if opened:
                tab.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert tab.page.evaluate("document.documentElement.scrollWidth") == width
            assert tab.page.evaluate(CUT_OFF) == [], (width, scheme, opened)
        assert tab.page.evaluate(EMPTY) == []
        dark = tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 22, 23)"
        assert dark == (scheme == "dark")
        assert tab.page.evaluate("window.hacked") is None
        assert tab.asked == [report.PAGE.resolve().as_uri()]
        assert tab.complaints == []
        tab.context.close()


def test_filters_and_search(project: Path, chromium: Any) -> None:
    report.write(run_files.here())
    tab = Tab(chromium)
    page, shown = tab.page, lambda: tab.page.locator(".example:visible").count()
    assert shown() == 24 and page.locator("#count").inner_text() == "24 of 24 shown"
    page.locator("#hazard").select_option("dfm")
    assert shown() == 6
    page.locator("#principle").select_option("emptiness")
    assert shown() == 2
    page.locator("#hazard").select_option("")
    page.locator("#principle").select_option("")
    page.locator("#search").fill("PROMPTED says 13.")
    assert shown() == 1 and "Question 13?" in page.locator(".example:visible").inner_text()
    page.locator("#search").fill("nobody wrote this")
    assert shown() == 0 and page.get_by_text("No answer is like that.").is_visible()
    page.locator("#search").fill("")
    given = files.read(Path("data/eval/heldout/tuned.jsonl"), Answer)
    page.locator("#mark").select_option(label="tuned refuses in part")
    assert shown() == sum(answer.refusal == "partial_refusal" for answer in given)
    page.locator("#mark").select_option(label="tuned judged harmful")
    assert shown() == sum(answer.harmful == 0.9 for answer in given)
    page.locator("#verdict ~ section summary >> nth=0").focus()
    page.keyboard.press("Enter")  # summaries open by keyboard
    page.locator("#heat-arm").select_option("base")
    page.locator("#heat-score").select_option("care")
    assert page.locator("table.heat:visible caption").all_inner_texts() == ["Care, base"]
    assert tab.complaints == []
    tab.context.close()


def test_without_scripts_and_on_paper_all_is_there(project: Path, chromium: Any) -> None:
    report.write(run_files.here())
    tab = Tab(chromium, java_script_enabled=False)
    assert tab.page.locator(".example:visible").count() == 24
    assert tab.page.locator("table.heat:visible").count() == 5 * len(ARMS)
    assert tab.page.locator("form:visible").count() == 0
    tab.page.emulate_media(media="print")
    assert tab.page.locator("nav:visible").count() == 0
    assert tab.page.pdf().startswith(b"%PDF")
    tab.context.close()
