"""A copy of the project that runs from end to end in minutes: its own folder, git, DVC cache and a toy model.

The toy run that tests share (`built` in conftest.py) is all that the product does, small: every arm and every suite,
with a judge that passes its exam.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

import psutil
import torch
import yaml
from conftest import ROOT, save_tokenizer
from dvc.utils.serialize import modify_yaml
from filelock import FileLock
from transformers import LlamaConfig, LlamaForCausalLM

from helpers.endpoint import serving
from helpers.judges import Judge, Scholar

ROLES = ("answer", "revise", "train", "judge")

STAGES = ["prompts", "responses", "critiques", "revisions", "pairs", "train", "eval"]

ARMS = ("base", "prompted", "tuned")

SUITES = (
    "heldout",
    "jailbreaks",
    "over_refusal",
    "helpfulness",
    "capability",
    "cooperation",
    "traits",
    "bias",
    "calibration",
)

MADE = ("dvc.lock", "data/prompts/", "data/pairs/", "data/eval/", "models/", "metrics/")
"""Where a run leaves files in a checkout, some of them in git; a copy starts without them."""

SMALL: dict[str, dict[str, Any]] = {
    "prompts": {"train": 6, "eval": 4},
    "responses": {"max_new_tokens": 16},
    "critiques": {"format": "conversation", "examples": 1, "max_new_tokens": 16},
    "revisions": {"max_new_tokens": 16},
    # Random letters are no better answers: let everything through that ended by itself.
    "pairs": {
        "min_words": 1,
        "min_length_ratio": 0,
        "max_similarity": 1.0,
        "max_length_ratio": 1000,
        "validation_share": 0.3,
        "judge": False,
    },
    # So large that a few pairs change what the model answers.
    "train": {"learning_rate": 0.05, "batch_size": 2, "per_device": 2, "max_length": 4096},
    "eval": {"resamples": 100, "arms": ["base", "tuned"], "suites": ["heldout"]},
}
"""Little of everything, no judge, one suite: what tests set that run a whole pipeline of their own."""

WHOLE: dict[str, dict[str, Any]] = {
    "models": {"judge": "able"},
    "pairs": {"judge": True},
    "eval": {
        "arms": list(ARMS),
        "suites": list(SUITES),
        "judge": True,
        "primary": {
            "safety": "heldout.judge.harmful",
            "helpfulness": "heldout.refusal.harmless_refused",
            "bound": 0.9,  # of two prompts or three, which exclude no smaller loss
        },
        "jailbreaks": {"per_cell": 1, "max_new_tokens": 8},
        "over_refusal": {"per_type": 1, "max_new_tokens": 8},
        "helpfulness": {"questions": 3, "max_new_tokens": 8},
        "capability": {"limit": 4},
        "cooperation": {"rounds": 2, "games": 1},
        "traits": {"items": 1},
    },
}
"""On top of `SMALL`: what is shipped, all of it, a judge, and what needs one registered."""


@dataclass(frozen=True)
class Project:
    """A folder with a copy of the project, and the environment in which its commands run."""

    folder: Path
    environment: dict[str, str]

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def module(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m NAME` there."""
        return self.call(sys.executable, "-m", name, *arguments)

    def git(self, *arguments: str) -> str:
        """Output of a git command that must succeed."""
        return _succeeded(self.call("git", *arguments))

    def dvc(self, *arguments: str) -> str:
        """Output of a DVC command that must succeed."""
        return _succeeded(self.module("dvc", *arguments))

    def repro(self, *arguments: str) -> list[str]:
        """Stages that `dvc repro` ran; it must succeed."""
        return re.findall(r"^Running stage '(\w+)':", self.dvc("repro", *arguments), re.MULTILINE)

    def stale(self) -> set[str]:
        """Stages whose code, parameters or files differ from dvc.lock's."""
        return set(json.loads(self.dvc("status", "--json")))

    def commit(self) -> None:
        """Commit everything that git does not ignore."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "state")

    def set(self, changes: Mapping[str, Any]) -> None:
        """Set values in params.yaml, given as it nests; as `dvc exp run -S` does, which keeps the comments."""
        with modify_yaml(str(self.folder / "params.yaml")) as values:
            _merge(values, changes)

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace a text in a file, which must hold it."""
        text = (self.folder / name).read_text(encoding="utf-8")
        assert old in text
        (self.folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Records of a JSONL file."""
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]

    def json(self, name: str) -> Any:
        """Content of a JSON file without NaN and infinity, which JSON has not."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{name}: {constant}")

        return json.loads((self.folder / name).read_text(encoding="utf-8"), parse_constant=refuse)

    def outs(self) -> dict[str, str]:
        """The outs in dvc.lock (metrics and plots too) with their md5s."""
        stages = yaml.safe_load((self.folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}

    def copy(self, folder: Path, **environment: str) -> Project:
        """All of it, cache included, in another folder."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, self.environment | environment)

    def clone(self, folder: Path, **environment: str) -> Project:
        """What a colleague gets by `git clone`: no data."""
        self.git("clone", "-q", str(self.folder), str(folder))
        return Project(folder, self.environment | environment)


def make(folder: Path, home: Path, model: Path) -> Project:
    """The project as git has it plus what is not committed yet, set to `SMALL` and a model, committed in its own git.

    Args:
        home: where programs find and leave their settings instead of the home folder of whoever runs the tests.
    """
    command = ["git", "--no-optional-locks", "ls-files", "-co", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listing.splitlines():
        if (not name.startswith(MADE) or name.endswith(".gitignore")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    project = Project(folder, environment(home))
    project.set({"models": dict.fromkeys(ROLES, str(model)), **SMALL})
    project.git("init", "-q")
    project.commit()
    return project


@dataclass(frozen=True)
class Built:
    """The toy run, finished and committed.

    Attributes:
        model: folder of the model in every role but the judge's.
        port: of the judge's endpoint.
        ran: the stages that its `dvc repro` from nothing ran.
    """

    project: Project
    model: Path
    port: int
    ran: list[str]

    @classmethod
    def at(cls, folder: Path, name: str) -> Built:
        """The one of that name in a folder that `run_all` made, or in a copy of it."""
        told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
        return cls(Project(folder / name, environment(folder / "home")), Path(told["model"]), told["port"], told["ran"])


def whole(folder: Path, home: Path, model: Path, port: int) -> Project:
    """The project set to `WHOLE`, committed; `able` is a model behind an endpoint at that port of loopback."""
    project = make(folder, home, model)
    with (folder / "conf/models.yaml").open("a", encoding="utf-8") as catalogue:
        entry = {"endpoints": [f"http://127.0.0.1:{port}/v1"], "model": "org/judge", "revision": "r0"}
        catalogue.write(yaml.safe_dump({"able": entry}))
    project.set(WHOLE)
    project.commit()
    return project


def run_all(folder: Path, port: int) -> None:
    """Make and run the toy project with a judge (`project`), then without (`unjudged`, which reuses what it can)."""
    model = folder / "models/toy"
    toy_model(model, ends=3)
    project = whole(folder / "project", folder / "home", model, port)
    ran = project.repro()
    project.commit()
    unjudged = project.copy(folder / "unjudged")
    unjudged.set({"pairs": {"judge": False}, "eval": {"judge": False, "primary": None}})
    unjudged.repro()
    unjudged.commit()
    # Last: without it the run is not to be used.
    (folder / "told.json").write_text(json.dumps({"model": str(model), "port": port, "ran": ran}), encoding="utf-8")


@contextmanager
def shared_run(folder: Path) -> Iterator[None]:
    """The toy run in a folder that all test workers share, made if it is not there; its judge answers meanwhile."""
    told = folder / "told.json"
    with FileLock(folder.with_suffix(".lock")), ExitStack() as if_it_fails:
        assert folder.exists() == told.exists(), "the toy run failed, in another worker"
        port = json.loads(told.read_text(encoding="utf-8"))["port"] if told.exists() else free_port()
        if_it_fails.enter_context(serving(Judge(Scholar(wrong=0.1), port)))
        if not told.exists():
            run_all(folder, port)
        judge = if_it_fails.pop_all()
    with judge:
        yield


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environment(home: Path) -> dict[str, str]:
    """Variables under which nothing of this machine's settings, credentials and network is seen."""
    own = ("AWS_", "CCAI_", "DVC_", "GIT_", "HF_", "PYTEST_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    home.mkdir(parents=True, exist_ok=True)
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "CCAI_CACHE": str(home / "cache"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@localhost",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }


ASKED = "Reply with one letter"
"""How `ccai.evaluate.choices` asks for one of several options; a token of the toy model's."""


def toy_model(folder: Path, ends: float) -> None:
    """Save a random Llama of two layers that writes nothing but lower-case words, or A, B or C where options are asked.

    Args:
        ends: logit of the token that ends a turn; those of letters have mean 0 and a standard deviation near 1.
    """
    tokenizer = save_tokenizer(folder)
    tokenizer.add_tokens([ASKED])
    tokenizer.save_pretrained(folder)
    end = tokenizer.eos_token_id
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # Feature 0 is the same for every token and no layer changes it: its weights in the head are biases.
        model.model.embed_tokens.weight.normal_(0, 1)[:, 0] = 4
        for layer in model.model.layers:
            for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
                part.weight.normal_(0, 0.2)[0] = 0
        head = model.lm_head.weight.normal_(0, 0.15)
        head[:, 0] = -10
        # Feature 1 says whether a letter is asked for: layer 0 looks for the phrase, by a frequency that hardly turns.
        looks, slow = model.model.layers[0].self_attn, slice(7, None, 16)
        asked, letters = tokenizer.convert_tokens_to_ids(ASKED), [tokenizer.convert_tokens_to_ids(one) for one in "ABC"]
        model.model.embed_tokens.weight[:, 1] = 0
        model.model.embed_tokens.weight[asked, 1] = 8
        for part, feature in ((looks.q_proj, 0), (looks.k_proj, 1)):
            part.weight.zero_()
            part.weight[slow, feature] = 3
        looks.v_proj.weight[0] = 0
        looks.v_proj.weight[0, 1] = 1
        looks.o_proj.weight[1] = 0
        looks.o_proj.weight[1, 0] = 1
        head[:, 1] = 0
        head[letters, 0] = -6
        head[letters, 1] = torch.tensor([12, 12, 11.7])
        for token, at in tokenizer.get_vocab().items():
            if re.fullmatch("Ġ?[a-z]+", token):
                head[at, 0] = 0
        head[end] = 0
        head[end, 0] = ends / 3.4  # the last norm leaves about 3.4 of the 4
    model.save_pretrained(folder)


def _merge(values: Any, changes: Mapping[str, Any]) -> None:
    for name, new in changes.items():
        if isinstance(new, Mapping) and isinstance(values.get(name), Mapping):
            _merge(values[name], new)
        else:
            values[name] = new


def _succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def s3_server() -> Iterator[tuple[dict[str, str], Any]]:
    """An S3 of our own on loopback with an empty bucket `bucket`: what DVC's environment needs, and a client."""
    import boto3  # slow to import, and few tests need them
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL_S3": address}
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )
    try:
        client.create_bucket(Bucket="bucket")
        yield keys, client
    finally:
        server.stop()


def working_in(folder: Path) -> list[psutil.Process]:
    """Processes whose working folder is there: none but what the test started."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, FileNotFoundError):  # another user's, or gone
            continue
    return found
