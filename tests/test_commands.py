"""Every command: help and unknown arguments act on nothing; odd streams, locales and interrupts end as they should."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.interrupts import heed_interrupts

from ccai import cli

MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("ccai", "stages")
    for path in sorted((ROOT / package).rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8") and path.name != "__main__.py"
]
"""Modules that `python -m` runs."""

SUBCOMMANDS = [name for group in cli.COMMANDS.values() for name in group]

HERE = ("check", "use")
"""Subcommands that print at once what lies in the project's folder."""


@pytest.fixture
def as_main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to run commands in, in this process; its signal handlers are put back."""
    monkeypatch.chdir(tmp_path)
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path
    for number, handler in kept.items():
        signal.signal(number, handler)


def ends(name: str, *arguments: str) -> object:
    """Exit code of a module that is run as a command."""
    argv, sys.argv = sys.argv, [name, *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = argv
    return ended.value.code


def test_each_subcommand_is_a_module() -> None:
    assert {path.stem for path in (ROOT / "ccai/cli").glob("*.py")} == {"__init__", *SUBCOMMANDS}


def test_help_lists_every_subcommand_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ccai import cli; sys.argv = ['ccai', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: print({'torch', 'pandas', 'dvc', 'transformers', 'numpy'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.endswith("set()\n")
    for name in SUBCOMMANDS:
        assert f"\n  {name} " in said


LIGHT = ("check", "compare", "journal", "preferences", "runs", "score", "show", "sources", "summary", "trace", "use")


@pytest.mark.parametrize("name", LIGHT)
def test_subcommands_that_need_no_torch_do_not_import_it(name: str) -> None:
    code = f"import sys, ccai.cli.{name}; print({{'torch', 'dvc', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_a_subcommand_acts_on_nothing_and_has_an_example(
    name: str, as_main: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends("ccai", name, "--help") == 0
    said = capsys.readouterr().out
    assert f"usage: ccai {name} " in said
    assert f"\n    ccai {name}" in said
    assert "exit codes: " in said
    assert ends("ccai", name, "--no-such-option") == 2
    assert f"usage: ccai {name} " in capsys.readouterr().err
    assert list(as_main.iterdir()) == []


def test_another_checkout_than_the_one_that_runs_is_one_line(as_main: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("ccai").mkdir()
    Path("ccai/__init__.py").touch()
    assert ends("ccai", "use") == 2
    assert "is not the ccai that is running" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", MODULES)
def test_help_and_unknown_arguments_act_on_nothing(
    name: str, as_main: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(name, "--help") == 0
    assert f"python -m {name} " in capsys.readouterr().out
    assert ends(name, "--no-such-option") == 2
    assert f"usage: python -m {name} " in capsys.readouterr().err
    assert list(as_main.iterdir()) == []


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line for the shell, in the project's folder; `python` is this one."""
    python = f"exec {sys.executable}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    return subprocess.run(
        ["bash", "-c", line.replace("python", python, 1)],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(
    ("streams", "code"), [(">/dev/full", 2), (">/dev/full 2>&1", 2), (">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0)]
)
def test_streams_that_are_full_or_closed(name: str, streams: str, code: int) -> None:
    done = shell(f"python -m ccai {name} {streams}")
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == (code != 0 and "2>" not in streams)


def test_what_is_printed_where_stdout_is_closed_goes_into_no_file(tmp_path: Path) -> None:
    """Not even what a library prints past Python: the next file that is opened must not get stdout's number."""
    code = (
        "import os; from pathlib import Path; from ccai.base.errors import run; from ccai.base.files import writing\n"
        "def main():\n"
        f"  with writing(Path({str(tmp_path / 'out')!r})) as file:\n"
        "    os.write(1, b'noise'); print('noise'); file.write(b'data')\n"
        "run(main)"
    )
    (tmp_path / "code.py").write_text(code)
    assert shell(f"PYTHONPATH=. ; export PYTHONPATH; python {tmp_path / 'code.py'} >&-").returncode == 0
    assert (tmp_path / "out").read_bytes() == b"data"


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LANG": "xx_XX"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONUTF8": "0", "LC_ALL": "POSIX"}],
    ids=str,
)
def test_locales_that_lack_what_is_printed(environment: dict[str, str]) -> None:
    done = shell("python -m ccai use", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = shell("python -m ccai check --→", **environment)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


INSTALLED = str(Path(sys.executable).with_name("ccai"))


@pytest.mark.parametrize(
    ("command", "imported"),
    [(["-m", "ccai"], "pydantic"), ([INSTALLED], "pydantic"), (["-m", "stages.train"], "pandas")],
)
def test_interrupt_while_a_command_is_imported(tmp_path: Path, command: list[str], imported: str) -> None:
    (tmp_path / f"{imported}.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=tmp_path,  # where -m looks first
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, len(said.splitlines())) == (130, 1)
