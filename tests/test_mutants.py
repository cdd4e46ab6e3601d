"""The planted faults can be planted, and it is told which of them a test notices."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from bench import mutants
from bench.faults import FAULTS, Fault
from ccai.base.errors import UserError


def test_every_fault_has_one_place_and_is_another_program() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 60
    assert len({(fault.text, fault.replacement) for fault in FAULTS}) == len(FAULTS)
    for fault in FAULTS:
        path = mutants.place(fault)
        before, after = (ast.dump(ast.parse(code)) for code in (path.read_text(), mutants.planted(fault, path)))
        assert before != after, fault.name


def test_every_fault_names_tests_that_there_are() -> None:
    for fault in FAULTS:
        for one in fault.tests.split(";"):
            stem, _, words = one.partition(":")
            names = re.findall(r"^def (test_\w+)", (ROOT / f"tests/{stem.strip()}.py").read_text(), re.MULTILINE)
            wanted = [word.strip() for word in words.split(" or ")]
            assert all(any(word in name for name in names) for word in wanted), fault.name


@pytest.mark.parametrize(("text", "where"), [("no such code", "nowhere"), ("from __future__", "ccai/")])
def test_a_text_that_does_not_stand_in_one_place_is_an_error(text: str, where: str) -> None:
    with pytest.raises(UserError, match=where):
        mutants.place(Fault("one", text, "", "test_mutants"))


def test_command() -> None:
    def call(*arguments: str) -> tuple[int, str]:
        line = [sys.executable, "-m", "bench.mutants", *arguments]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout

    code, said = call("--list")
    assert (code, len(said.splitlines())) == (0, len(FAULTS))
    assert call("--list", FAULTS[0].name) == (0, said.splitlines(keepends=True)[0])
    assert call("no such name") == (2, "")


PLANTED = """
from bench import mutants
from bench.faults import Fault
from ccai.base.errors import run

def main():
    mutants.LIBRARIES = ()
    worse = Fault("Holm is Bonferroni", "np.arange(len(array), 0, -1)", "len(array)", "test_stats: holm_by_hand")
    words = Fault("other words", "step-down adjusted p values", "p values", "test_stats: holm_by_hand")
    print([fault.name for fault in mutants.survivors([worse, words])])
    mutants.survivors([worse._replace(tests="test_stats: no_test_of_that_name")])

run(main)
"""


@pytest.mark.slow
def test_a_fault_is_noticed_and_a_change_of_words_survives() -> None:
    """In a process of its own, since it forks before torch has threads."""
    done = subprocess.run([sys.executable, "-c", PLANTED], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "noticed   Holm is Bonferroni (ccai/stats/intervals.py)",
        "SURVIVED  other words (ccai/stats/intervals.py)",
        "['other words']",
    ]
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
