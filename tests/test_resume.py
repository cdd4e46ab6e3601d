"""`ccai resume` on three stages that take no time; tests/test_pipeline.py has it on the real ones."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ROOT
from helpers.project import Project, environment, s3_server
from moto import settings as moto_settings

STAGES = """\
stages:
  first:
    cmd: python first.py
    deps: [first.py]
    outs: [first.txt]
  second:
    cmd: mkdir folder && sort first.txt > folder/one && echo two > folder/two && echo {} > metrics.json
    deps: [first.txt]
    outs: [folder]
    metrics: [{metrics.json: {cache: false}}]
  third:
    cmd: cat folder/one other.txt > third.txt
    deps: [folder, other.txt]
    outs: [third.txt]
"""
FIRST = "import pathlib\npathlib.Path('first.txt').write_text('one\\n' * 20_000 + 'more\\n')\n"
ONES = "one\n" * 20_000
CONTENT = {
    "first.txt": f"{ONES}more\n",
    "folder/one": f"more\n{ONES}",
    "folder/two": "two\n",
    "third.txt": f"more\n{ONES}other\n",
}
TWO = hashlib.md5(b"two\n").hexdigest()

Harm = Callable[[Path], None]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run, committed, and pushed to a folder beside it. Tests copy it."""
    top = tmp_path_factory.mktemp("resume")
    project = Project(top / "project", environment(top / "home") | {"PYTHONPATH": str(ROOT)})
    project.folder.mkdir()
    for name, text in {"dvc.yaml": STAGES, "first.py": FIRST, "other.txt": "other\n"}.items():
        (project.folder / name).write_text(text)
    shutil.copy(ROOT / "params.yaml", project.folder)
    project.git("init", "-q")
    project.dvc("init", "-q")
    project.dvc("remote", "add", "-q", "-d", "storage", "../store")
    assert project.repro() == ["first", "second", "third"]
    project.commit()
    project.dvc("push")
    return project


@pytest.fixture
def project(pushed: Project, tmp_path: Path) -> Project:
    """A copy of it with its remote, its home and, beside them, room for clones."""
    shutil.copytree(pushed.folder.parent, tmp_path, dirs_exist_ok=True)
    own = environment(tmp_path / "home")
    return Project(tmp_path / "project", pushed.environment | {name: own[name] for name in own if name != "PATH"})


@pytest.fixture
def clone(project: Project) -> Project:
    """A clone on a machine that has neither data nor DVC's memory of what is stored."""
    fresh = project.clone(project.folder.parent / "clone")
    fresh.environment.update(environment(project.folder.parent / "other-home"))
    fresh.environment["PYTHONPATH"] = str(ROOT)
    return fresh


def resumed(project: Project) -> list[str]:
    """Stages that a resume ran; it must succeed and leave the project's data complete, here and in the remote."""
    done = project.module("ccai", "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    for oid in project.outs().values():
        assert stored(project, oid).exists() or oid == project.outs()["metrics.json"]
    assert project.stale() == set()
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]


def refused(project: Project) -> str:
    """The one line with which it ends, exit code 2, no stage run."""
    done = project.module("ccai", "resume")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Running stage" not in done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def stored(project: Project, oid: str) -> Path:
    """Where an object lies in the remote."""
    return project.folder.parent / "store/files/md5" / oid[:2] / oid[2:]


