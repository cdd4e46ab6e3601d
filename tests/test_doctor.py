from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import settings as moto_settings
from moto.server import ThreadedMotoServer

from ccai.base import cache
from ccai.cli import doctor
from ccai.generate.journal import Journal

ROOT = Path(__file__).parents[1]
LINE = re.compile(r"(ok|warning|failed) +(\w+) +(.+)")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of what the checks read, under git and DVC, without a remote, as the current folder."""
    for name in ("conf", "data/constitutions", "data/sources", "data/templates"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("params.yaml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CCAI_CACHE", str(tmp_path / ".ccai-cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Nothing of whoever runs the tests: neither credentials nor a global git or DVC configuration.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # dvc writes there in the background
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    call("git", "init", "-q")
    dvc("init", "-q")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 of our own on loopback, with the bucket `bucket`, as DVC's remote; the address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
    dvc("remote", "add", "-q", "-d", "storage", "s3://bucket/prefix")
    yield address
    server.stop()


def call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def dvc(*arguments: str) -> None:
    call(sys.executable, "-m", "dvc", *arguments)


def run() -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ccai", "doctor", "--no-model"]
    return subprocess.run(line, capture_output=True, text=True)


def remote() -> tuple[str, str]:
    finding, *rest = doctor.remote()
    assert all("verify true" in each.text for each in rest)
    return finding


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What the checks of git, DVC, remote and disk print; each line that is not ok must say what to do."""
    for name, check in {
        "git": doctor.git,
        "dvc": doctor.pipeline,
        "remote": doctor.remote,
        "disk": doctor.disk,
    }.items():
        doctor.report(name, check)
    printed = capsys.readouterr()
    assert printed.err == ""
    for line in printed.out.splitlines():
        assert LINE.fullmatch(line), line
        assert line.startswith("ok") or " → " in line, line
    return printed.out


def test_everything_is_one_line_and_nothing_failed() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    found = {(match[1], match[2]): match[3] for match in map(LINE.fullmatch, done.stdout.splitlines()) if match}
    assert len(found) == len(done.stdout.splitlines())
    for name in ("python", "params", "constitution", "sources", "device", "dvc", "remote", "disk", "journal"):
        assert any(there == name and status in ("ok", "warning") for status, there in found), name
    assert "dvc remote add -d storage s3://BUCKET/PREFIX" in found["ok", "remote"]
    assert "→ git commit" in found["warning", "git"]
    assert ("ok", "model") not in found


def test_broken_params_fail_and_the_rest_is_still_checked() -> None:
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("beta:", "bta:"))
    done = run()
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert re.search(r"^failed +params +params\.yaml: train\.b\w+: .* → ", done.stdout, re.MULTILINE)
    assert "need params.yaml: not checked" in done.stdout
    assert re.search(r"^ok +journal ", done.stdout, re.MULTILINE)


def test_check_that_crashes_is_one_failed_line(capsys: pytest.CaptureFixture[str]) -> None:
    def crash() -> Iterator[doctor.Finding]:
        yield doctor.Finding("ok", "so far")
        raise ZeroDivisionError("by\nzero")

    assert doctor.report("thing", crash)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "ok      thing        so far"
    assert second.startswith("failed  thing        ZeroDivisionError: by zero → ")


def test_package_that_is_not_as_pinned_is_a_warning() -> None:
    Path("requirements.txt").write_text('# why\npytest==0.1\nnot-there==1.0  # so\nodd==1; python_version < "3"\n')
    [finding] = doctor.packages()
    assert finding.status == "warning"
    assert finding.text.startswith("2 not as pinned: pytest ")
    assert finding.text.endswith("not ==0.1; not-there missing → pip install -r requirements.txt")


def test_source_not_fetched_names_the_command_and_others_are_still_checked() -> None:
    settings = doctor.params.load()
    both = settings.prompts.model_copy(update={"sources": ["ailuminate", "contemplative"]})
    first, second = doctor.chosen_sources(settings.model_copy(update={"prompts": both}))
    assert first.status == "failed"
    assert "ccai sources fetch ailuminate" in first.text
    assert second == ("ok", "contemplative: 254 prompts")


def test_evaluation_sets_are_checked_like_sources() -> None:
    Path("suite.jsonl").write_text('{"text": "How do whales sleep?"}\n')
    settings = doctor.params.load()
    sets = [settings.prompts.sources[0].model_copy(update={"source": name}) for name in ("suite.jsonl", "gone.csv")]
    both = settings.prompts.model_copy(update={"evaluation_sets": sets})
    _, there, missing = doctor.chosen_sources(settings.model_copy(update={"prompts": both}))
    assert there == ("ok", "suite.jsonl: 1 prompts to evaluate with")
    assert (missing.status, missing.text.split()[0]) == ("failed", "gone.csv:")


