"""Say what works here and what does not, one line each, with the remedy.

    ccai doctor
    ccai doctor --no-model       # without loading the model (and fetching it, the first time)

Ends with exit code 2 if something failed; a warning is something to know.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

from ccai.base import cache, params, versions
from ccai.base.errors import BAD_INPUT, UserError
from ccai.base.params import Params
from ccai.constitution import dialogue, principles
from ccai.engines.base import Engine, Request
from ccai.generate import completions
from ccai.generate.journal import Journal, whole
from ccai.models import catalogue, find
from ccai.models.placement import free_memory, place
from ccai.prompts import sources

REQUIREMENTS = Path("requirements.txt")

TESTED = ((3, 11), (3, 12))
"""Versions of Python; later ones may work, earlier ones can't."""

DISK = 5.0
"""GB free below which to warn; under a fifth of it a run is likely to stop."""

REMOTE_SECONDS = 10
"""Seconds to wait for a connection to the remote; left alone, botocore tries for five minutes."""

_UNREACHABLE = "can't be reached → check the network, the region and, if set, AWS_ENDPOINT_URL_S3"
REMOTE_ERRORS = {
    "NoCredentialsError": "no credentials → aws configure, set AWS_PROFILE, or run where a role gives them",
    "PartialCredentialsError": "half of the credentials → set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "ProfileNotFound": "no such profile in ~/.aws → correct AWS_PROFILE or the remote's own profile",
    "NoSuchBucket": "no such bucket → create it, or: dvc remote modify NAME url s3://BUCKET/PREFIX",
    "PermissionError": "denied (403) → allow ListBucket on the bucket, GetObject and PutObject in it",
    "EndpointConnectionError": _UNREACHABLE,
    "ConnectTimeoutError": _UNREACHABLE,
    "ReadTimeoutError": "no answer in time → try again; if it stays so, check the network and the region",
    "RemoteMissingDepsError": "its package is missing → pip install dvc-s3 (or dvc-gs, dvc-azure, dvc-ssh)",
}
"""By class name of the error or of what caused it, since botocore is only there with dvc-s3."""


Status = Literal["ok", "warning", "failed"]
"""`ok` is fine, `warning` good to know, `failed` makes the exit code 2."""


class Finding(NamedTuple):
    """What a check has to say, with the remedy after an arrow."""

    status: Status
    text: str


Check = Callable[[], Iterator[Finding]]


def python() -> Iterator[Finding]:
    """The versions this is tested with."""
    release = sys.version_info[:2]
    if release in TESTED:
        yield Finding("ok", sys.version.split()[0])
    else:
        status: Status = "warning" if release > TESTED[-1] else "failed"
        yield Finding(status, f"{release[0]}.{release[1]} → use 3.11 or 3.12")


def packages() -> Iterator[Finding]:
    """Installed versions against requirements.txt; those that shape results must be the pinned ones."""
    if not REQUIREMENTS.is_file():
        yield Finding("failed", f"no {REQUIREMENTS} here → run it in the project's folder")
        return
    text = REQUIREMENTS.read_text(encoding="utf-8")
    lines = [line.partition(" #")[0].strip(" \\") for line in text.splitlines()]
    pins = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    differing = []
    for pin in pins:
        try:
            release = version(pin.name)
        except PackageNotFoundError:
            differing.append(f"{pin.name} missing")
            continue
        if not pin.specifier.contains(release, prereleases=True):
            differing.append(f"{pin.name} {release}, not {pin.specifier}")
    remedy = f"pip install -r {REQUIREMENTS}"
    if differing:
        yield Finding("warning", f"{len(differing)} not as pinned: {'; '.join(differing)} → {remedy}")
    else:
        yield Finding("ok", f"{len(pins)} as in {REQUIREMENTS}")
    versions.check("torch", "transformers", "trl", "peft")


def parameters() -> Iterator[Finding]:
    """params.yaml, whole."""
    settings = params.load()
    yield Finding("ok", f"scale {settings.scale}, model {settings.models.train}, seed {settings.seed}")


def texts(settings: Params) -> Iterator[Finding]:
    """Constitution and critique format."""
    constitution = principles.load(settings.critiques.constitution)
    dialogue.load_format(settings.critiques.format)
    names = ", ".join(principle.slug for principle in constitution.principles)
    yield Finding("ok", f"{settings.critiques.constitution}: {names}; asked as {settings.critiques.format}")


def chosen_sources(settings: Params) -> Iterator[Finding]:
    """Selected prompt sources and evaluation sets: there, readable, and if public the pinned file."""
    for use, entries in (("", settings.prompts.sources), (" to evaluate with", settings.prompts.evaluation_sets)):
        for entry in entries:
            try:
                yield Finding("ok", f"{entry}: {len(sources.load(entry))} prompts{use}")
            except UserError as error:
                yield Finding("failed", _with_arrow(error))


