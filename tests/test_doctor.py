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

from ccai import cache, doctor
from ccai.journal import Journal

ROOT = Path(__file__).parents[1]
LINE = re.compile(r"(ok|warning|failed) +(\w+) +(.+)")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setenv("HOME", str(tmp_path))
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
    line = [sys.executable, "-m", "ccai.doctor", "--no-model"]
    return subprocess.run(line, capture_output=True, text=True)


def remote() -> tuple[str, str]:
    [finding] = doctor.remote()
    return finding


def test_everything_is_one_line_and_nothing_failed() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    found = {(match[1], match[2]): match[3] for match in map(LINE.fullmatch, done.stdout.splitlines()) if match}
    assert len(found) == len(done.stdout.splitlines())
    for name in ("python", "params", "constitution", "sources", "device", "dvc", "remote", "disk", "journal"):
        assert any(there == name and status in ("ok", "warning") for status, there in found), name
    assert "dvc remote add -d storage s3://BUCKET/PREFIX" in found["ok", "remote"]
    assert "not committed → git commit" in found["warning", "git"]
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
    assert capsys.readouterr().out == ("ok      thing        so far\nfailed  thing        ZeroDivisionError: by zero\n")


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
    assert "python -m ccai.sources fetch ailuminate" in first.text
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