def test_stale_stages_are_named_and_unfetched_sources_are_not() -> None:
    Path("dvc.yaml").write_text("stages:\n  first:\n    cmd: python -c 0\n    deps: [params.yaml]\n")
    assert list(doctor.pipeline()) == [("ok", "to run: first (dvc repro)")]


def test_without_dvc_or_git_says_how_to_begin() -> None:
    shutil.rmtree(".dvc")
    shutil.rmtree(".git")
    assert list(doctor.pipeline()) == [("failed", "not a DVC repository → dvc init")]
    [finding] = doctor.git()
    assert finding.status == "warning"
    assert "git init" in finding.text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"['remote \"storage",
        b"[core]\n    remote = nowhere\n",
        b"[core]\nremote\n= x [[[",
        b"\xff\xfe\x00",
        b"[core]\n    remote = storage\n['remote \"storage\"']\n    verify = true\n",
        b"[core]\n    remote = storage\n['remote \"storage\"']\n    url = s3x://bucket\n",
        b"[core]\n    autostage = maybe\n",
    ],
)
def test_odd_dvc_config_is_told_with_a_remedy(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    Path(".dvc/config").write_bytes(content)
    assert ("\nfailed" in told(capsys)) == (content != b"")


def test_dvc_config_that_is_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".dvc/config").unlink()
    Path(".dvc/config").mkdir()
    told(capsys)


def test_torn_dvc_yaml_and_lock_are_told_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    Path("dvc.yaml").write_text("stages:\n  first:\n    cmd: [")
    assert "\nfailed  dvc " in told(capsys)
    Path("dvc.yaml").write_text("stages:\n  first:\n    cmd: python -c 0\n    outs: [x]\n")
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  first:\n    cmd: [\n")
    assert "\nfailed  dvc " in told(capsys)


def test_git_states_are_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@localhost")
    assert [finding.status for finding in doctor.git()] == ["warning"]  # no commit yet
    for message in ("one", "two"):
        call("git", "add", "-A")
        call("git", "commit", "-q", "--allow-empty", "-m", message)
    [finding] = doctor.git()
    assert finding.status == "ok", finding
    call("git", "checkout", "-q", "HEAD~1")
    assert [finding.status for finding in doctor.git()] == ["ok", "warning"]
    call("git", "clone", "-q", "--depth", "1", f"file://{tmp_path}", str(tmp_path / "shallow"))
    monkeypatch.chdir(tmp_path / "shallow")
    assert any("--unshallow" in finding.text for finding in doctor.git())
    monkeypatch.setenv("PATH", str(tmp_path))
    [finding] = doctor.git()  # no git at all
    assert finding.status == "warning"
    told(capsys)


def test_another_folder_than_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    done = run()
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr


def test_damaged_journal_lines_are_counted() -> None:
    kept = Journal(cache.folder("journal"))
    kept.put({key: {"probabilities": [0.5]} for key in "ab"})
    kept.close()
    [segment] = cache.folder("journal").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes()[:-5])
    assert [finding.text.split()[0] for finding in doctor.journal()] == ["1", "1"]


def test_remote_folder_round_trip() -> None:
    dvc("remote", "add", "-q", "-d", "storage", "store")
    status, text = remote()
    assert (status, text.endswith("written, read, deleted")) == ("ok", True)
    assert list(Path("store").iterdir()) == []


def test_remote_without_verify_is_warned_about() -> None:
    dvc("remote", "add", "-q", "-d", "storage", "store")
    _, finding = doctor.remote()
    assert finding.status == "warning"
    assert finding.text.endswith("→ dvc remote modify storage verify true")
    dvc("remote", "modify", "storage", "verify", "true")
    [finding] = doctor.remote()
    assert finding.status == "ok"


def test_remote_s3_round_trip_leaves_nothing(s3: str) -> None:
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=s3)
    before = client.list_objects_v2(Bucket="bucket").get("Contents")  # of other tests: moto has one store a process
    assert remote() == ("ok", "storage (s3://bucket/prefix): written, read, deleted")
    assert client.list_objects_v2(Bucket="bucket").get("Contents") == before


def test_remote_s3_no_such_bucket(s3: str) -> None:
    dvc("remote", "modify", "storage", "url", "s3://other/prefix")
    assert remote()[1].startswith("storage (s3://other/prefix): no such bucket → create it")


def test_remote_s3_no_credentials(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    status, text = remote()
    assert status == "failed"
    assert "no credentials → aws configure" in text


def test_remote_s3_wrong_profile(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "no such profile in ~/.aws" in remote()[1]


def test_remote_s3_denied(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from here on, keys are checked
    status, text = remote()
    assert status == "failed"
    assert "denied (403) → allow ListBucket" in text


def test_remote_s3_unreachable(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert "can't be reached → check the network" in remote()[1]