def registered(settings: Params) -> Iterator[Finding]:
    """The aims that the run is to be judged by can be met."""
    from ccai.evaluate import registration  # torch, which the other checks do without

    yield Finding("ok", registration.beforehand(settings))


def device() -> Iterator[Finding]:
    """What there is to run on."""
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        yield Finding("ok", f"cuda ({names}), {free_memory('cuda') / 1e9:.1f} GB free on the first")
    elif torch.backends.mps.is_available():
        yield Finding("ok", f"mps, {free_memory('mps') / 1e9:.1f} GB for models")
    else:
        yield Finding("ok", f"cpu ({os.cpu_count()} cores), {free_memory('cpu') / 1e9:.1f} GB free")
        if shutil.which("nvidia-smi"):
            yield Finding(
                "warning",
                f"torch {torch.__version__} does not see the NVIDIA GPU → install a CUDA build of it",
            )


def model(settings: Params) -> Iterator[Finding]:
    """The model that is trained: where it would run and why, and that it answers."""
    from ccai.engines.transformers import Transformers

    model = find.find(settings.models.train)
    placement = place(model, settings.hardware)
    yield Finding("ok", placement.reason)
    engine = Transformers(model, placement)
    start = time.monotonic()
    _ = engine.model
    loaded = time.monotonic() - start
    yield _answers(engine, settings, f"loads in {loaded:.1f} s, ")


def endpoints(settings: Params) -> Iterator[Finding]:
    """Models behind endpoints: that each answers."""
    entries = catalogue.catalogue()
    for name in dict.fromkeys((settings.models.answer, settings.models.revise, settings.models.judge)):
        if "endpoints" in entries.get(name, {}):
            yield _answers(completions.load_engine(name, settings.hardware), settings, f"{name} ")


def _answers(engine: Engine, settings: Params, before: str) -> Finding:
    start = time.monotonic()
    messages = dialogue.to_answer("", "Say hello.").messages
    request = Request(messages, shared=0, seed=0, max_new_tokens=16, sampling=settings.generation)
    [(_, done)] = chain.from_iterable(engine.complete([request]))
    if not done.text:
        return Finding("failed", f"{engine.name} answers nothing → choose another: ccai use --model NAME")
    took = time.monotonic() - start
    return Finding("ok", f"{before}writes {done.completion_tokens} tokens in {took:.1f} s")


