"""Review in a real Chromium."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from ccai.base import files
from ccai.base.errors import UserError
from ccai.base.records import DroppedPair, Pair
from ccai.review import agreement
from ccai.review.desk import Desk, View, difference, sample
from ccai.review.log import Log, Review, content, label, shown_first, standing

ROOT = Path(__file__).parents[1]
HAZARDS = ("everyday", "benign", "spc_fin")
PRINCIPLES = ("mindfulness", "emptiness", "patience")  # the last is in no constitution

NASTY = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'><b>bold</b> **stars** _line_ "
    "[link](http://example.org/x) ![i](http://example.org/i.png) `tick` ${window.hacked = 1} {{ 7 * 7 }} </textarea>"
    "\n\n  <style>* { display: none }</style>\n# no heading &lt;p&gt; \\n \u202e trick"
)


def pair(number: int, **more: Any) -> Pair:
    """A harmless pair; four of them per prompt."""

    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    fields = {
        "pair_id": f"{number:016x}",
        "prompt": said("user", f"Question {number}?"),
        "chosen": said("assistant", f"Good answer {number}."),
        "rejected": said("assistant", f"Poor answer {number}."),
        "prompt_id": f"p{number // 4}",
        "principle": PRINCIPLES[number % 3],
        "hazard": HAZARDS[number // 2 % 3],
        "round": 1,
        "chosen_tokens": 4,
        "rejected_tokens": 4,
        "chosen_model": "m",
        "rejected_model": "m",
        "verdict": None,
    }
    return Pair.model_validate(fields | more)


def judged(number: int, preference: str | None) -> Pair:
    said = {"rejected_violation": 0.5, "chosen_violation": 0.5, "preference": preference, "addresses": 0.9}
    return pair(number, verdict=said)


def review(of: Pair, choice: str, first: str = "chosen") -> Review:
    key = content(of)
    fields = {"pair_id": of.pair_id, "content": key, "first": first, "choice": choice, "note": "", "at": "2026-01-01"}
    return Review.model_validate(fields)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with parameters, constitution and six pairs; the current one."""
    make(tmp_path, monkeypatch)
    return tmp_path


def make(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "data/constitutions").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copy(ROOT / "data/constitutions/contemplative.md", folder / "data/constitutions")
    patch.chdir(folder)
    write_pairs([pair(number) for number in range(4)], [pair(number) for number in (4, 5)])


def write_pairs(train: Sequence[Pair], validation: Sequence[Pair], dropped: Sequence[Pair] = ()) -> None:
    files.write(Path("data/pairs/train.jsonl"), train)
    files.write(Path("data/pairs/validation.jsonl"), validation)
    gone = [DroppedPair(**pair.model_dump(), reason="meta_talk") for pair in dropped]
    files.write(Path("data/pairs/dropped.jsonl"), gone)


def environment() -> dict[str, str]:
    # NiceGUI takes a process with pytest's variables for one of its own tests.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "NICEGUI_"))}
    return kept | {"PYTHONPATH": str(ROOT)}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "ccai", "review", *arguments]
    return subprocess.run(line, env=environment(), capture_output=True, text=True)


class Server:
    """`ccai review` in the current folder."""

    def __init__(self, *arguments: str) -> None:
        line = [sys.executable, "-m", "ccai", "review", "--reviewer", "ann", "--no-browser", *arguments]
        self.process = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.printed = ""
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            self.printed += raw.decode()
            if address := re.search(r"http://127\.0\.0\.1:(\d+)", self.printed):
                self.port = int(address[1])
                return
        raise AssertionError(self.printed)

    def stop(self) -> None:
        self.process.terminate()
        self.printed += self.process.communicate(timeout=300)[0].decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=300)


@pytest.fixture
def serve(project: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: str) -> Server:
        servers.append(Server(*(arguments if "--port" in arguments else ("--port", "0", *arguments))))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that goes by one more name than loopback's."""
    with pytest.MonkeyPatch.context() as patch:
        make(tmp_path_factory.mktemp("guarded"), patch)
        server = Server("--port", "0", "--host", "studio.example.org")
    yield server
    server.kill()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context()
    context.set_default_timeout(120_000)
    yield context.new_page()
    context.close()


