"""Sources: what is read, repaired and refused, and how public files get into place."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from ccai.base.errors import UserError
from ccai.base.params import PromptSet
from ccai.prompts import fetch as sources
from ccai.prompts import readers
from ccai.prompts.fetch import fetch
from ccai.prompts.readers import repair
from ccai.prompts.sources import UNSPECIFIED, SourcePrompt, credits, load, load_all, named, names

ROOT = Path(__file__).parents[1]
COLUMNS = {"text": "question", "id": "key", "hazard": "kind"}
CONTENT = b'key,question,kind\r\na1,"Two\r\nlines, one prompt",vcr\r\na2,Plain prompt,\r\n'


def user_file(folder: Path, name: str, content: str | bytes) -> str:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def pin(
    root: Path,
    name: str,
    content: bytes,
    url: str,
    suffix: str = ".csv",
    changes: dict[str, object] | None = None,
) -> Path:
    """A pin of `content`; returns where the fetched file belongs."""
    file = root / "data" / "sources" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "file": f"{name}{suffix}",
        "url": url,
        "sha256": hashlib.sha256(content).hexdigest(),
        "licence": "CC0-1.0",
        "attribution": "this test",
        "citation": "Test (2026).",
        "columns": COLUMNS,
        **(changes or {}),
    }
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return root / "data" / "public" / f"{name}{suffix}"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the URL of the real HTTP server that serves it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_jsonl_csv_and_txt_of_users(tmp_path: Path) -> None:
    line = {"text": "One?", "id": 1, "hazard": "vcr", "persona": "skilled", "principle": "mindfulness"}
    user_file(tmp_path, "a.jsonl", json.dumps(line) + '\n\n{"prompt": "Two?"}\n')
    user_file(tmp_path, "b.csv", "\ufeffnote,prompt,hazard\nx,One?,vcr\n\ny,Two?,\n")
    user_file(tmp_path, "c.TXT", "One?\r\n\r\n  Two?\r\n")
    a, b, c = (load(name, tmp_path) for name in ("a.jsonl", "b.csv", "c.TXT"))
    assert a[0] == SourcePrompt("a.jsonl", "1", "One?", "vcr", "skilled", "mindfulness", "1")
    assert a[1][2:] == ("Two?", UNSPECIFIED, UNSPECIFIED, UNSPECIFIED, "3")
    assert [(row.text, row.hazard) for row in b] == [("One?", "vcr"), ("Two?", UNSPECIFIED)]
    assert [row.text for row in c] == ["One?", "Two?"]
    assert b[1].source_id == c[1].source_id  # from the text, not from the line


def test_label_does_not_depend_on_where_the_file_lies(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.txt", "data/a.txt"):
        user_file(tmp_path, name, "One?\n")
    assert load("a.txt", tmp_path) == load("data/a.txt", tmp_path)


def test_own_set_by_name(tmp_path: Path) -> None:
    (tmp_path / "data/sources").mkdir(parents=True)
    user_file(tmp_path / "data/sources", "ours.jsonl", '{"text": "One?"}\n')
    assert load("ours", tmp_path)[0].source == "ours"


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("it\x19s", "it’s"),
        ("one\x14two", "one—two"),
        ("\x1cquoted\x1d", "“quoted”"),
        ("  outer \n", "outer"),
        ("a\r\nb\rc\x0bd\u2028e", "a\nb\nc\nd\ne"),
        ("nul\x00 bell\x07 del\x7f tab\t.", "nul bell del tab\t."),
        ("cafe\u0301", "café"),
    ],
)
def test_repair(broken: str, whole: str) -> None:
    assert repair(broken) == whole
    assert repair(whole) == whole


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"text": \n', "a.jsonl:2: not a line of JSON"),
        ("a.jsonl", "[" * 100_000 + "\n", "a.jsonl:1: "),
        ("a.jsonl.gz", b'{"text": "x"}', "a.jsonl.gz: not a complete .gz file"),
        ("a.txt.gz", gzip.compress(b"One?" * 99, mtime=0)[:-9], "a.txt.gz: not a complete .gz file"),
        ("a.txt.gz", gzip.compress(b"one\ntw\xe9", mtime=0), "a.txt.gz:2: not UTF-8"),
        ("a.jsonl", '{"text": "x"}\n["x"]\n', "a.jsonl:2: not a JSON object"),
        ("a.jsonl", '{"text": "x"}\n{"text": " \\u0000"}\n', "a.jsonl:2: text: empty"),
        ("a.jsonl", '{"text": 5}\n', "a.jsonl:1: text: must be text, not int"),
        ("a.jsonl", '{"text": "x", "hazard": ["vcr"]}\n', "a.jsonl:1: hazard: must be text, not list"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "a.jsonl:1: "),
        ("a.jsonl", '{"question": "x", "kind": "y"}\n', "no column 'text'; the columns are: question, kind"),
        ("a.csv", "text,id\nx,1\ny\n", "a.csv:3: 1 fields, but the header has 2"),
        ("a.csv", 'text,id\n"two\nlines",1\n"open,2\nx,3\n', "a.csv:4: not valid CSV"),
        ("a.csv", 'text\n"x"y\n', "a.csv:2: not valid CSV"),
        ("a.csv", 'text,id\n"two\nlines",1\n ,2\n', "a.csv:4: text: empty"),
        ("a.csv", "text;id\nx;1\n", "no column 'text'; the columns are: text;id"),
        ("a.csv", "text,id,text\nx,1,y\n", "a.csv:1: two columns are called 'text'"),
        ("a.csv", "text,id\n", "a.csv: holds no prompt"),
        ("a.csv", "", "a.csv: holds no prompt"),
        ("a.txt", "\n\n", "a.txt: holds no prompt"),
        ("a.txt", b"one\ntw\xe9\n", "a.txt:2: not UTF-8"),
    ],
)
def test_bad_user_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    user_file(tmp_path, name, content)
    with pytest.raises(UserError) as error:
        load(name, tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_csv_without_header_does_not_quote_its_first_prompt_at_length(tmp_path: Path) -> None:
    user_file(tmp_path, "a.csv", "word " * 40 + "\nsecond prompt\n")
    with pytest.raises(UserError) as error:
        load("a.csv", tmp_path)
    assert str(error.value).count("word") < 6


def test_missing_file_and_unknown_name(tmp_path: Path) -> None:
    pin(tmp_path, "public", CONTENT, "http://127.0.0.1:9/x.csv")
    with pytest.raises(UserError, match=r"a\.csv: no such file; correct its name in params\.yaml"):
        load("a.csv", tmp_path)
    with pytest.raises(UserError, match="publik: no such source; there are public"):
        load("publik", tmp_path)


def test_public_file_is_checked_before_it_is_read(tmp_path: Path) -> None:
    place = pin(tmp_path, "public", CONTENT, "http://127.0.0.1:9/x.csv")
    with pytest.raises(UserError, match=r"no such file; fetch it: ccai sources fetch public"):
        load("public", tmp_path)
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    assert load("public", tmp_path) == [
        SourcePrompt("public", "a1", "Two\nlines, one prompt", "vcr", UNSPECIFIED, UNSPECIFIED, "2"),
        SourcePrompt("public", "a2", "Plain prompt", UNSPECIFIED, UNSPECIFIED, UNSPECIFIED, "4"),
    ]
    place.write_bytes(CONTENT + b"a3,More,vcr\r\n")
    with pytest.raises(UserError, match=r"not the pinned file .* fetch public"):
        load("public", tmp_path)


def test_prompts_under_headings(tmp_path: Path) -> None:
    content = json.dumps({"Topic": {"Sub": ["One?", "Two?"]}, "Other": ["Three?"]}).encode()
    place = pin(tmp_path, "tree", content, "http://x/y.json", ".json", {"columns": {"text": "text", "id": "id"}})
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    assert [row.source_id for row in load("tree", tmp_path)] == ["Topic/Sub/1", "Topic/Sub/2", "Other/1"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sha256", "12", r": sha256"),
        ("columns", {"id": "key"}, r": columns: needs text"),
        ("columns", {"text": "q", "colour": "c"}, r": columns\.colour"),
        ("license", "MIT", r": license"),
        ("file", "../sources/public.csv", r": file"),
        ("file", "public.zip", r": file: must end in"),
    ],
)
def test_bad_pin(tmp_path: Path, key: str, value: object, message: str) -> None:
    pin(tmp_path, "public", CONTENT, "http://127.0.0.1:9/x.csv", changes={key: value})
    with pytest.raises(UserError, match=message):
        named("public", tmp_path)


def test_a_pin_that_is_no_yaml(tmp_path: Path) -> None:
    pin(tmp_path, "public", CONTENT, "http://x/y.csv")
    (tmp_path / "data/sources/public.yaml").write_text("columns: [\n", encoding="utf-8")
    with pytest.raises(UserError, match="not valid YAML"):
        named("public", tmp_path)


def test_fetch_over_http(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / "x.csv").write_bytes(CONTENT)
    place = pin(tmp_path, "public", CONTENT, f"{url}/x.csv")
    assert fetch("public", root=tmp_path) == place
    assert place.read_bytes() == CONTENT
    assert sorted(path.name for path in place.parent.iterdir()) == [place.name]
    (folder / "x.csv").unlink()
    fetch("public", root=tmp_path)  # already there: nothing is asked for


def test_fetch_of_the_wrong_content_leaves_what_is_there(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    (folder / "x.csv").write_bytes(b"something else")
    place = pin(tmp_path, "public", CONTENT, f"{url}/x.csv")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"before")
    with pytest.raises(UserError, match="is not the pinned file"):
        fetch("public", root=tmp_path)
    pin(tmp_path, "public", CONTENT, f"{url}/gone.csv")
    with pytest.raises(UserError, match=r"HTTP 404.*--from"):
        fetch("public", root=tmp_path)
    assert place.read_bytes() == b"before"


def test_fetch_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    pin(tmp_path, "public", CONTENT, "http://127.0.0.1:9/x.csv")
    with pytest.raises(UserError, match=r"no connection.*fetch public --from"):
        fetch("public", root=tmp_path)
    assert not (tmp_path / "data/public").exists()


def test_download_stops_at_the_size_limit(
    tmp_path: Path, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    content = CONTENT * 10_000
    (folder / "x.csv").write_bytes(content)
    pin(tmp_path, "public", content, f"{url}/x.csv")
    monkeypatch.setattr(sources, "SIZE_LIMIT", 2**17)
    with pytest.raises(UserError, match="is not the pinned file"):
        fetch("public", root=tmp_path)


def test_fetch_from_a_copy(tmp_path: Path) -> None:
    place = pin(tmp_path, "public", CONTENT, "http://127.0.0.1:9/x.csv")
    copies = tmp_path / "copies" / "deep"
    copies.mkdir(parents=True)
    (copies / "x.csv").write_bytes(b"same name, other content")
    with pytest.raises(UserError, match="holds no copy of public"):
        fetch("public", tmp_path / "copies", tmp_path)
    (copies / "renamed.csv").write_bytes(CONTENT)
    fetch("public", tmp_path / "copies", tmp_path)
    assert place.read_bytes() == CONTENT
    place.unlink()
    fetch("public", copies / "renamed.csv", tmp_path)
    assert place.read_bytes() == CONTENT


def test_only_public_sources_are_fetched(tmp_path: Path) -> None:
    user_file(tmp_path, "a.txt", "One?\n")
    with pytest.raises(UserError, match="nothing to fetch"):
        fetch("a.txt", root=tmp_path)


def test_command_line(tmp_path: Path) -> None:
    place = pin(tmp_path, "public", CONTENT, "http://127.0.0.1:9/x.csv")
    (tmp_path / "x.csv").write_bytes(CONTENT)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ccai", "sources", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            check=False,
        )

    assert "not fetched" in command("list").stdout
    missing = command("fetch", "public", "--from", "data")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert missing.stderr.startswith("error: data: holds no copy of public")
    fetched = command("fetch", "public", "--from", ".")
    assert fetched.stdout == f"{place.relative_to(tmp_path)}: 2 prompts, as pinned\n"
    listed = command("list").stdout.splitlines()
    assert listed[1].split() == ["public", "2", "CC0-1.0", "this", "test"]
    assert [line.strip() for line in listed[2:4]] == ["cite: Test (2026).", "http://127.0.0.1:9/x.csv"]
    place.write_bytes(b"changed")
    assert "changed" in command("list").stdout
    url = "http://127.0.0.1:9/xx.csv"
    refused = command("pin", "other", "--url", url, "--from", "x.csv", "--column", "text=question")
    assert (refused.returncode, refused.stderr) == (2, "error: other: licence: field required; correct it\n")
    pinned = command("pin", "other", "--url", url, "--from", "x.csv", "--like", "public", "--licence", "MIT")
    assert pinned.stdout.endswith("other.yaml: 2 prompts, pinned\n"), pinned.stderr
    public, other = named("public", tmp_path).pin, named("other", tmp_path).pin
    assert public is not None
    assert other == public.model_copy(update={"file": "other.csv", "url": url, "licence": "MIT"})


def test_every_pin_of_the_project_is_whole() -> None:
    pins = [named(name, ROOT) for name in names(ROOT)]
    public = [source for source in pins if source.pin]
    assert {"ailuminate", "ailuminate-fr", "harmfulqa", "hh-rlhf"} <= {source.name for source in public}
    for source in public:
        assert source.pin is not None
        assert source.pin.url.startswith("https://")
        assert source.path.parent == ROOT / "data" / "public"


def test_the_readme_credits_what_the_pins_name() -> None:
    text = (ROOT / "data/README.md").read_text(encoding="utf-8")
    rows = {cells[1]: cells for line in text.splitlines() if len(cells := [c.strip() for c in line.split("|")]) == 7}
    prose = " ".join(text.split())
    for credit in credits(names(ROOT), ROOT):
        if not credit.url:
            continue
        _, _, _, licence, attribution, origin, _ = rows[credit.name]
        assert (licence, attribution) == (credit.licence, credit.attribution)
        repository, commit = origin.removeprefix("github.com/").split(" at ")
        assert f"/{repository}/{commit}" in credit.url
        assert credit.citation in prose


def test_credits(tmp_path: Path) -> None:
    pin(tmp_path, "public", CONTENT, "http://127.0.0.1:9/x.csv")
    for name in ("contemplative.jsonl", "theirs.jsonl"):
        user_file(tmp_path / "data/sources", name, '{"text": "One?"}\n')
    ours, mine, public, theirs = credits(["public", "contemplative", "mine.csv", "theirs", "public"], tmp_path)
    assert public == ("public", "CC0-1.0", "this test", "Test (2026).", "http://127.0.0.1:9/x.csv")
    own = "the CCAI project, data/sources/contemplative.jsonl"
    assert ours == ("contemplative", "CC-BY-4.0", own, "", "")
    for name, credit in (("mine.csv", mine), ("theirs", theirs)):  # the project's licence is not a user's
        assert credit == (name, "not stated", "a file of the user's", "", "")
    with pytest.raises(UserError, match="gone: no such source"):
        credits(["gone"], tmp_path)


def test_columns_of_a_users_file(tmp_path: Path) -> None:
    user_file(tmp_path, "a.csv", "question,category,persona,hazard\nOne?,vcr,skilled,no\n")
    entry = PromptSet(source="a.csv", columns={"text": "question", "hazard": "category"})
    [row] = load(entry, tmp_path)
    assert (row.text, row.hazard, row.persona) == ("One?", "vcr", "skilled")
    with pytest.raises(UserError, match=r"a\.csv:2: no column 'kind'; the columns are: question, category"):
        load(PromptSet(source="a.csv", columns={"text": "question", "hazard": "kind"}), tmp_path)
    with pytest.raises(UserError, match=r"no column 'text'.*columns: \{text: …\}"):
        load("a.csv", tmp_path)


def test_first_turns_of_transcripts(tmp_path: Path) -> None:
    transcripts = [
        "\n\nHuman: One?\n\nAssistant: Yes.\n\nHuman: Two?\n\nAssistant: No.",
        "Human: Three\nlines,\n\none prompt\n\nAssistant:",
        "\n\nHuman: Four?",
    ]
    lines = "".join(json.dumps({"chosen": transcript}) + "\n" for transcript in transcripts)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    entry = PromptSet(source="a.jsonl.gz", columns={"text": "chosen"}, first_turn=True)
    assert [row.text for row in load(entry, tmp_path)] == ["One?", "Three\nlines,\n\none prompt", "Four?"]
    for bad, message in (("Just text", "not a transcript"), ("\n\nHuman: \n\nAssistant: Yes.", "chosen: empty")):
        user_file(tmp_path, "b.jsonl", json.dumps({"chosen": bad}) + "\n")
        with pytest.raises(UserError, match=message):
            load(entry.model_copy(update={"source": "b.jsonl"}), tmp_path)


def test_unpacking_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file(tmp_path, "a.txt.gz", gzip.compress(b"One?\n" * 100))
    assert len(load("a.txt.gz", tmp_path)) == 100
    monkeypatch.setattr(readers, "UNPACKED_LIMIT", 499)
    with pytest.raises(UserError, match="unpacks to more than 499 bytes"):
        load("a.txt.gz", tmp_path)


def test_two_sources_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        user_file(tmp_path / folder, "x.txt", f"From {folder}?\n")
    user_file(tmp_path, "y.txt", "Other?\n")
    sets = [PromptSet(source=name) for name in ("a/x.txt", "y.txt", "b/x.txt")]
    assert [row.source for row in load_all(sets[:2], tmp_path)] == ["x.txt", "y.txt"]
    with pytest.raises(UserError, match=r"x\.txt is named twice"):
        load_all(sets, tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 300, "public\n"])
def test_names_no_source_can_have(tmp_path: Path, name: str) -> None:
    pin(tmp_path, "public", CONTENT, "http://127.0.0.1:9/x.csv")
    with pytest.raises(UserError):
        load(name, tmp_path)


TERMS = {"licence": "MIT", "attribution": "this test", "citation": "Test (2026).", "columns": COLUMNS}


def test_a_new_pin_reads_as_it_was_pinned(tmp_path: Path, served: tuple[Path, str]) -> None:
    folder, url = served
    packed = gzip.compress(CONTENT)
    (folder / "x.csv.gz").write_bytes(packed)
    rows = sources.pin("new", {**TERMS, "url": f"{url}/x.csv.gz"}, root=tmp_path)
    assert [row.source_id for row in rows] == ["a1", "a2"]
    place = tmp_path / "data/public/new.csv.gz"
    assert place.read_bytes() == packed
    assert load("new", tmp_path) == rows
    place.unlink()
    fetch("new", root=tmp_path)
    assert place.read_bytes() == packed
    with pytest.raises(UserError, match="a source of this name exists already"):
        sources.pin("new", {**TERMS, "url": f"{url}/x.csv.gz"}, root=tmp_path)


@pytest.mark.parametrize(
    ("name", "terms", "message"),
    [
        ("New", {}, "not a name for a source"),
        ("new", {"url": "http://127.0.0.1:9/x.zip"}, "must end in"),
        ("new", {"licence": None}, "new: licence: "),
        ("new", {"columns": {"id": "key"}}, "needs text"),
        ("new", {"columns": {"text": "prompt"}}, "no column 'prompt'"),
    ],
)
def test_nothing_is_written_when_a_pin_is_refused(
    tmp_path: Path, name: str, terms: dict[str, object], message: str
) -> None:
    user_file(tmp_path, "x.csv", CONTENT)
    with pytest.raises(UserError, match=message):
        sources.pin(name, {**TERMS, "url": "http://127.0.0.1:9/x.csv", **terms}, tmp_path / "x.csv", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def real(name: str, tmp_path: Path) -> list[SourcePrompt]:
    """A public set, where this machine has it."""
    shutil.copytree(ROOT / "data" / "sources", tmp_path / "data" / "sources")
    for folder in (ROOT / "data" / "public", ROOT / ".." / "shared" / "datasets"):
        try:
            fetch(name, folder, tmp_path)
        except UserError:
            continue
        return load(name, tmp_path)
    pytest.skip(f"the file of {name} is not on this machine")


@pytest.fixture
def ailuminate(tmp_path: Path) -> list[SourcePrompt]:
    return real("ailuminate", tmp_path)


def test_hh_rlhf(tmp_path: Path) -> None:
    rows = real("hh-rlhf", tmp_path)
    assert len(rows) == 2312
    assert len({row.text for row in rows}) == 2312 - 134
    assert [row.place for row in rows] == [str(line) for line in range(1, 2313)]
    assert not any("Human:" in row.text or "Assistant:" in row.text for row in rows)
    assert {row.hazard for row in rows} == {UNSPECIFIED}


def test_ailuminate(ailuminate: list[SourcePrompt], tmp_path: Path) -> None:
    assert len(ailuminate) == 1200
    assert len({row.source_id for row in ailuminate}) == len({row.text for row in ailuminate}) == 1200
    hazards = Counter(row.hazard for row in ailuminate)
    assert len(hazards) == 15
    assert sorted(hazards.values()) == [24, 24, 26, 26, *[100] * 11]
    assert Counter(row.persona for row in ailuminate) == {"skilled": 600, "unskilled": 600}
    raw = (tmp_path / "data/public/ailuminate.csv").read_bytes().decode()
    assert sum(raw.count(mark) for mark in "\x13\x14\x18\x19\x1c\x1d") == 13
    assert not any(readers.CONTROL.search(row.text) for row in ailuminate)
    # 15 prompts span lines in the file; with three of them the break is outer white space.
    assert sum("\n" in row.text for row in ailuminate) == 12
    assert not any(row.text != row.text.strip() or "\r" in row.text for row in ailuminate)


def test_ailuminate_repairs(ailuminate: list[SourcePrompt], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ccai.prompts.sources.repair", lambda text: text)
    raw = load("ailuminate", tmp_path)
    assert sum("\x19" in row.text or "\x14" in row.text for row in raw) == 8
    assert sum(row.text != row.text.strip() for row in raw) == 48
    assert sum("\n" in row.text for row in raw) == 15
    assert [row.source_id for row in raw] == [row.source_id for row in ailuminate]
