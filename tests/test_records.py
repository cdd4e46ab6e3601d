"""What is written is what is read; what can't be read is named to the line; nothing half-written stays."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ccai.base import files
from ccai.base.errors import UserError
from ccai.base.hashing import digest, seed_for
from ccai.base.records import Message, Record, Response

ODD = 'Line one\r\nline 2\u2028three\u2029four\x85five\x0bsix\x1c"\\ \t\x00 🙂 é e\u0301'


def response(text: str = ODD, prompt_id: str = "p1") -> Response:
    return Response(
        text=text,
        finish_reason="stop",
        prompt_tokens=3,
        completion_tokens=4,
        conversation="c",
        model="org/tiny",
        unverified_weights=False,
        seed=5,
        prompt_id=prompt_id,
    )


def test_line_separators_inside_a_text_survive(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "responses.jsonl"
    written = [response(), response("", "p2"), response("plain", "p3")]
    files.write(path, written)
    assert files.read(path, Response) == written
    content = path.read_bytes()
    assert content.count(b"\n") == 3
    assert b"\r" not in content
    assert [json.loads(line) for line in content.decode().removesuffix("\n").split("\n")] == [
        item.model_dump() for item in written
    ]


@settings(deadline=None)  # each is forced to disk, which may be slow
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    written = [Message(role="user", content=text) for text in texts]
    files.write(path, written)
    assert list(files.each(path, Message)) == written


def test_same_records_are_the_same_bytes_readable_for_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        files.write(tmp_path / name, [response(), response("plain")])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_nothing_is_an_empty_file(tmp_path: Path) -> None:
    files.write(tmp_path / "none.jsonl", [])
    assert (tmp_path / "none.jsonl").read_bytes() == b""
    assert list(files.each(tmp_path / "none.jsonl", Response)) == []
    with pytest.raises(UserError, match=r"none\.jsonl"):
        files.read(tmp_path / "none.jsonl", Response)


LINE = json.dumps(response("fine").model_dump())


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("{not json", "line: invalid JSON"),
        ("", "line: invalid JSON"),
        ("[]", "line: input should be an object"),
        (LINE.replace('"seed": 5', '"seed": "five"'), "seed: input should be a valid integer"),
        (LINE.replace('"seed": 5, ', ""), "seed: field required"),
        (LINE.replace('"seed"', '"sead"'), "seed: field required"),
        (LINE.replace('"unverified_weights": false, ', ""), "unverified_weights: field required"),
        (LINE.replace("{", '{"extra": 1, ', 1), "extra: no such key"),
        (LINE.replace('"stop"', '"error"'), "finish_reason: input should be 'stop' or 'length'"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, second: str, message: str) -> None:
    path = tmp_path / "responses.jsonl"
    path.write_text(f"{LINE}\n{second}\n{LINE}\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        files.read(path, Response)
    assert str(error.value).startswith(f"{path}:2: {message}")
    assert str(error.value).endswith("; restore the file (dvc checkout) or re-run its stage")


def test_file_that_is_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: no such file; run the stage that writes it \(dvc repro\)"):
        files.read(tmp_path / "none.jsonl", Response)
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    for path in (tmp_path / "latin.jsonl", tmp_path):
        with pytest.raises(UserError, match=r"cannot be read \(.*\); restore .* \(dvc checkout\)"):
            files.read(path, Response)


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.jsonl"
    files.write(path, [response("old")])

    def broken() -> Iterator[Record]:
        yield response("new")
        raise RuntimeError("the stage failed")

    with pytest.raises(RuntimeError):
        files.write(path, broken())
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "begun" * 10_000 + "\ud800")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"data\.jsonl: cannot be written \(No space left on device\); free some space"):
        files.write(path, [response("new")])
    assert files.read(path, Response) == [response("old")]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.jsonl"]


FULL = """
import resource, sys
from pathlib import Path
from ccai.base import files
from ccai.base.errors import run
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
def main():
    files.write_text(Path("data.jsonl"), "x" * int(sys.argv[1]))
run(main)
"""


@pytest.mark.parametrize("size", [40_001, 1_000_000])  # it is full when a buffer is flushed, or as it is filled
def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, size: int) -> None:
    (tmp_path / "data.jsonl").write_text("old")
    command = [sys.executable, "-c", FULL, str(size)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "error: data.jsonl: cannot be written (File too large); free some space or make its folder writable, "
        "and run again\n"
    )
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("data.jsonl", "old")]


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/new/data\.jsonl: cannot be written \(Not a directory\)"):
        files.write(tmp_path / "file/new/data.jsonl", [])


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.jsonl"
    files.write(path, [response("old")])
    during, sync = [], os.fsync

    def look(handle: int) -> None:
        during.append(files.read(path, Response))
        sync(handle)

    monkeypatch.setattr(os, "fsync", look)
    files.write(path, [response("new")])
    assert during == [[response("old")]]
    assert files.read(path, Response) == [response("new")]


def test_json_objects(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "x.json"
    value = {"b": 1, "a": [0.1, None, "é\u2028"], "c": {"d": True}}
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert list(files.read_json(path)) == ["b", "a", "c"]
    assert path.read_text(encoding="utf-8").startswith('{\n  "b": 1,\n')
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"loss": float("nan")})
    assert files.read_json(path) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; run the stage that writes it"),
        (b"{", "not readable as JSON"),
        (b'"caf\xe9"', "not readable as JSON"),
        (b"[1]", "not a JSON object"),
    ],
)
def test_json_that_is_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path}: {message}"):
        files.read_json(path)


def test_records_cannot_be_changed_or_misspelled() -> None:
    with pytest.raises(ValidationError):
        response().text = "another"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Message(role="user", content="x", name="y")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Message(role="critic", content="x")  # type: ignore[arg-type]


def test_digest_is_of_the_value_not_of_its_spelling() -> None:
    assert digest({"b": 1, "a": ["é"]}) == digest({"a": ["é"], "b": 1})
    # sha256 of {"a":["é"],"b":1} as UTF-8, by sha256sum
    assert digest({"b": 1, "a": ["é"]}) == "cde3c54c1d323a37b399fbf0246d2a68a66d3f4c8b57844aaab17ee6cddfdc07"
    assert len({digest(value) for value in ({}, [], "", None, 0, False, {"a": 1}, {"a": "1"}, {"a": [1]})}) == 9


def test_seeds_differ_by_run_and_key_and_stay_the_same() -> None:
    keys = [("answer", "p1"), ("answer", "p2"), ("critique", "p1"), ("answer", "p1", "attempt 1"), ("answerp1",)]
    seeds = [seed_for(seed, *key) for seed in range(50) for key in keys]
    assert len(set(seeds)) == 250
    assert all(0 <= seed < 2**60 for seed in seeds)
    assert seed_for(7, "answer", "p1") == seed_for(7, "answer", "p1")
    assert seed_for(7, "round", 1) == seed_for(7, "round", "1")