def git() -> Iterator[Finding]:
    """A commit is how a run is found again."""
    status = _call("git", "--no-optional-locks", "status", "--porcelain", "--branch")
    if status.returncode:
        message = (status.stderr.strip().splitlines() or ["no message"])[-1]
        yield Finding("warning", f"runs can't be traced to a commit: {message} → install git, then git init")
        return
    branch, *changed = status.stdout.splitlines()
    head = _call("git", "rev-parse", "--short", "HEAD")
    if head.returncode:
        yield Finding("warning", "nothing committed yet → git commit before a run you want to find again")
    elif changed:
        yield Finding("warning", f"{len(changed)} files not committed → git commit before a run you want to find again")
    else:
        yield Finding("ok", f"clean at {head.stdout.strip()}")
    if branch == "## HEAD (no branch)":
        yield Finding("warning", "HEAD is detached, commits will be on no branch → git switch -c NAME")
    if _call("git", "rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        yield Finding("warning", "a shallow clone, older runs can't be compared with → git fetch --unshallow")


def pipeline() -> Iterator[Finding]:
    """DVC and the stages it would run."""
    status = _call(sys.executable, "-m", "dvc", "status", "--json")
    if status.returncode:
        if "not inside of a DVC repository" in status.stderr:
            yield Finding("failed", "not a DVC repository → dvc init")
        else:
            errors = [line for line in status.stderr.splitlines() if line.startswith("ERROR: ")] or ["no message"]
            remedy = "correct what it names, or: git checkout .dvc/config dvc.yaml dvc.lock"
            yield Finding("failed", f"dvc status: {errors[0].removeprefix('ERROR: ')} → {remedy}")
        return
    stale = list(json.loads(status.stdout))
    yield Finding("ok", f"to run: {', '.join(stale)} (dvc repro)" if stale else "up to date")


def remote() -> Iterator[Finding]:
    """Where `dvc push` would go: writes, reads and deletes a few bytes there. And whether `dvc pull` hashes them."""
    if not Path(".dvc").is_dir():
        return  # the check of DVC has said so
    from dvc.repo import Repo  # here, since importing it takes a second

    try:
        opened = Repo()
    except Exception:
        return  # the same
    with opened as repo:
        name = repo.config["core"].get("remote")
        if not name:
            yield Finding("ok", "none set; to share data: dvc remote add -d storage s3://BUCKET/PREFIX")
            return
        settings = repo.config["remote"].get(name, {})
        if settings.get("url", "").startswith("s3://"):
            settings.setdefault("connect_timeout", REMOTE_SECONDS)
            settings.setdefault("read_timeout", REMOTE_SECONDS)
        where = f"{name} ({settings.get('url')})"
        try:
            storage = repo.cloud.get_remote()
            probe = storage.fs.join(storage.path, f"ccai-doctor-{secrets.token_hex(8)}")
            content = secrets.token_bytes(16)
            storage.fs.makedirs(storage.path)  # for a folder; does nothing on S3
            storage.fs.pipe_file(probe, content)
            same = storage.fs.cat_file(probe) == content
        except Exception as error:
            yield Finding("failed", f"{where}: {why(error)}")
            return
        if not same:
            yield Finding("failed", f"{where}: other bytes come back than were written → use another remote")
        try:
            storage.fs.rm_file(probe)
            yield Finding("ok", f"{where}: written, read, deleted")
        except PermissionError:  # push and pull need no right to delete
            remedy = f"allow DeleteObject there, or expire {storage.path}/ccai-doctor-* by a lifecycle rule"
            yield Finding("warning", f"{where}: written and read, but {probe} stays: no right to delete → {remedy}")
        if not settings.get("verify"):
            remedy = f"dvc remote modify {name} verify true"
            yield Finding("warning", f"{where}: dvc pull takes damaged objects for whole → {remedy}")


def disk() -> Iterator[Finding]:
    """Room for models, adapters and the journal; and for the data, where that is another disk."""
    models = cache.folder("models")
    folders = {models.parent: "set CCAI_CACHE to a larger disk"}
    if models.stat().st_dev != Path.cwd().stat().st_dev:
        folders[Path.cwd()] = "move the project to a larger disk"
    for folder, remedy in folders.items():
        free = shutil.disk_usage(folder).free / 1e9
        room = f"{free:.1f} GB free for {folder}"
        if free >= DISK:
            yield Finding("ok", room)
        else:
            status: Status = "failed" if free < DISK / 5 else "warning"
            yield Finding(status, f"{room} → free some, or {remedy}")


def journal() -> Iterator[Finding]:
    """What would be reused."""
    entries = Journal(cache.folder("journal"), whole)
    yield Finding("ok", f"{len(entries):,} completions kept")
    if entries.damaged:
        remedy = "nothing to do; ccai journal prune drops them"
        yield Finding("warning", f"{entries.damaged} damaged lines, what they held is generated again → {remedy}")


def report(name: str, check: Check) -> bool:
    """Print a check's findings as they come; True if one of them, or the check itself, failed."""
    failed = False

    def say(finding: Finding) -> None:
        nonlocal failed
        failed = failed or finding.status == "failed"
        print(f"{finding.status:<8}{name:<13}{finding.text}", flush=True)

    try:
        for finding in check():
            say(finding)
    except UserError as error:
        say(Finding("failed", _with_arrow(error)))
    except Exception as error:  # whatever is broken here must not hide what comes after
        say(Finding("failed", f"{one_line(error)} → put that right; if it is no fault of this machine, report it"))
    return failed


def _with_arrow(error: UserError) -> str:
    """Its message; by convention the part after the last semicolon is what to do."""
    return " → ".join(str(error).rsplit("; ", 1))


def why(error: BaseException) -> str:
    """What a remote's error means, with the remedy where it is known."""
    return known(error) or f"{one_line(error)} → try again; if it stays so, ask who runs the remote"


def known(error: BaseException) -> str | None:
    """The same, of errors that trying again does not help."""
    cause: BaseException | None = error
    while cause is not None:
        for kind in type(cause).__mro__:
            if kind.__name__ in REMOTE_ERRORS:
                return REMOTE_ERRORS[kind.__name__]
        cause = cause.__cause__ or cause.__context__
    return None


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run it; a command that is not there is one that failed, as in a shell."""
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]}: {error.strerror}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("--no-model", action="store_true", help="do not fetch, load and ask the model")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    checks: dict[str, Check] = {
        "git": git,
        "dvc": pipeline,
        "remote": remote,
        "disk": disk,
        "journal": journal,
    }
    failed = [report("python", python), report("packages", packages), report("device", device)]
    failed.append(report("params", parameters))
    if failed[-1]:
        print("        constitution, sources and model need params.yaml: not checked")
    else:
        settings = params.load()
        needing: dict[str, Check] = {
            "constitution": partial(texts, settings),
            "sources": partial(chosen_sources, settings),
            "registered": partial(registered, settings),
        }
        if not options.no_model:
            needing["model"] = partial(model, settings)
            needing["endpoints"] = partial(endpoints, settings)
        checks = needing | checks
    failed += [report(name, check) for name, check in checks.items()]
    if any(failed):
        raise SystemExit(BAD_INPUT)
