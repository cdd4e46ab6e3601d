"""Faults planted one at a time: does a test of `make test` notice each of them?

    python -m bench.mutants                  # all of them; exit code 1 if one survives
    python -m bench.mutants beta Holm        # those whose names hold one of these texts
    python -m bench.mutants --list

bench/faults.py has the faults. Each is planted in a copy of the checkout, in the one place of ccai/ and stages/ where
its text stands, and the tests are run that have to notice it. Before that they are run on the copy as it is: a test
that fails anyway notices nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from bench.faults import FAULTS, Fault
from ccai.base.errors import UserError, run

ROOT = Path(__file__).parents[1]
OURS = ("bench", "ccai", "stages")
MUTATED = ("ccai", "stages")

LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "datasets",
    "pandas",
    "scipy.stats",
    "statsmodels.api",
    "sklearn",
    "dvc.repo",
)
"""What most tests import, for seconds; imported once, for each run of pytest is a fork of this process."""

LONGEST = 900
"""Seconds after which tests that a fault keeps from ending have noticed it."""

PASSED, FAILED = 0, 1
"""pytest's exit codes; any other says that it could not run the tests."""


def place(fault: Fault, root: Path = ROOT) -> Path:
    """The file in which a fault's text stands.

    Raises:
        UserError: it stands nowhere, or more than once.
    """
    files = [path for folder in MUTATED for path in sorted((root / folder).rglob("*.py"))]
    found = [path for path in files for _ in range(path.read_text(encoding="utf-8").count(fault.text))]
    if len(found) != 1:
        where = ", ".join(str(path.relative_to(root)) for path in found) or "nowhere"
        raise UserError(f"bench/faults.py: {fault.name!r}: its text must stand in one place, not {where}; correct it")
    return found[0]


def planted(fault: Fault, path: Path) -> str:
    """The file's code with the fault in it."""
    return path.read_text(encoding="utf-8").replace(fault.text, fault.replacement)


def tests(faults: Iterable[Fault]) -> list[str]:
    """Arguments that make pytest run the tests that have to notice these faults."""
    files, wanted = dict[str, None](), dict[str, None]()
    for fault in faults:
        for one in fault.tests.split(";"):
            stem, _, words = (part.strip() for part in one.partition(":"))
            files[f"tests/{stem}.py"] = None
            wanted[f"({stem}.py and ({words}))" if words else f"{stem}.py"] = None
    return [*files, "-k", " or ".join(wanted)]


def survivors(faults: Sequence[Fault]) -> list[Fault]:
    """Those of the faults that no test notices.

    Raises:
        UserError: a fault has no place, or its tests don't run, or fail without it.
    """
    places = {fault: place(fault).relative_to(ROOT) for fault in faults}
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in LIBRARIES:
        import_module(name)
    found = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name).resolve() / "checkout"
        _copy(folder)
        code, said = _notice(folder, faults)
        if code != PASSED:
            raise UserError(f"bench.mutants: without any fault these tests fail; mend them first: {said}")
        for fault, path in places.items():
            (folder / path).write_text(planted(fault, ROOT / path), encoding="utf-8")
            code, said = _notice(folder, [fault])
            shutil.copy(ROOT / path, folder / path)
            if code not in (PASSED, FAILED):
                raise UserError(f"bench/faults.py: {fault.name!r}: its tests can't be run; correct it: {said}")
            print(f"{'noticed ' if code == FAILED else 'SURVIVED'}  {fault.name} ({path})", flush=True)
            if code == PASSED:
                found.append(fault)
    return found


def _copy(folder: Path) -> None:
    """The checkout as it lies here, without what git ignores."""
    command = ["git", "--no-optional-locks", "ls-files", "-co", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listing.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)  # tests ask git which files the project has


def _notice(folder: Path, faults: Iterable[Fault]) -> tuple[int, str]:
    """pytest's exit code, and the last that it said, of the tests for these faults in a copy."""
    log = folder.with_suffix(".log")
    process = get_context("fork").Process(target=_pytest, args=(folder, log, tests(faults)))
    process.start()
    process.join(LONGEST)
    assert process.pid  # it was started
    with suppress(ProcessLookupError):  # its own group: what the tests have left behind as well
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    code = FAILED if process.exitcode == -signal.SIGKILL else process.exitcode or PASSED
    return code, " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-1000:]


def _pytest(folder: Path, log: Path, arguments: Sequence[str]) -> None:
    """Run tests of the copy, in a process of its own."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]  # the copy's own are to be imported
    sys.path.insert(0, str(folder))
    import pytest

    raise SystemExit(pytest.main(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *arguments]))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.mutants", description="Plant faults; name those unnoticed.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only faults whose names hold one of these texts")
    parser.add_argument("--list", action="store_true", help="name the faults and their tests, and run nothing")
    options = parser.parse_args()
    if missing := [name for name in options.names if not any(name in fault.name for fault in FAULTS)]:
        raise UserError(f"{missing[0]!r}: in no fault's name; --list names them")
    chosen = [fault for fault in FAULTS if not options.names or any(name in fault.name for name in options.names)]
    if options.list:
        for fault in chosen:
            print(f"{fault.name} ({place(fault).relative_to(ROOT)}; {fault.tests})")
        return
    left = survivors(chosen)
    print(f"{len(chosen)} faults, {len(left)} survivors" + "".join(f"\n  {fault.name}" for fault in left))
    if left:
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