def done(page: Any, number: int) -> None:
    """Wait until the page says that so many are done."""
    page.get_by_text(f"{number} of 6 done").wait_for()


def on_disk() -> list[Review]:
    return files.read(Path("data/reviews/ann.jsonl"), Review)


def test_every_verdict_is_on_disk_when_the_page_goes_on_and_a_killed_server_resumes(
    serve: Callable[..., Server], page: Any
) -> None:
    server = serve()
    page.goto(f"http://127.0.0.1:{server.port}/")
    done(page, 0)
    for number, (step, choice) in enumerate(
        [
            (lambda: page.keyboard.press("1"), "first"),
            (lambda: page.keyboard.press("ArrowRight"), "second"),
            (lambda: page.get_by_role("button", name="Tie").click(), "tie"),
        ],
        start=1,
    ):
        step()
        done(page, number)
        assert [said.choice for said in on_disk()][number - 1 :] == [choice]
    page.evaluate("window.old = true")
    server.kill()
    assert len(on_disk()) == 3
    serve("--port", str(server.port))
    page.wait_for_function("!window.old")  # the open page finds the new server by itself
    done(page, 3)
    page.keyboard.press("4")
    done(page, 4)
    page.keyboard.press("u")
    done(page, 3)
    assert [said.choice for said in on_disk()] == ["first", "second", "tie", "both_bad", "undo"]
    again = page.locator(".answers").inner_text()
    page.keyboard.press("n")
    page.locator("textarea:focus").fill("1 of 2 reasons: u")  # no key of a note is a verdict
    page.keyboard.press("2")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+1")
    page.keyboard.press("5")
    done(page, 4)
    skipped, withdrawn = on_disk()[-1], on_disk()[-2]
    assert (skipped.choice, skipped.note) == ("skip", "1 of 2 reasons: u2")
    assert skipped.content == withdrawn.content
    assert again != page.locator(".answers").inner_text()
    page.keyboard.press("1")
    done(page, 5)
    page.keyboard.press("1")
    page.get_by_text("All pairs have a verdict").wait_for()
    assert len({said.content for said in on_disk()}) == 6


def test_a_key_pressed_twice_or_in_two_pages_is_one_verdict(serve: Callable[..., Server], page: Any) -> None:
    server = serve()
    other = page.context.new_page()
    for tab in (page, other):
        tab.goto(f"http://127.0.0.1:{server.port}/")
        done(tab, 0)
    page.evaluate(
        """() => { for (const type of ["keydown", "keydown"])
                document.dispatchEvent(new KeyboardEvent(type, {key: "1", code: "Digit1", bubbles: true})) }"""
    )
    done(page, 1)
    done(other, 1)
    page.keyboard.press("2")
    done(other, 2)
    assert [said.choice for said in on_disk()] == ["first", "second"]


def test_the_page_is_blind_shows_plain_text_and_asks_no_other_host(serve: Callable[..., Server], page: Any) -> None:
    long = "endless" * 300
    texts = {"chosen": f"A {NASTY}", "rejected": f"B {NASTY}\n{long}"}
    answers = {side: [{"role": "assistant", "content": text}] for side, text in texts.items()}
    write_pairs([pair(0, **answers, prompt=[{"role": "user", "content": NASTY}])], [pair(1)])
    heard: list[str] = []
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda answer: heard.append(answer.text()) if answer.url.endswith("/") else None)
    page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: heard.append(str(frame))))
    server = serve()
    page.goto(f"http://127.0.0.1:{server.port}/")
    for count in (0, 1):
        page.get_by_text(f"{count} of 2 done").wait_for()
        heard.append(page.content())
        shown = page.locator(".answers .text").all_text_contents()
        if len(shown[0]) > 100:
            assert sorted(shown) == sorted(texts.values())
            assert NASTY in page.locator(".text").all_text_contents()
        page.keyboard.press("1")
    page.get_by_text("All pairs have a verdict").wait_for()
    heard.append(page.content())
    assert page.evaluate("window.hacked") is None
    assert len(heard) > 4
    assert not re.search("chosen|rejected|meta_talk|patience_", " ".join(heard).casefold())
    assert {urlsplit(url).hostname for url in asked if not url.startswith("data:")} == {"127.0.0.1"}
    server.stop()
    assert server.process.returncode == 143
    assert not any(word in server.printed for word in ("window", "Question", "Traceback")), server.printed
    assert not Path(".nicegui").exists()


