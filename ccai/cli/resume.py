"""Go on where a run stopped, on this machine or another: fetch what is stored, run what is stale, store the result.

    ccai resume          # or: make resume

A fresh clone whose dvc.lock is true ends with all its data at hand and nothing run. A stage whose code, parameters or
data are not those of dvc.lock runs again; the outs of the others are fetched first. Every object is held against its
md5, in the cache too and whatever DVC remembers of it. Where one is missing, or other bytes than were pushed, or the
remote can't be reached, this ends with exit code 2 before anything runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil
from dvc.cachemgr import CacheManager
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from dvc_data.hashfile.state import StateNoop
from dvc_data.hashfile.tree import Tree

from ccai.base import params
from ccai.base.errors import UserError
from ccai.base.hashing import md5_of
from ccai.cli import doctor

TRIES = 3
"""How often an object is fetched whose transfer breaks off; s3fs repeats what it knows to be passing by itself."""

Fault = Literal["lost", "damaged"]
"""Of an object: `lost` is neither here nor in the remote, `damaged` is there with other bytes than its name says."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""


def main(options: argparse.Namespace) -> None:
    """Run it."""
    params.load()
    logging.disable()  # what DVC would say is said here, in one line
    with _storage() as (repo, where):
        print(f"resume: {fetch(repo, where)} outs are up to date and here, from {where} where needed", flush=True)
    _repro()
    with _storage() as (repo, where):
        store(repo)
        print(f"resume: all outs are in {where}; commit dvc.lock and metrics/ to go on elsewhere")


def fetch(repo: Any, where: str) -> int:
    """Put the outs of all stages that dvc.lock is true of into cache and workspace; returns how many.

    Raises:
        UserError: one of them is neither here nor in the remote, or damaged there. Downstream of a stage that will
            run, that is no error: if its inputs come out the same it is made again. Or the remote gave no answer.
    """
    stages = [stage for stage in repo.index.stages if stage.cmd]  # the others are public sources
    producers = {out.fs_path: (out.hash_info, stage) for stage in stages for out in stage.outs}

    def same(dep: Any) -> bool:  # what a stage made may be missing or of another commit: compared within dvc.lock
        # A ParamsDependency holds values of code.json.
        by_hash = dep.fs_path in producers and not isinstance(dep, ParamsDependency)
        return bool(dep.hash_info == producers[dep.fs_path][0] if by_hash else not dep.status())

    def true(stage: Any) -> bool:
        return not stage.changed_stage() and all(map(same, stage.deps))

    def certain(stage: Any) -> bool:
        return true(stage) and all(certain(producers[dep.fs_path][1]) for dep in stage.deps if dep.fs_path in producers)

    outs = [out for stage in stages if true(stage) for out in stage.outs if out.use_cache and out.hash_info]
    objects = _Objects(repo, where)
    wrong = objects.bring(out.hash_info.value for out in outs)
    folders = [out for out in outs if out.hash_info.isdir and out.hash_info.value not in wrong]
    held = {out: [oid.value for _, _, oid in Tree.load(repo.cache.local, out.hash_info)] for out in folders}
    wrong |= objects.bring(oid for oids in held.values() for oid in oids)
    faults = {out: [oid for oid in (out.hash_info.value, *held.get(out, ())) if oid in wrong] for out in outs}
    needed = {out: oids for out, oids in faults.items() if oids and certain(out.stage)}
    if lost := [str(out) for out, oids in needed.items() if "lost" in map(wrong.get, oids)]:
        raise UserError(
            f"{', '.join(lost)}: neither here nor in {where}; dvc push where it was made, or make it again: dvc repro"
        )
    if needed:
        urls = dict.fromkeys(objects.url(oid) for oids in needed.values() for oid in oids)
        raise UserError(
            f"{', '.join(map(str, needed))}: other bytes in {where} than were pushed; delete {', '.join(urls)}, "
            "then run make resume where it was made, or make it again: dvc repro"
        )
    if intact := [out for out in outs if not faults[out]]:
        repo.checkout(targets=[out.fs_path for out in intact], force=True)  # as dvc repro would: these are outs
    return len(intact)