@contextmanager
def cutting(project: Project, after: int, times: int | None = None, close: bool = False) -> Iterator[list[bool]]:
    """Puts a proxy before the project's S3 that cuts each connection which has sent so many bytes down.

    Args:
        times: how many connections are cut; None: all.
        close: take no new connections after the first cut.
    """
    target = project.environment["AWS_ENDPOINT_URL_S3"].rpartition("/")[2].split(":")
    cuts: list[bool] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket, limited: bool) -> None:
        sent = 0
        with suppress(OSError):
            while data := source.recv(4096):
                if limited and sent + len(data) > after and (times is None or len(cuts) < times):
                    cuts.append(True)
                    if close:
                        listener.close()
                    break
                sink.sendall(data)
                sent += len(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((target[0], int(target[1])))
                threading.Thread(target=pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=pump, args=(server, client, True), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    project.environment["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield cuts
    finally:
        listener.close()


def content(project: Project) -> dict[str, str]:
    return {name: (project.folder / name).read_text() for name in CONTENT if (project.folder / name).exists()}


def test_where_all_is_done_nothing_runs(project: Project) -> None:
    assert resumed(project) == []
    assert content(project) == CONTENT


def test_fresh_clone_gets_its_data_and_runs_nothing(clone: Project) -> None:
    assert resumed(clone) == []
    assert content(clone) == CONTENT
    assert clone.git("status", "--porcelain") == ""


def test_only_what_is_stale_runs_and_its_result_is_stored(clone: Project) -> None:
    (clone.folder / "other.txt").write_text("another\n")
    assert resumed(clone) == ["third"]
    assert content(clone) == CONTENT | {"third.txt": f"more\n{ONES}another\n"}


def test_same_bytes_from_changed_code_run_nothing_downstream(clone: Project) -> None:
    clone.edit("first.py", "import", "# so\nimport")
    assert resumed(clone) == ["first"]


def test_data_of_another_commit_is_replaced_and_not_made_again(project: Project) -> None:
    project.edit("first.py", "one", "1")
    assert resumed(project) == ["first", "second", "third"]
    project.commit()
    project.git("checkout", "-q", "HEAD~1")
    assert resumed(project) == []
    assert content(project) == CONTENT


def test_what_was_not_pushed_is_pushed(project: Project) -> None:
    shutil.rmtree(project.folder.parent / "store")
    assert resumed(project) == []


def test_file_of_a_folder_that_vanished_from_the_remote_is_stored_again(project: Project) -> None:
    """DVC takes a folder's files for stored where the folder's own object is: its push does nothing."""
    gone = stored(project, TWO)
    gone.unlink()
    project.dvc("push")
    assert not gone.exists()
    assert resumed(project) == []
    assert gone.read_text() == "two\n"


@pytest.mark.parametrize("out", ["first.txt", "folder", "third.txt"])
def test_object_that_is_nowhere_is_named(clone: Project, out: str) -> None:
    stored(clone, clone.outs()[out]).unlink()
    line = refused(clone)
    assert line.startswith(f"{out}: neither here nor in storage (")
    assert line.endswith("; dvc push where it was made, or make it again: dvc repro")


def test_file_of_a_folder_that_is_nowhere_is_an_error(clone: Project) -> None:
    stored(clone, TWO).unlink()
    assert refused(clone).startswith("folder: neither here nor in storage (")


def test_empty_remote_names_all(clone: Project) -> None:
    shutil.rmtree(clone.folder.parent / "store")
    assert refused(clone).startswith("first.txt, folder, third.txt: neither here nor in storage (")


def test_object_that_is_nowhere_but_made_again_is_no_error(clone: Project) -> None:
    stored(clone, clone.outs()["third.txt"]).unlink()
    (clone.folder / "other.txt").write_text("another\n")
    assert resumed(clone) == ["third"]


def test_object_that_is_nowhere_behind_a_stage_that_runs_is_no_error(clone: Project) -> None:
    stored(clone, clone.outs()["third.txt"]).unlink()
    clone.edit("first.py", "import", "# so\nimport")
    assert resumed(clone) == ["first", "third"]


def test_stages_run_with_the_python_of_the_command(project: Project) -> None:
    project.environment["PATH"] = os.defpath
    (project.folder / "first.py").write_text("import sys\nopen('first.txt', 'w').write(sys.prefix)\n")
    resumed(project)
    assert (project.folder / "first.txt").read_text() == sys.prefix


def test_wrong_parameter_comes_before_everything(clone: Project) -> None:
    clone.edit("params.yaml", "beta:", "bta:")
    assert refused(clone).startswith("params.yaml: train.")
    assert content(clone) == {}


def test_without_a_remote_says_how_to_set_one(clone: Project) -> None:
    clone.dvc("remote", "remove", "storage")
    assert refused(clone) == "no remote is set; dvc remote add -d storage s3://BUCKET/PREFIX"


def test_without_dvc(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    bare = Project(tmp_path, environment(tmp_path / "home") | {"PYTHONPATH": str(ROOT)})
    assert "not inside of a DVC repository" in refused(bare)


def test_failed_stage_is_told_last(project: Project) -> None:
    (project.folder / "first.py").write_text("raise SystemExit('no luck')\n")
    done = project.module("ccai", "resume")
    assert done.returncode == 2
    assert "no luck" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: dvc repro failed, its message is above; ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_reaches_the_stage(project: Project, number: signal.Signals) -> None:
    (project.folder / "first.py").write_text(
        "import signal, sys, time\n"
        "def stop(*_):\n    time.sleep(1)\n    open('saved', 'w').close()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\nopen('started', 'w').close()\ntime.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "ccai", "resume"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (project.folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    below = psutil.Process(process.pid).children(recursive=True)
    assert any("first.py" in " ".join(each.cmdline()) for each in below)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert (project.folder / "saved").exists()  # told by SIGTERM, and waited for: a training saves a checkpoint then
    assert not [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


# Damage, in a folder as remote: what holds the bytes makes no difference to what is checked


def damage(path: Path) -> None:
    """Other bytes of the same length, as a disk gives them back."""
    path.chmod(0o644)
    path.write_bytes(bytes(255 - each for each in path.read_bytes()))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def objects(project: Project) -> list[Path]:
    """What lies in DVC's cache, each checked against its name."""
    found = [path for path in (project.folder / ".dvc/cache").rglob("*") if path.is_file()]
    for path in found:
        assert hashlib.md5(path.read_bytes()).hexdigest() == (path.parent.name + path.name).removesuffix(".dir"), path
    return found


@pytest.mark.parametrize(
    ("out", "harm"),
    [("first.txt", damage), ("folder", damage), ("folder/two", damage), ("folder/two", truncate), ("folder", empty)],
)
def test_damaged_object_is_named_and_not_kept(clone: Project, out: str, harm: Harm) -> None:
    harm(stored(clone, TWO if out == "folder/two" else clone.outs()[out]))
    line = refused(clone)
    assert line.startswith(f"{out.split('/')[0]}: ")
    assert "neither" not in line
    assert str(stored(clone, TWO if out == "folder/two" else clone.outs()[out])) in line
    assert len(objects(clone)) == {"first.txt": 4, "folder": 2, "folder/two": 4}[out]
    assert content(clone) == {}


def test_damaged_object_is_mended_as_the_line_says(project: Project, clone: Project) -> None:
    there = stored(clone, TWO)
    damage(there)
    assert str(there) in refused(clone)
    there.unlink()
    assert resumed(project) == []
    assert resumed(clone) == []
    assert content(clone) == CONTENT


@pytest.mark.parametrize("harm", [truncate, empty])
def test_cut_object_in_the_remote_is_written_again_where_it_is_whole(project: Project, harm: Harm) -> None:
    harm(stored(project, TWO))
    assert resumed(project) == []
    assert stored(project, TWO).read_text() == "two\n"


# S3


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[dict[str, str], Any]]:
    with s3_server() as found:
        yield found


@pytest.fixture
def s3(clone: Project, server: tuple[dict[str, str], Any], request: pytest.FixtureRequest) -> Project:
    """The clone with a bucket of its own, empty, in an S3 on loopback as its remote."""
    clone.environment.update(server[0])
    bucket = f"bucket-{hashlib.md5(request.node.name.encode()).hexdigest()}"
    server[1].create_bucket(Bucket=bucket)
    config = clone.folder / ".dvc/config"
    config.write_text(re.sub(r"url = .*", f"url = s3://{bucket}/prefix", config.read_text()))
    return clone


@pytest.fixture
def filled(s3: Project, server: tuple[dict[str, str], Any]) -> tuple[Project, Any, str]:
    """The same with all objects in the bucket; also a client and the bucket."""
    store = s3.folder.parent / "store"
    [bucket] = re.findall(r"s3://([^/]+)", (s3.folder / ".dvc/config").read_text())
    for path in store.rglob("*"):
        if path.is_file():
            server[1].put_object(Bucket=bucket, Key=f"prefix/{path.relative_to(store)}", Body=path.read_bytes())
    return s3, server[1], bucket


def test_s3_without_the_objects(s3: Project) -> None:
    assert refused(s3).startswith("first.txt, folder, third.txt: neither here nor in storage (s3://")


def test_s3_without_credentials(s3: Project) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del s3.environment[name]
    line = refused(s3)
    assert line.startswith("storage (s3://bucket-")
    assert "no credentials; aws configure" in line


def test_s3_without_the_bucket(s3: Project) -> None:
    s3.dvc("remote", "modify", "storage", "url", "s3://other/prefix")
    assert refused(s3).startswith("storage (s3://other/prefix): no such bucket; create it")


def test_s3_denied(s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from here on, keys are checked
    assert "denied (403); allow ListBucket" in refused(s3)


@pytest.mark.parametrize(
    ("out", "harm"),
    [
        ("first.txt", "damaged"),
        ("folder", "damaged"),
        ("folder/two", "cut"),
        ("folder", "deleted"),
        ("folder/two", "deleted"),
    ],
)
def test_s3_object_that_is_damaged_or_gone(filled: tuple[Project, Any, str], out: str, harm: str) -> None:
    clone, client, bucket = filled
    oid = TWO if out == "folder/two" else clone.outs()[out]
    key = f"prefix/files/md5/{oid[:2]}/{oid[2:]}"
    body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    if harm == "deleted":
        client.delete_object(Bucket=bucket, Key=key)
    else:
        client.put_object(Bucket=bucket, Key=key, Body=body[:-3] if harm == "cut" else body[:-3] + b"xyz")
    line = refused(clone)
    assert line.startswith(f"{out.split('/')[0]}: ")
    assert ("neither here nor" in line) == (harm == "deleted")
    assert (f"s3://{bucket}/{key}" in line) == (harm != "deleted")
    objects(clone)


def overwrite(filled: tuple[Project, Any, str], oid: str, old: bytes, new: bytes) -> None:
    """Change bytes of an object in the bucket."""
    _, client, bucket = filled
    key = f"prefix/files/md5/{oid[:2]}/{oid[2:]}"
    body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    assert old in body
    client.put_object(Bucket=bucket, Key=key, Body=body.replace(old, new))


def test_s3_damage_that_dvc_took_for_whole_is_mended(filled: tuple[Project, Any, str]) -> None:
    """A pull without verify writes wrong bytes into cache and workspace, and down that they are right."""
    clone, _, _ = filled
    overwrite(filled, TWO, b"two", b"owt")
    overwrite(filled, clone.outs()["third.txt"], b"other", b"rehto")
    clone.dvc("pull")
    assert (clone.folder / "folder/two").read_text() == "owt\n"
    overwrite(filled, TWO, b"owt", b"two")
    overwrite(filled, clone.outs()["third.txt"], b"rehto", b"other")
    assert resumed(clone) == []
    assert (clone.folder / "folder/two").read_text() == "two\n"
    assert (clone.folder / "third.txt").read_text().endswith("other\n")
    objects(clone)


@pytest.mark.parametrize("out", ["third.txt", "folder/two"])
def test_s3_pull_from_a_remote_that_is_set_up_as_documented_refuses_damage(
    filled: tuple[Project, Any, str], out: str
) -> None:
    clone, _, _ = filled
    clone.dvc("remote", "modify", "storage", "verify", "true")
    overwrite(filled, TWO if out == "folder/two" else clone.outs()[out], b"o", b"u")
    assert clone.module("dvc", "pull").returncode != 0
    assert not (clone.folder / out).exists()
    objects(clone)


def test_s3_connection_that_breaks_is_made_again(filled: tuple[Project, Any, str]) -> None:
    clone, _, _ = filled
    with cutting(clone, after=30_000, times=3) as cuts:
        assert resumed(clone) == []
    assert cuts == [True] * 3
    assert content(clone) == CONTENT


def test_s3_connection_that_breaks_each_time_is_not_lost_data(filled: tuple[Project, Any, str]) -> None:
    clone, _, _ = filled
    with cutting(clone, after=10_000) as cuts:
        line = refused(clone)
    assert cuts
    assert line.startswith("storage (s3://")
    assert "neither" not in line
    assert "other bytes" not in line
    objects(clone)
    assert not list((clone.folder / ".dvc/cache").rglob("*.tmp"))


def test_s3_that_goes_away_is_not_lost_data(filled: tuple[Project, Any, str]) -> None:
    """Alive for the check of the remote, gone for the first large object."""
    clone, _, _ = filled
    with cutting(clone, after=10_000, close=True) as cuts:
        line = refused(clone)
    assert cuts
    assert "can't be reached" in line
    objects(clone)


def test_s3_that_is_not_there(s3: Project) -> None:
    s3.environment["AWS_ENDPOINT_URL_S3"] = "http://127.0.0.1:1"
    assert "can't be reached" in refused(s3)