def test_filters_criteria_and_differences(serve: Callable[..., Server], page: Any) -> None:
    """All by keys; what is marked is what one answer says and the other does not."""
    server = serve()
    page.goto(f"http://127.0.0.1:{server.port}/")
    done(page, 0)
    assert "content-security-policy" in page.request.get(f"http://127.0.0.1:{server.port}/").headers
    page.locator("select[name=principle]").focus()
    page.keyboard.type("em")
    page.get_by_text("Emptiness (śūnyatā)").wait_for()
    assert page.locator("li").count() > 2
    page.locator("h1").click()
    page.keyboard.press("d")
    page.locator(".only").first.wait_for()
    assert sorted(page.locator(".only").all_inner_texts()) == ["Good ", "Poor "]
    page.keyboard.press("d")
    page.wait_for_function("!document.querySelector('.part')")
    for number in (1, 2):
        page.keyboard.press("1")
        done(page, number)
    page.get_by_text("All pairs like that have a verdict").wait_for()
    kept = {content(one): one for one in files.read(Path("data/pairs/train.jsonl"), Pair)}
    kept |= {content(one): one for one in files.read(Path("data/pairs/validation.jsonl"), Pair)}
    assert {kept[said.content].principle for said in on_disk()} == {"emptiness"}
    page.locator("select[name=principle]").select_option("")
    page.get_by_text("Which answer is better").wait_for()  # the lists are made anew
    page.locator("select[name=hazard]").select_option("spc_fin")
    page.get_by_text("Question 5?").wait_for()


def test_what_differs_is_told_by_words_and_in_bounded_time() -> None:
    assert difference("one two\n three", "one 2\nthree four") == (
        [("one ", False), ("two\n ", True), ("three", False)],
        [("one ", False), ("2\n", True), ("three ", False), ("four", True)],
    )
    parts = difference(NASTY, f"  {NASTY} more")
    assert parts and ["".join(text for text, _ in side) for side in parts] == [NASTY, f"  {NASTY} more"]
    assert difference("word " * 200_000, "other") is None


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:PORT", None, 200),
        ("localhost:9000", "http://localhost:9000", 200),
        ("[::1]:PORT", None, 200),
        ("Studio.example.org", "https://studio.example.org", 200),
        ("127.0.0.1:PORT", "https://studio.example.org", 200),
        ("evil.example:PORT", None, 403),
        ("evil.example:PORT", "http://evil.example:PORT", 403),
        ("127.0.0.1.evil.example", None, 403),
        ("127.0.0.1:PORT", "http://evil.example", 403),
        ("127.0.0.1:PORT", "http://127.0.0.1:9000", 403),
        ("127.0.0.1:PORT", "null", 403),
        ("127.0.0.1:PORT@evil.example", None, 403),
        ("[", None, 403),
        ("", None, 403),
    ],
)
def test_only_who_asks_for_this_page_by_its_name_is_answered(
    guarded: Server, host: str, origin: str | None, status: int
) -> None:
    """A site that was opened in the same browser can lead its own name to this port, or ask under its own origin."""
    port = str(guarded.port)
    headers = f"Host: {host}\r\n" + (f"Origin: {origin}\r\n" if origin else "")
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    upgrade += "dGhlIHNhbXBsZSBub25jZQ==\r\n"
    asked = {"/": "Connection: close\r\n", "/_nicegui_ws/socket.io/?EIO=4&transport=websocket": upgrade}
    for path, more in asked.items():
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=120) as line:
            line.sendall(f"GET {path} HTTP/1.1\r\n{headers}{more}\r\n".replace("PORT", port).encode())
            answered = line.recv(64).split()[1]
        assert answered == (b"101" if status == 200 and path != "/" else str(status).encode()), path


