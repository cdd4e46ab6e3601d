"""Go on where a run stopped, on this machine or another: fetch what is stored, run what is stale, store the result.

    python -m ccai.resume          # or: make resume

A fresh clone whose dvc.lock is true ends with all its data at hand and nothing run. A stage whose code, parameters or
data are not those of dvc.lock runs again; the outs of the others are fetched first. Where DVC would say "up to date"
though an object is neither in the cache nor in the remote, this ends with exit code 2 before anything runs.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc.exceptions import DownloadError, UploadError
from dvc.repo import Repo

from ccai import doctor, params
from ccai.errors import UserError, run


def main() -> None:
    """Check, fetch, run, store."""
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
        UserError: one of them is neither here nor in the remote. Downstream of a stage that will run, that is no
            error: if its inputs come out the same it is made again.
    """
    stages = [stage for stage in repo.index.stages if stage.cmd]  # the others are public sources
    made = {out.fs_path: (out.hash_info, stage) for stage in stages for out in stage.outs}

    def same(dep: Any) -> bool:  # what a stage made may be missing or of another commit: compared within dvc.lock
        return bool(dep.hash_info == made[dep.fs_path][0] if dep.fs_path in made else not dep.status())

    def true(stage: Any) -> bool:
        return not stage.changed_stage() and all(map(same, stage.deps))

    def certain(stage: Any) -> bool:
        return true(stage) and all(certain(made[dep.fs_path][1]) for dep in stage.deps if dep.fs_path in made)

    outs = [out for stage in stages if true(stage) for out in stage.outs if out.use_cache]
    if outs:
        with suppress(DownloadError):  # which one it was is found below
            repo.fetch(targets=[out.fs_path for out in outs])
    here = [out for out in outs if not out.changed_cache()]
    if lost := [str(out) for out in outs if out not in here and certain(out.stage)]:
        raise UserError(
            f"{', '.join(lost)}: neither here nor in {where}; dvc push where it was made, or make it again: dvc repro"
        )
    if here:
        repo.checkout(targets=[out.fs_path for out in here])
    return len(here)


def store(repo: Any) -> None:
    """Bring every out into the remote, also what DVC wrongly takes for stored since it was there once."""
    with suppress(UploadError):  # tried again below
        repo.push()
    outs = [out for stage in repo.index.stages if stage.cmd for out in stage.outs]
    ids = [info.value for out in outs for infos in out.get_used_objs().values() for info in infos]
    paths = [repo.cache.local.oid_to_path(each) for each in ids]
    repo.cloud.get_remote_odb().add(paths, repo.cache.local.fs, ids)


def _repro() -> None:
    """`dvc repro` with this Python. A stop signal reaches its stage too: DVC killed alone would leave that running."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, children as well
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, "-m", "dvc", "repro"], env=environment, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGINT)
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
        raise UserError(f"{where}: {doctor.why(error).replace(' → ', '; ')}") from None


if __name__ == "__main__":
    run(main, __doc__)
