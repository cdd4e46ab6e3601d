"""Faults planted one at a time: does a test of `make test` notice each of them?

    python -m bench.mutants                  # all of them; exit code 1 if one survives
    python -m bench.mutants "beta" "Holm"    # those whose names hold one of these texts
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
from pathlib import Path

from bench.faults import FAULTS, Fault
from ccai.errors import UserError, run

ROOT = Path(__file__).parents[1]
MUTATED = ("ccai", "stages")

LONGEST = 900
"""Seconds after which tests that a fault keeps from ending have noticed it."""

PASSED, FAILED = 0, 1
"""pytest's exit codes; by any other it says that it could not run the tests."""


def place(fault: Fault, root: Path = ROOT) -> Path:
    """The file in which a fault's text stands.

    Raises:
        UserError: it stands nowhere, or more than once.
    """
    files = [path for folder in MUTATED for path in sorted((root / folder).rglob("*.py"))]
    counts = {path: path.read_text(encoding="utf-8").count(fault.text) for path in files}
    found = [path for path, count in counts.items() for _ in range(count)]
    if len(found) != 1:
        where = ", ".join(str(path.relative_to(root)) for path in found) or "nowhere"
        raise UserError(f"bench/faults.py: {fault.name!r}: its text must stand in one place, not {where}; correct it")
    return found[0]


def planted(fault: Fault, path: Path) -> str:
    """The file's code with the fault in it."""
    return path.read_text(encoding="utf-8").replace(fault.text, fault.replacement)


def copy(folder: Path) -> None:
    """The checkout as git would see it, changes that are not committed among them."""
    command = ["git", "--no-optional-locks", "ls-files", "-co", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in listing.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)  # tests that copy the project ask git what is in it


def tests(faults: Iterable[Fault]) -> list[str]:
    """Arguments that make pytest run the tests that have to notice these faults."""
    selected = dict.fromkeys(one.strip() for fault in faults for one in fault.tests.split(";"))
    files, wanted = dict[str, None](), list[str]()
    for one in selected:
        stem, _, words = one.partition(":")
        files[f"tests/{stem}.py"] = None
        wanted.append(f"({stem}.py and ({words}))" if words else f"{stem}.py")
    return [*files, "-k", " or ".join(wanted)]


def notice(folder: Path, faults: Iterable[Fault]) -> tuple[int, str]:
    """pytest's exit code, and the last of what it said, of the tests for these faults in a copy."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests(faults)]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=LONGEST)
            return process.returncode, said
        except subprocess.TimeoutExpired:
            return FAILED, f"no end in {LONGEST} seconds"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def survivors(faults: Sequence[Fault]) -> list[Fault]:
    """Those of the faults that no test notices.

    Raises:
        UserError: a fault has no place, or its tests don't run or fail without it.
    """
    places = {fault: place(fault).relative_to(ROOT) for fault in faults}
    found = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name).resolve() / "checkout"
        copy(folder)
        code, said = notice(folder, faults)
        if code != PASSED:
            raise UserError(f"bench.mutants: without any fault the tests don't pass; mend them first\n{said[-2000:]}")
        for fault, path in places.items():
            (folder / path).write_text(planted(fault, ROOT / path), encoding="utf-8")
            code, said = notice(folder, [fault])
            shutil.copy(ROOT / path, folder / path)
            if code not in (PASSED, FAILED):
                raise UserError(f"bench/faults.py: {fault.name!r}: its tests don't run; correct it\n{said[-2000:]}")
            print(f"{'noticed ' if code == FAILED else 'SURVIVED'}  {fault.name} ({path})", flush=True)
            if code == PASSED:
                found.append(fault)
    return found


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