def test_on_a_phone_nothing_is_wider_than_the_screen_and_dark_is_dark(
    serve: Callable[..., Server], chromium: Any
) -> None:
    write_pairs([pair(0, chosen=[{"role": "assistant", "content": "endless" * 300}])], [pair(1)])
    server = serve("-n", "1")
    context = chromium.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.get_by_role("button", name="Skip").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.wait_for_function("getComputedStyle(document.body).backgroundColor === 'rgb(18, 18, 18)'")
    assert page.get_by_role("button", name="Skip").bounding_box()["y"] < 740  # in reach without scrolling
    context.close()


@pytest.mark.parametrize("says_so", [True, False])
def test_works_behind_a_proxy_that_takes_its_prefix_off(serve: Callable[..., Server], page: Any, says_so: bool) -> None:
    server = serve() if says_so else serve("--prefix", "jupyter/default/proxy/9/")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    with proxy(
        server.port,
        "/jupyter/default/proxy/9",
        {"X-Forwarded-Prefix": "/jupyter/default/proxy/9" if says_so else "/other"},
    ) as address:
        page.goto(f"{address}/jupyter/default/proxy/9/")
        done(page, 0)
        page.keyboard.press("2")
        done(page, 1)
        page.goto("about:blank")
    assert [path for path in asked if path and not path.startswith("/jupyter/default/proxy/9/")] == []
    assert on_disk()[0].choice == "second"