def store(repo: Any) -> None:
    """Bring every object of every out into the remote: also what DVC wrongly takes for stored since it was there once.

    One that is there with another size was cut off on its way, and is written again. Folders' lists go last: to DVC
    they say that the files are there.
    """
    outs = [out for stage in repo.index.stages if stage.cmd for out in stage.outs]
    oids = {info.value for out in outs for infos in out.get_used_objs().values() for info in infos}
    cache, remote = repo.cache.local, repo.cloud.get_remote_odb()

    def absent(oid: str) -> bool:
        try:
            size = remote.fs.info(remote.oid_to_path(oid))["size"]
        except FileNotFoundError:
            return True
        return bool(size != Path(cache.oid_to_path(oid)).stat().st_size)

    lists = {oid for oid in oids if oid.endswith(".dir")}
    for part in (oids - lists, lists):
        new = sorted(filter(absent, part))
        paths = [cache.oid_to_path(oid) for oid in new]
        if new:  # verify would fetch them all again
            remote.add(paths, cache.fs, new, check_exists=False, verify=False)


class _Objects:
    """Objects of the cache, each held against its md5, and fetched where it is missing or wrong."""

    def __init__(self, repo: Any, where: str) -> None:
        self.cache, self.remote, self.where = repo.cache.local, repo.cloud.get_remote_odb(), where

    def url(self, oid: str) -> str:
        """Where it lies in the remote."""
        return str(self.remote.fs.unstrip_protocol(self.remote.oid_to_path(oid)))

    def bring(self, oids: Iterable[str]) -> dict[str, Fault]:
        """Those that are not in the cache afterwards, and why.

        Raises:
            UserError: the remote gave no answer, or broke off each time: nothing is known of the object.
        """
        unique = list(dict.fromkeys(oids))
        with ThreadPoolExecutor(max_workers=8) as pool:
            return {oid: fault for oid, fault in zip(unique, pool.map(self._bring, unique), strict=True) if fault}

    def _bring(self, oid: str) -> Fault | None:
        path = Path(self.cache.oid_to_path(oid))
        if _is(path, oid):
            return None
        path.unlink(missing_ok=True)
        self.cache.makedirs(str(path.parent))
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            self._fetch(self.remote.oid_to_path(oid), part)
            if not _is(part, oid):
                return "damaged"
            part.replace(path)
        except FileNotFoundError:
            return "lost"
        finally:
            part.unlink(missing_ok=True)
        self.cache.protect(str(path))
        return None

    def _fetch(self, source: str, part: Path) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                self.remote.fs.get_file(source, str(part))
                return
            except FileNotFoundError:
                raise
            except Exception as error:
                message = doctor.known(error)
                if message or not tries_left:
                    message = message or f"the transfer broke off ({doctor.one_line(error)}) → run make resume again"
                    raise UserError(f"{self.where}: {message.replace(' → ', '; ')}") from None


def _is(path: Path, oid: str) -> bool:
    """Whether a file's bytes are the object's. DVC's own memory of hashes is not asked: it also holds what DVC fetched
    and never read."""
    try:
        return md5_of(path) == oid.removesuffix(".dir")
    except FileNotFoundError:
        return False


def _repro() -> None:
    """`dvc repro` with this Python. A stop signal reaches its stage too: DVC killed alone would leave that running."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, children as well
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, "-m", "dvc", "repro"], env=environment, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)  # no further stage; while one runs DVC waits for it
        for each in below:
            with suppress(psutil.NoSuchProcess):
                each.terminate()  # SIGTERM, at which training saves a checkpoint
        psutil.wait_procs(below)
        process.wait()
        raise
    if code:
        raise UserError("dvc repro failed, its message is above; put that right and run make resume again")


@contextmanager
def _storage() -> Iterator[tuple[Any, str]]:
    """The DVC repository and what its remote is called, seen to work; what goes wrong with them becomes one line."""
    where = "DVC"
    try:
        with Repo() as repo:
            repo.state.close()  # of files it has seen it believes what it wrote down, wrong or not: hash them all
            repo.state = StateNoop()
            repo.cache = CacheManager(repo)
            if not (name := repo.config["core"].get("remote")):
                raise UserError("no remote is set; dvc remote add -d storage s3://BUCKET/PREFIX")
            where = f"{name} ({repo.config['remote'].get(name, {}).get('url')})"
            for finding in doctor.remote():
                if finding.status == "failed":
                    raise UserError(finding.text.replace(" → ", "; "))
            yield repo, where
    except UserError:
        raise
    except Exception as error:
        message = doctor.known(error) or doctor.one_line(error)
        raise UserError(f"{where}: {message.replace(' → ', '; ')}") from None
