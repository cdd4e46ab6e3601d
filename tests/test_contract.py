"""The product as shipped, small: every command that README, docs and data show is run on the toy run, as shown.

A command that is shown and not run here fails `test_every_command_that_is_shown_is_run`, as does one that is run here
or excepted and shown no more.
"""

from __future__ import annotations

import ast
import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import ROOT
from helpers.project import ARMS, SUITES, Built, Project
from transformers import AutoModelForCausalLM, AutoTokenizer

from ccai.base.errors import UserError
from ccai.evaluate import comparison
from ccai.publish import export
from ccai.report import samples, trace

PAGES = [ROOT / "README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]

PROGRAMS = (
    "ccai",
    "python",
    "dvc",
    "make",
    "pip",
    "vllm",
    "transformers",
    "llama-server",
    "ollama",
    "text-generation-launcher",
    "truncate",
)

CONSTITUTION = "data/constitutions/contemplative.md"

# What is shown


def commands(page: str) -> set[str]:
    """The commands of a page: lines of its code blocks without a language or in bash, and what stands in backticks."""
    found = list[str]()
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        if language in ("", "bash"):
            found += block.splitlines()
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    found += [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", prose) if " " in text]
    return {command for line in found for command in split(line)}


def split(line: str) -> list[str]:
    """The commands of a line, without prompt, comment, variables and what is piped on."""
    line = re.sub(r"\s+#.*", "", line.strip().removeprefix("$ "))
    parts = [re.sub(r"^(exec |[A-Z_]+=\S+ )+", "", part.strip()) for part in re.split(r"&&|\|", line)]
    return [" ".join(part.split()) for part in parts if part.partition(" ")[0] in PROGRAMS and " " in part]


SHOWN = {command for page in PAGES for command in commands(page.read_text(encoding="utf-8"))}

# What is not run here, and why

EXCEPT = {
    "make test": "this is it",
    "make check-slow": "hours",
    "pip install -r requirements-review.txt": "the network",
    "pip install -r requirements-inspect.txt": "the network",
    'pip install "transformers[serving]"': "the network",
    "vllm serve Qwen/Qwen2.5-7B-Instruct --revision a09a354… --generation-config vllm --api-key "
    '"$VLLM_API_KEY"': "a card",
    "python -m sglang.launch_server --model-path Qwen/Qwen2.5-7B-Instruct --revision a09a354… "
    "--sampling-defaults openai": "a card",
    "text-generation-launcher --model-id Qwen/Qwen2.5-7B-Instruct --revision a09a354… --port 8000": "a card",
    'llama-server -m model.gguf --port 8000 -np 8 -c 32768 --top-k 0 --top-p 1 --min-p 0 --api-key "$LLAMA_KEY"': (
        "another project's program"
    ),
    "ollama serve": "another project's program",
    "vllm serve BASE --enable-lora --lora-modules tuned=models/adapter --max-lora-rank R": "a card",
    "dvc metrics show metrics/review.json": "verdicts of people; written in test_review",
    "transformers serve FOLDER --host 127.0.0.1 --port 8000 --dtype float32": "served in test_serve",
    "transformers serve OUT": "served in test_export",
    "transformers chat OUT http://127.0.0.1:8000/v1 do_sample=False": "asked in test_export",
    "ccai push adapter OWNER/NAME": "an account; pushed to a hub on loopback in test_hub",
    "ccai push pairs OWNER/NAME": "an account; pushed to a hub on loopback in test_hub",
    "ccai sources fetch ailuminate": "the network; from a copy here, over HTTP in test_sources",
    "ccai sources fetch NAME": "the network; from a copy here, over HTTP in test_sources",
    **{
        f"ccai sources fetch {name}": "the network"
        for name in ("ailuminate-fr", "gsm8k", "harmfulqa", "hh-rlhf", "vicuna-bench", "xstest")
    },
    "ccai preferences hh-rlhf --list": "the network; with a file here",
    "dvc exp run -S 'prompts.sources=[ailuminate]' -S prompts.train=42 -S prompts.eval=42": "the network",
    "dvc remote modify --local storage profile NAME": "an account",
    "dvc gc -c": "shown as what not to do",
    "python -m bench.coverage": "minutes; run in test_bench",
    "python -m bench.judge_errors": "minutes; run in test_judge_errors",
    "python -m bench.gates": "the network",
    "python -m bench.contamination": "the network",
    "python -m bench.training": "minutes; run in test_bench_training",
    "python -m bench.fit_refusal": "people's labels, which are not here",
    "python -m bench.limits --dtype float32": "minutes",
    "python -m bench.scorers --xstest FILE.csv": "people's labels, which are not here",
    "python -m bench.scorers --ratings FILE.jsonl": "people's labels, which are not here",
}
EXCEPT |= {command: "hours, the network" for command in SHOWN if re.match(r"python -m bench\.\w+ .*--source", command)}


def shown(
    project: Project, command: str, codes: tuple[int, ...] = (0,), **fill: str
) -> subprocess.CompletedProcess[str]:
    """Run a command that is shown, with its placeholders filled in.

    Args:
        codes: what its exit code may be.
        fill: by placeholder, as `NAME=…`; or `_1`, `_2` … for `placeholder→value` where it is no Python name.
    """
    assert command in SHOWN, f"no page shows {command}"
    for name, value in fill.items():
        old, new = value.split("→") if name.startswith("_") else (name, value)
        assert old in command
        command = command.replace(old, new)
    done = project.call("bash", "-c", f"PYTHONPATH=. {command}")  # as if this copy were installed
    assert done.returncode in codes, f"{command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done


def status(project: Project) -> set[str]:
    """What `git status` shows."""
    return {line[3:] for line in project.git("status", "--porcelain").splitlines()}


READ = [
    "ccai show pairs -n 5",
    "ccai show pairs -n 10",
    "ccai show critiques -n 3",
    "ccai show dropped",
    "ccai show answers",
    'ccai chat "Is my neighbour a bad person?"',
    "ccai summary",
    "ccai check",
    "ccai sources list",
    "ccai use",
    "ccai journal stats",
    "ccai journal verify",
    "ccai trace metrics/eval.json:heldout.safety.declining",
    "ccai push adapter OWNER/NAME --dry-run",
    "ccai push pairs OWNER/NAME --dry-run",
    "ccai compare data/eval/heldout/base.jsonl data/eval/heldout/tuned.jsonl --key prompt_id --score scores.declining",
    "ccai runs",
    "dvc repro",
    "dvc metrics diff",
    "dvc params diff",
    "dvc exp show",
    "dvc exp show --only-changed",
    "dvc checkout",
    "dvc plots diff",
    "dvc status",
]
"""Run as they stand; they exit with 0, say something and leave `git status` clean."""


@pytest.mark.parametrize("command", READ)
def test_command_that_only_reads(built: Built, command: str) -> None:
    done = shown(built.project, command)
    assert done.stdout.strip() or command.startswith("dvc")
    assert status(built.project) == set()


def test_every_command_that_is_shown_is_run() -> None:
    """One that another begins with, such as the name of a module alone, is shown there."""
    run = set(READ)
    for node in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("shown", "served"):
            argument = node.args[1]
            if isinstance(argument, ast.Constant):
                run.add(argument.value)
    known = run | EXCEPT.keys()
    missing = {shown for shown in SHOWN - known if not any(other.startswith(f"{shown} ") for other in known)}
    assert missing == set()
    assert run - SHOWN == set()
    assert EXCEPT.keys() - SHOWN == set()


# Reading


@pytest.mark.parametrize("what", samples.WHAT)
def test_show_each_kind(built: Built, what: str) -> None:
    done = built.project.module("ccai", "show", what, "-n", "2")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 3


def test_trace_pairs_prompts_and_answers(built: Built) -> None:
    project = built.project
    for side in ("train", "validation", "dropped"):
        pair = project.rows(f"data/pairs/{side}.jsonl")[0]
        assert pair["principle"] in shown(project, "ccai trace PAIR_ID", PAIR_ID=pair["pair_id"]).stdout
    for side in ("train", "eval"):
        prompt = project.rows(f"data/prompts/{side}.jsonl")[0]["prompt_id"]
        shown(project, "ccai trace 3f2a", _1=f"3f2a→{prompt[:8]}")
    for arm in ARMS:
        shown(project, "ccai trace 9bc0/tuned", _1=f"9bc0/tuned→{prompt}/{arm}")


def figures(project: Project) -> list[str]:
    """A figure of each suite, of what was registered, and of training."""
    metrics = project.json("metrics/eval.json")
    names = [next(comparison.measures({suite: metrics[suite]})) for suite in SUITES]
    assert all(value["n"] for _, value in names)
    found = [f"metrics/eval.json:{'.'.join(path)}" for path, _ in names]
    found += [f"metrics/eval.json:registered.{aim}" for aim in metrics["registered"]]
    return [*found, "metrics/train.json:pairs"]


def test_trace_a_figure_of_each_suite(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, since each command would import everything anew; one of them is run above."""
    monkeypatch.chdir(built.project.folder)
    for figure in figures(built.project):
        assert trace.trace(figure)[0].text, figure


def test_plan_says_what_is_registered_and_a_bound_out_of_reach_stops_all(copied: Project) -> None:
    assert "harmless_refused, bound 0.9 on" in shown(copied, "ccai plan --power").stdout
    copied.set({"eval": {"primary": {"bound": 0.1}}})
    planned, checked = (shown(copied, command, codes=(2,)) for command in ("ccai plan --power", "ccai check"))
    for done in (planned, checked, copied.module("stages.eval")):
        assert done.returncode == 2
        assert "eval.primary.bound: 0.1 can't be met" in done.stdout + done.stderr


def test_milestone_says_fail_of_a_toy(built: Built) -> None:
    assert shown(built.project, "ccai milestone", codes=(1,)).stdout.startswith("fail")
    shown(built.project, "make milestone", codes=(2,))  # make's word for it
    assert status(built.project) == set()


def test_doctor(built: Built) -> None:
    """Failed is what a toy without remote and GPU may not be; a warning is no failure."""
    done = shown(built.project, "ccai doctor")
    assert "failed" not in done.stdout
    assert status(built.project) == set()


@pytest.fixture
def copied(built: Built, tmp_path: Path) -> Project:
    """A copy of the toy run, its journal too."""
    shutil.copytree(built.project.environment["CCAI_CACHE"], tmp_path / "cache")
    return built.project.copy(tmp_path / "project", CCAI_CACHE=str(tmp_path / "cache"))


# Other people's data


def test_scores_of_own_answers_and_what_differs(copied: Project) -> None:
    for name, arm in (("a", "base"), ("b", "tuned")):
        rows = copied.rows(f"data/eval/heldout/{arm}.jsonl")
        texts = {row["prompt_id"]: row["text"] for row in copied.rows("data/prompts/eval.jsonl")}
        lines = [
            json.dumps({"prompt_id": row["prompt_id"], "principle": "x", "prompt": texts[row["prompt_id"]]}
                       | {"response": row["text"], "hazard": "h"})
            for row in rows
        ]  # fmt: skip
        (copied.folder / f"{name}-in.jsonl").write_text("\n".join(lines) + "\n")
        shown(copied, "ccai score answers.jsonl --out scored.jsonl",
              _1=f"answers.jsonl→{name}-in.jsonl", _2=f"scored.jsonl→{name}.jsonl")  # fmt: skip
        assert len(copied.rows(f"{name}.jsonl")) == len(rows)
    shown(copied, "ccai compare a.jsonl b.jsonl --key prompt_id --score scores.declining")
    by = {"_1": "A.jsonl→a.jsonl", "_2": "B.jsonl→b.jsonl", "_3": "safety_score→scores.declining"}
    shown(copied, "ccai compare A.jsonl B.jsonl --key prompt_id --score safety_score --by hazard", **by)
    shown(
        copied,
        "ccai compare A.jsonl B.jsonl --key prompt_id --key principle --cluster prompt_id --score safety_score",
        **by,
    )
    shown(copied, "ccai score IN.jsonl --out OUT.jsonl [--judge NAME]",
          _1="IN.jsonl→a-in.jsonl", _2="OUT.jsonl→judged.jsonl", _3="[--judge NAME]→--judge able")  # fmt: skip
    assert len(copied.rows("judged.jsonl")) == len(rows)


def test_own_pairs(copied: Project) -> None:
    shutil.copy(copied.folder / "data/pairs/train.jsonl", copied.folder / "my-pairs.jsonl")
    shown(copied, "ccai preferences my-pairs.jsonl")
    done = copied.module("ccai", "preferences", "my-pairs.jsonl", "--list")
    assert done.returncode == 0, done.stderr


def test_sources_from_a_folder_and_a_pin_of_ones_own(copied: Project, tmp_path: Path) -> None:
    public = tmp_path / "elsewhere/set.csv"
    public.parent.mkdir()
    public.write_text("release_prompt_id,prompt_text,hazard,persona\n1,What is a lock?,vcr,skilled\n")
    shown(copied, "ccai sources pin ailuminate-zh --like ailuminate --url https://…_zh_cn_….csv",
          _1=f"https://…_zh_cn_….csv→https://localhost/set.csv --from {public}")  # fmt: skip
    assert status(copied) == {"data/sources/ailuminate-zh.yaml"}
    (copied.folder / "data/public/ailuminate-zh.csv").unlink()
    shown(copied, "ccai sources fetch NAME --from FOLDER", NAME="ailuminate-zh", FOLDER=str(public.parent))
    assert (copied.folder / "data/public/ailuminate-zh.csv").read_bytes() == public.read_bytes()
    (tmp_path / "own.jsonl").write_text('{"question": "Why?"}\n')
    shown(
        copied,
        "ccai sources pin NAME --url https://….jsonl --licence MIT --attribution \"…\" --citation \"…\" "
        "--column text=question",
        NAME="own", _1=f"https://….jsonl→https://localhost/own.jsonl --from {tmp_path / 'own.jsonl'}",
    )  # fmt: skip
    assert copied.module("ccai", "sources", "list").returncode == 0


# Switching


def test_scale_and_recipe_there_and_back(copied: Project) -> None:
    """From what is shipped: the toy's own params.yaml goes aside."""
    shutil.copy(ROOT / "params.yaml", copied.folder)
    copied.commit()
    shown(copied, "ccai use poc")
    shown(copied, "ccai use --recipe zephyr-qlora")
    shown(copied, "ccai use --recipe NAME", NAME="tulu3-8b")
    shown(copied, "ccai use dev --model qwen2.5-7b")
    shown(copied, "ccai use dev --judge NAME", NAME="able")
    shown(copied, "ccai use --model qwen2.5-7b-served --role answer", _1="qwen2.5-7b-served→able")
    shown(copied, "ccai use --role revise --model …", _1="…→able")
    shown(copied, "ccai use --model NAME --role judge", NAME="able")
    assert status(copied) == {"params.yaml"}
    shown(copied, "ccai use demo --recipe default")
    shown(copied, "ccai use demo --model smollm2-135m-q4_1")
    assert status(copied) == set()


# Taking the model away


def test_merged_model_is_plain_transformers(copied: Project, tmp_path: Path) -> None:
    shown(copied, "ccai export --merge OUT", OUT="OUT")
    model = AutoModelForCausalLM.from_pretrained(copied.folder / "OUT")
    tokenizer = AutoTokenizer.from_pretrained(copied.folder / "OUT")
    asked = [{"role": "user", "content": "Is a tomato a fruit?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**ids, do_sample=False, max_new_tokens=4)
    assert written.shape[1] > ids["input_ids"].shape[1]
    shown(copied, "ccai push OUT OWNER/NAME", _1="OWNER/NAME→OWNER/NAME --dry-run")
    assert status(copied) == {"OUT/"}


def test_gguf(copied: Project) -> None:
    try:
        export.converter()
    except UserError as error:
        pytest.skip(str(error))
    # A converter knows no toy tokenizer: it runs, and what it says is one line.
    done = shown(copied, "ccai export --gguf OUT.gguf", codes=(0, 2))
    assert (copied.folder / "OUT.gguf").is_file() == (done.returncode == 0)


# Experiments and revisions


def test_experiment_leaves_what_it_changed_and_nothing_else(copied: Project) -> None:
    """As the README says: training and evaluation run, the data are reused; one value of params.yaml is another."""
    done = shown(copied, "dvc exp run -S train.learning_rate=2e-5")
    assert re.findall(r"Running stage '(\w+)'", done.stdout) == ["train", "eval", "report"]
    assert status(copied) <= {"params.yaml", "dvc.lock", *METRICS}
    changed = copied.git("diff", "--numstat", "params.yaml").split()
    assert changed[:2] == ["1", "1"]
    assert copied.stale() == set()
    shown(copied, "dvc metrics diff")
    shown(copied, "dvc exp show --only-changed")
    shown(copied, "ccai curves diff")
    shown(copied, "ccai report")
    copied.commit()
    both = {"REV_A": "HEAD~1", "REV_B": "HEAD"}
    shown(copied, "ccai report HEAD~1 HEAD")
    shown(copied, "ccai report REV_A REV_B", **both)
    assert "train.learning_rate: 0.05 -> 2e-05" in shown(copied, "ccai compare REV_A REV_B", **both).stdout
    shown(copied, "ccai compare HEAD~1 .")
    assert len(re.findall("local/toy@", shown(copied, "ccai runs").stdout)) == 2
    shown(copied, "ccai curves diff REV_A REV_B", **both)
    shown(copied, "dvc metrics diff REV_A REV_B", **both)
    assert status(copied) == set()
    [name] = re.findall(r"^([a-z]+-[a-z]+)", copied.dvc("exp", "list", "--all-commits", "--names-only"), re.M)
    shown(copied, "dvc exp apply NAME", NAME=name)


METRICS = {"metrics/train.json", "metrics/eval.json", "metrics/plots/train.csv"}


def test_experiments_with_own_prompts_constitution_and_format(copied: Project) -> None:
    """Each as far as it differs: the toy's counts, and the pairs stage last where the docs end there, too."""
    lines = (copied.folder / "data/sources/contemplative.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (copied.folder / "data/sources/mine.jsonl").write_text("".join(lines[:60]), encoding="utf-8")
    shutil.copy(copied.folder / CONSTITUTION, copied.folder / "data/constitutions/mine.md")
    shown(
        copied,
        "dvc exp run -S critiques.constitution=data/constitutions/mine.md",
        _1="mine.md→mine.md revisions",
    )
    shown(
        copied,
        "dvc exp run -S 'prompts.sources=[data/sources/mine.jsonl]' -S prompts.train=40 -S prompts.eval=20",
        _1="train=40→train=6",
        _2="eval=20→eval=4 prompts",
    )
    assert copied.json("metrics/prompts.json")["train"]["by_source"] == {"mine.jsonl": 6}
    assert copied.git("diff", "--numstat", "params.yaml").split()[:2] == ["2", "2"]  # the toy has these counts already


def test_queued_and_temporary_experiments(queue: Project) -> None:
    """One of the formats that the docs name, up to the pairs."""
    first = {"_1": "conversation,concise,verbose,fresh→concise"}
    second = {"_1": "conversation,concise,verbose,fresh→verbose critiques"}
    shown(queue, "dvc exp run --queue -S critiques.format=conversation,concise,verbose,fresh pairs", **first)
    shown(queue, "dvc exp run --run-all")
    shown(queue, "dvc exp run --queue -S critiques.format=conversation,concise,verbose,fresh", **second)
    shown(queue, "dvc queue start")
    assert queue.module("dvc", "queue", "logs", "-f", newest(queue)).returncode == 0
    table = list(csv.DictReader(queue.dvc("exp", "show", "--csv").splitlines()))
    assert {row["critiques.format"] for row in table if row["Experiment"]} == {"concise", "verbose"}
    shown(queue, "dvc exp run --temp", _1="--temp→--temp -S eval.resamples=120")
    assert status(queue) == set()


def newest(project: Project) -> str:
    """The task that was queued last."""
    return project.dvc("queue", "status").splitlines()[1].split()[0]


# Storage, another machine


def test_push_pull_report_pull_and_resume(copied: Project, tmp_path: Path) -> None:
    remote = f"s3://BUCKET/PREFIX→{tmp_path / 'remote'}"
    shown(copied, "dvc remote add -d storage s3://BUCKET/PREFIX", _1=remote)
    assert status(copied) == {".dvc/config"}
    shown(copied, "dvc remote modify storage verify true")
    shown(copied, "dvc remote modify storage url s3://BUCKET/PREFIX", _1=remote)
    shown(copied, "ccai doctor --no-model")
    copied.commit()
    shown(copied, "dvc push")
    shown(copied, "ccai report")
    shown(copied, "dvc pull")
    clone = copied.clone(tmp_path / "clone", CCAI_CACHE=str(tmp_path / "its cache"))
    shown(clone, "ccai report HEAD~1 HEAD")  # its data are in no cache here
    shown(clone, "ccai curves diff REV_A REV_B", REV_A="HEAD~1", REV_B="HEAD")
    shown(clone, "dvc pull")
    shown(clone, "ccai summary")
    shown(clone, "ccai resume")
    shown(clone, "make resume", _1="make→make -o env")
    assert shown(clone, "dvc repro").stdout.count("Running stage") == 0
    shown(clone, "make repro", _1="make→make -o env")
    assert status(clone) == set()
    shown(clone, "dvc fetch --all-commits")


# The journal


def test_journal_torn_and_mended(copied: Project) -> None:
    segments = sorted(
        Path(copied.environment["CCAI_CACHE"], "journal").glob("*.jsonl"), key=lambda path: path.stat().st_size
    )
    cut = segments[-1]
    shown(copied, "truncate -s -40 .ccai-cache/journal/26949-b618f1cc.jsonl",
          _1=f".ccai-cache/journal/26949-b618f1cc.jsonl→{cut}")  # fmt: skip
    shown(copied, "ccai journal verify", codes=(1, 2))
    shown(copied, "ccai journal prune")
    assert cut.exists()
    shown(copied, "ccai journal prune --yes")
    shown(copied, "ccai journal verify")
    shown(copied, "ccai journal export -o completions.jsonl")
    assert copied.rows("completions.jsonl")
    assert status(copied) == {"completions.jsonl"}


# Review


def served(project: Project, command: str, **fill: str) -> str:
    """The page that a command serves; the command ends at Ctrl-C, without a traceback."""
    assert command in SHOWN
    for name, value in fill.items():
        old, new = value.split("→") if name.startswith("_") else (name, value)
        assert old in command
        command = command.replace(old, new)
    process = subprocess.Popen(
        shlex.split(f"{command} --port 0 --no-browser"),
        cwd=project.folder,
        env=project.environment | {"PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout
        told = next(found for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        with urlopen(told[0], timeout=60) as answer:
            page = answer.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    assert "Traceback" not in rest
    assert process.returncode == 128 + signal.SIGINT
    return str(page)


def test_review_is_served(copied: Project) -> None:
    """What people do on the page is tried in a browser, in test_review."""
    pytest.importorskip("nicegui")
    assert served(copied, "ccai review --reviewer NAME", NAME="ann")
    assert served(copied, "ccai review --reviewer ann")
    assert served(copied, "ccai review --reviewer ann --judged")
    assert served(
        copied,
        "ccai review --reviewer ann --host NAME.studio.REGION.sagemaker.aws --prefix /jupyter/default/proxy/8765",
    )
    shown(copied, "ccai review --agreement", codes=(0, 2))


# One stage


def test_stages_by_hand(copied: Project) -> None:
    for name in ("prompts", "pairs"):
        shown(copied, "python -m stages.NAME", NAME=name)
    shown(copied, "python stages/NAME.py", _1="python→PYTHONPATH=. python", NAME="prompts")
    assert status(copied) == set()