@contextmanager
def proxy(port: int, prefix: str, headers: dict[str, str]) -> Iterator[str]:
    """Hands on what is asked under a prefix, without it, websockets too, as jupyter-server-proxy does."""

    async def handle(request: web.Request) -> web.StreamResponse:
        target = f"http://127.0.0.1:{port}{str(request.rel_url).removeprefix(prefix)}"
        async with aiohttp.ClientSession() as session:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                outer = web.WebSocketResponse()
                await outer.prepare(request)
                async with session.ws_connect(target) as inner:

                    async def copy(source: Any, sink: Any) -> None:
                        async for message in source:
                            await sink.send_str(message.data)

                    ways = [asyncio.create_task(copy(*way)) for way in ((outer, inner), (inner, outer))]
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                    for way in ways:
                        way.cancel()
                return outer
            async with session.request(request.method, target, headers=headers, data=await request.read()) as answer:
                kept = {name: answer.headers[name] for name in ("Content-Type",) if name in answer.headers}
                return web.Response(body=await answer.read(), status=answer.status, headers=kept)

    started: Future[int] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        application = web.Application()
        application.router.add_route("*", prefix + "/{rest:.*}", handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        started.set_result(runner.addresses[0][1])
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{started.result(60)}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_sample_is_even_and_the_same_whatever_the_order() -> None:
    pairs = [pair(number) for number in range(120)]
    taken = sample(pairs, 30, seed=1)
    assert len({one.prompt_id for one in taken}) == 30  # of 30 prompts, each once
    for name in ("principle", "hazard"):
        counts = Counter(getattr(one, name) for one in taken)
        assert len(counts) == 3 and max(counts.values()) - min(counts.values()) <= 2
    shuffled = random.Random(0).sample(pairs, len(pairs))
    assert sample(shuffled, 30, seed=1) == taken
    assert sample(pairs, 12, seed=1) == taken[:12]
    assert sample(pairs, 30, seed=2) != taken
    assert len(sample(pairs, 1000, seed=1)) == 120


def test_order_of_answers_is_even_and_another_for_another_reviewer() -> None:
    pairs = [pair(number) for number in range(200)]
    ann, bob = ([shown_first(one, name) for one in pairs] for name in ("ann", "bob"))
    assert 70 < ann.count("chosen") < 130
    assert 70 < sum(a == b for a, b in zip(ann, bob, strict=True)) < 130


def test_answers_stand_as_recorded(tmp_path: Path) -> None:
    pairs = [pair(number) for number in range(8)]
    desk = Desk(pairs, Log(tmp_path / "ann.jsonl"), "ann")
    while (key := desk.current(View())) is not None:
        good = desk.answers(key)[0].startswith("Good")
        desk.choose(key, "first" if good else "second", "")
        desk.choose(key, "tie", "")  # too late
    assert [label(said) for said in desk.log.reviews] == ["chosen"] * 8
    assert {said.choice for said in desk.log.reviews} == {"first", "second"}


def test_log_drops_a_torn_line_and_is_for_one_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reviews/ann.jsonl"
    log = Log(path)
    log.append(review(pair(0), "tie"))
    with pytest.raises(UserError, match="in use by another"):
        Log(path)
    log.close()
    path.write_bytes(path.read_bytes() + b'{"pair_id": "0000')
    again = Log(path)
    assert [said.choice for said in again.reviews] == ["tie"]
    assert "cut short" in capsys.readouterr().err
    again.append(review(pair(1), "skip"))
    assert [said.choice for said in files.read(path, Review)] == ["tie", "skip"]
    again.close()
    path.write_text('{"pair_id": 1}\n')
    with pytest.raises(UserError, match=r"ann.jsonl:1: pair_id"):
        Log(path)


def test_a_verdict_that_cannot_be_written_leaves_no_part_of_itself(tmp_path: Path) -> None:
    log = Log(tmp_path / "ann.jsonl")
    log.append(review(pair(0), "tie"))
    size = (tmp_path / "ann.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
    try:
        with pytest.raises(OSError):
            log.append(review(pair(1), "first"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "ann.jsonl").stat().st_size == size
    assert len(log.reviews) == 1


def test_kappa_of_a_textbook_table() -> None:
    # Fleiss, Cohen & Everitt (1969) is what statsmodels has; the table is the usual 20, 5, 10, 15 with kappa 0.4
    a = ["chosen"] * 25 + ["rejected"] * 25
    b = ["chosen"] * 20 + ["rejected"] * 5 + ["chosen"] * 10 + ["rejected"] * 15
    found = agreement.agreement(a, b)  # type: ignore[arg-type]
    assert (found.n, found.raw.estimate, round(found.kappa.estimate, 12)) == (50, 0.7, 0.4)
    assert found.kappa.low == pytest.approx(0.1511, abs=1e-4)
    assert found.kappa.high == pytest.approx(0.6489, abs=1e-4)


def test_kappa_without_spread_has_no_interval() -> None:
    alike = agreement.agreement(["chosen"] * 5, ["chosen"] * 5)
    assert alike.raw.estimate == 1
    assert str(alike.kappa[:3]) == "(nan, nan, nan)"
    complete = agreement.agreement(["chosen", "tie"] * 5, ["chosen", "tie"] * 5)
    assert str(complete.kappa[:3]) == "(1.0, nan, nan)"
    constant = agreement.agreement(["chosen"] * 8, ["chosen", "tie"] * 4)
    assert str(constant.kappa[:3]) == "(0.0, nan, nan)"


def test_labels_and_majority() -> None:
    said = [label(review(pair(0), choice, "rejected")) for choice in ("first", "second", "tie", "both_bad")]
    assert said == ["rejected", "chosen", "tie", "tie"]
    assert label(review(pair(0), "skip")) is None
    assert agreement.majority(["chosen", "chosen", "tie"]) == "chosen"
    assert agreement.majority(["chosen", "rejected"]) == "tie"
    one, two = review(pair(0), "first"), review(pair(1), "tie")
    undone = review(pair(1), "undo")
    assert list(standing([one, two, undone]).values()) == [one]
    assert list(standing([one, two, one]).values()) == [two, one]


def test_agreement_of_people_and_judge(project: Path) -> None:
    preferences = ("chosen", "chosen", "tie", "rejected", None)
    kept = [judged(number, preference) for number, preference in enumerate(preferences)]
    dropped = [judged(9, "rejected")]
    write_pairs(kept[:3], kept[3:], dropped)
    gone = pair(0, chosen=[{"role": "assistant", "content": "of an earlier run"}])
    ann = [
        *(review(kept[at], choice) for at, choice in enumerate(("first", "second", "tie", "first", "first"))),
        review(dropped[0], "second"),
        review(gone, "first"),
    ]
    bob = [review(kept[0], "second", "rejected"), review(kept[1], "first"), review(kept[2], "skip")]
    for name, said in (("ann", ann), ("bob", bob)):
        files.write(Path(f"data/reviews/{name}.jsonl"), said)
    finished = command("--agreement")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(Path("metrics/review.json").read_text())
    assert (found["reviewers"], found["pairs"], found["outdated"]) == (2, 6, 1)
    # ann: chosen rejected tie chosen chosen; bob: chosen chosen; together: chosen tie tie chosen chosen
    assert (found["people"]["n"], found["people"]["ties"]) == (5, 2)
    assert found["people"]["chosen_preferred"]["mean"] == 1
    assert found["people"]["chosen_preferred"]["low"] == pytest.approx(0.2924, abs=1e-4)  # exact, 3 of 3
    assert found["by_reviewer"]["ann"]["chosen_preferred"]["mean"] == 0.75
    assert found["by_reviewer"]["ann"]["first_preferred"]["mean"] == 0.6
    assert found["by_reviewer"]["bob"]["skipped"] == 1
    assert set(found["people"]["by_principle"]) == {"mindfulness", "emptiness", "patience"}
    # with the judge: chosen-chosen, tie-chosen, tie-tie, chosen-rejected, and the dropped one rejected-rejected
    assert found["people_judge"]["n"] == 5
    assert found["people_judge"]["raw"]["mean"] == 0.6
    assert found["people_judge"]["without_ties"]["n"] == 3
    assert found["people_judge"]["without_ties"]["raw"]["mean"] == pytest.approx(2 / 3)
    assert found["between_reviewers"]["ann, bob"]["n"] == 2
    assert found["between_reviewers"]["ann, bob"]["raw"]["mean"] == 0.5
    assert "people and judge: 5 pairs, raw 0.60" in finished.stdout
    assert not re.search("Question|answer", finished.stdout)


def test_without_a_judge_it_says_so(project: Path) -> None:
    files.write(Path("data/reviews/ann.jsonl"), [review(pair(0), "first"), review(pair(1), "second")])
    finished = command("--agreement")
    assert finished.returncode == 0, finished.stderr
    assert "none of these pairs has a judge's preference" in finished.stdout
    found = json.loads(Path("metrics/review.json").read_text())
    assert found["people_judge"] is None
    assert found["people"]["chosen_preferred"] == {
        "mean": 0.5,
        "low": pytest.approx(0.0126, abs=1e-4),
        "high": pytest.approx(0.9874, abs=1e-4),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--reviewer NAME: give a name"),
        (["--reviewer", "../ann"], "--reviewer NAME: give a name"),
        (["--reviewer", "ann", "-n", "0"], "-n 0: give 1 or more"),
        (["--reviewer", "ann", "--judged"], "data/pairs: no pairs with a judge's preference"),
        (["--reviewer", "ann", "--port", "70000"], "--port 70000"),
        (["--agreement"], "data/reviews: no verdict on the pairs as they are now (0 on other texts)"),
    ],
)
def test_bad_input_is_one_line(project: Path, arguments: list[str], message: str) -> None:
    finished = command(*arguments)
    assert (finished.returncode, finished.stderr.count("\n")) == (2, 1), finished.stderr
    assert message in finished.stderr
    assert not Path("metrics").exists()


def test_a_taken_port_and_a_taken_name_are_one_line(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = command("--reviewer", "ann", "--port", port)
    assert (finished.returncode, finished.stderr.count("\n")) == (2, 1), finished.stderr
    assert f"--port {port}" in finished.stderr
    with Path("data/reviews/ann.jsonl").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        finished = command("--reviewer", "ann", "--port", "0")
    assert finished.returncode == 2
    assert "in use by another" in finished.stderr
