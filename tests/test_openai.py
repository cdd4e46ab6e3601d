"""The engine for endpoints, against a server of our own that does what servers do on bad days."""

from __future__ import annotations

import base64
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from math import log
from typing import Any
from urllib.parse import quote

import pytest
from conftest import ROOT
from helpers.endpoint import BROKEN, CUT_SHORT, EDITS, MALFORMED, PACKED, REDIRECTS, STATUS, Server, serving

from ccai.base.errors import UserError
from ccai.base.params import Generation
from ccai.base.records import Message
from ccai.engines.base import Completed, Engine, Request
from ccai.engines.endpoint import Endpoint

KEY = "sk-thekeythatmustnotbeprinted"
SAMPLING = Generation(temperature=0.7, min_p=0, repetition_penalty=1)
GREEDY = SAMPLING.model_copy(update={"temperature": 0.0})
PROMPTS = [f"Question {n}?" for n in range(8)]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy before loopback, a key that must not be sent, and a client that soon asks again."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-somebodyelses")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-somebodyelses")


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One retry: giving up is soon seen."""
    monkeypatch.setattr("ccai.engines.endpoint.RETRIES", 1)


def endpoint(*servers: Server | str, **changes: Any) -> Endpoint:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    entry = {"endpoints": urls, "model": "org/m", "revision": "0123abcd", "concurrency": 4, "timeout": 30} | changes
    return Endpoint("served", entry)


def requests(
    prompts: Sequence[str] = PROMPTS, sampling: Generation = SAMPLING, limit: int = 6, seed: int = 100
) -> list[Request]:
    return [
        Request((Message(role="user", content=prompt),), 0, seed + number, limit, sampling)
        for number, prompt in enumerate(prompts)
    ]


def run(engine: Engine, wanted: Sequence[Request]) -> list[Completed]:
    """All completions in order; each is yielded once."""
    found = [item for batch in engine.complete(wanted) for item in batch]
    assert sorted(place for place, _ in found) == list(range(len(wanted)))
    return [done for _, done in sorted(found)]


def until_error(batches: Iterator[list[tuple[int, Any]]]) -> tuple[list[int], UserError]:
    """What was yielded before the error, and the error."""
    found: list[int] = []
    with pytest.raises(UserError) as caught:
        for batch in batches:
            found += [place for place, _ in batch]
    assert len(str(caught.value).splitlines()) == 1
    return found, caught.value


EXPECTED = [Completed(f"Question {n}? Written with {100 + n}.", "stop", 7, 5) for n in range(8)]


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


# --- what is asked, and what comes back ----------------------------------------------------------------------


def test_completions_are_those_of_the_server() -> None:
    with serving(Server()) as server:
        assert run(endpoint(server), requests()) == EXPECTED
        cut = run(endpoint(server), requests(limit=3))
        assert cut[0] == Completed("Question 0? Written", "length", 7, 3)
        assert run(endpoint(server), []) == []
    assert sum(server.answered.values()) == 16


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (SAMPLING, {"temperature": 0.7, "seed": 100}),
        (GREEDY, {"temperature": 0.0}),
        (SAMPLING.model_copy(update={"min_p": 0.05}), {"temperature": 0.7, "seed": 100, "min_p": 0.05}),
        (GREEDY.model_copy(update={"min_p": 0.05}), {"temperature": 0.0}),
        (GREEDY.model_copy(update={"repetition_penalty": 1.2}), {"temperature": 0.0, "repetition_penalty": 1.2}),
    ],
)
def test_only_what_is_not_neutral_is_sent(sampling: Generation, expected: dict[str, Any]) -> None:
    with serving(Server()) as server:
        run(endpoint(server), requests(["Why?"], sampling))
    always = {"model": "org/m", "messages": [{"role": "user", "content": "Why?"}], "max_tokens": 6}
    assert server.bodies == [always | expected]


def test_the_templates_variables_are_sent() -> None:
    with serving(Server()) as server:
        run(endpoint(server, template={"thinking": False}), requests(["Why?"]))
    [body] = server.bodies
    assert body["chat_template_kwargs"] == {"thinking": False}


def test_seeds_fit_into_31_bits() -> None:
    with serving(Server()) as server:
        run(endpoint(server), requests(["Why?", "How?"], seed=2**59 + 5))
    assert sorted(body["seed"] for body in server.bodies) == [5, 6]


def test_blank_text_is_a_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    """`generation.complete` draws it again; here it is no fault."""
    for content in ("", " \n", None):
        monkeypatch.setitem(EDITS, "blank", (("choices", 0, "message", "content"), content))
        with serving(Server(always="blank")) as server:
            assert run(endpoint(server), requests(["Why?"])) == [Completed("", "stop", 7, 4)]
        assert len(server.bodies) == 1


def test_estimate_is_left_open() -> None:
    assert endpoint("http://127.0.0.1:9/v1").estimate(requests()) is None


# --- faults that pass -----------------------------------------------------------------------------------------

RETRIED = ["429", "500", "503", *MALFORMED, *EDITS, *PACKED, CUT_SHORT, "closed", "cut body"]


@pytest.mark.parametrize("fault", RETRIED)
def test_fault_that_passes_leaves_no_trace(fault: str) -> None:
    faults = {PROMPTS[0]: [fault], PROMPTS[3]: [fault], PROMPTS[7]: [fault]}
    with serving(Server(faults)) as server:
        assert run(endpoint(server), requests()) == EXPECTED
    assert server.answered == dict.fromkeys(PROMPTS, 1)
    assert len(server.bodies) == len(PROMPTS) + 3


def test_all_faults_of_a_bad_day() -> None:
    faults = {prompt: RETRIED[number::8] for number, prompt in enumerate(PROMPTS)}
    with serving(Server({prompt: several[:3] for prompt, several in faults.items()})) as server:
        assert run(endpoint(server), requests()) == EXPECTED
    assert server.answered == dict.fromkeys(PROMPTS, 1)


def test_retry_after_is_honoured() -> None:
    with serving(Server({"Why?": ["429"]}, retry_after=0.4)) as server:
        run(endpoint(server), requests(["Why?"]))
    first, second = server.times
    assert second - first >= 0.4


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_request_without_an_answer_in_time_is_asked_again(fault: str) -> None:
    with serving(Server({PROMPTS[0]: [fault]})) as server:
        assert run(endpoint(server, timeout=2), requests()) == EXPECTED
        wait_for(lambda: server.gone == 1)


# --- faults that stay -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", RETRIED)
def test_fault_that_stays_is_one_line_after_the_finished_ones(once: None, fault: str) -> None:
    with serving(Server({PROMPTS[4]: [fault] * 9})) as server:
        finished, error = until_error(endpoint(server, concurrency=1).complete(requests()))
    assert finished == [0, 1, 2, 3]
    assert len(server.bodies) == 4 + 2
    assert str(error).startswith(f"model served: endpoint {server.url}: ")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("429", "answered 429 (slow down; you sent Bearer none); none is left"),
        ("500", "answered 500 (something broke"),
        ("an error", "answered 200 with an error (overloaded, try later [2J)"),
        ("empty body", "the reply is not a completion (0 bytes: invalid JSON: EOF while parsing a value at line 1 col"),
        ("invalid json", ", not b'<html>Bad gateway</html>')"),
        ("empty choices", "(choices: list should have at least 1 item after validation, not 0, not [])"),
        ("content of a wrong type", "(choices.0.message.content: input should be a valid string, not 5)"),
        ("content filter", "(choices.0.finish_reason: input should be 'stop' or 'length', not 'content_filter')"),
        ("missing usage", "(usage: field required); none is left"),
        (CUT_SHORT, "cut a completion at 5 of 6 tokens; start it with a larger context"),
        ("closed", "Server disconnected without sending a response."),
        ("cut body", "peer closed connection without sending complete message body (received "),
    ],
)
def test_report_says_what_came(once: None, fault: str, message: str) -> None:
    with serving(Server(always=fault)) as server:
        _, error = until_error(endpoint(server).complete(requests(["Why?"])))
    assert message in str(error)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_no_answer_in_time_is_one_line(once: None, fault: str) -> None:
    with serving(Server(always=fault)) as server:
        _, error = until_error(endpoint(server, timeout=0.2).complete(requests(["Why?"])))
        assert "no answer within 0.2 seconds; none is left" in str(error)


def test_nobody_there_is_one_line(once: None) -> None:
    url = nobody()
    _, error = until_error(endpoint(url).complete(requests()))
    assert str(error) == (
        f"model served: endpoint {url}: All connection attempts failed; none is left: fix or start it, and run the "
        "command again"
    )


@pytest.mark.parametrize(
    ("fault", "changes", "message"),
    [
        ("401", {}, "answered 401; name the environment variable that holds its key in conf/models.yaml"),
        ("401", {"key": "TEST_KEY"}, "answered 401; correct the key in TEST_KEY"),
        ("403", {"key": "TEST_KEY"}, "answered 403; correct the key in TEST_KEY"),
        ("404", {}, "no model org/m there, or the URL lacks its /v1; correct conf/models.yaml"),
        ("400", {}, "correct what it names, or shorten conversation or limit"),
    ],
)
def test_refusal_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, fault: str, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(Server({PROMPTS[2]: [fault]})) as server:
        finished, error = until_error(endpoint(server, concurrency=1, **changes).complete(requests()))
    assert finished == [0, 1]
    assert len(server.bodies) == 3
    assert str(error).startswith(f"model served: endpoint {server.url}: answered {fault}")
    assert str(error).endswith(message)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"min_p": 0.1}, "if it does not know the parameter, set generation.min_p to 0"),
        ({"repetition_penalty": 1.2}, "if it does not know the parameter, set generation.repetition_penalty to 1"),
        ({"min_p": 0.1, "repetition_penalty": 1.2}, "set generation.min_p to 0 and generation.repetition_penalty to 1"),
    ],
)
@pytest.mark.parametrize("fault", ["400", "422"])
def test_refused_parameter_is_named(fault: str, change: dict[str, float], hint: str) -> None:
    with serving(Server(always=fault)) as server:
        _, error = until_error(endpoint(server).complete(requests(["Why?"], SAMPLING.model_copy(update=change))))
    assert str(error).endswith(hint)
    assert STATUS[fault][1] in str(error)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model.", "it does not take max_tokens"),
        ("Unsupported value: 'temperature' does not support 0.7", "it does not take temperature"),
        ("Unrecognized request argument supplied: min_p", "set generation.min_p to 0"),
        ("'max_tokens' is too large: 99. This model's maximum context length is 40", "shorten conversation or limit"),
        ("System role not supported by this template", "correct what it names"),
    ],
)
def test_remedy_goes_by_what_the_server_names(monkeypatch: pytest.MonkeyPatch, said: str, remedy: str) -> None:
    monkeypatch.setitem(STATUS, "400", (400, said))
    sampling = SAMPLING.model_copy(update={"min_p": 0.1})
    with serving(Server(always="400")) as server:
        _, error = until_error(endpoint(server).complete(requests(["Why?"], sampling)))
    assert remedy in str(error)
    assert said in str(error)
    assert "min_p" not in remedy or "max_tokens" not in str(error)


@pytest.mark.parametrize("fault", REDIRECTS)
def test_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Prompts and key go nowhere but to what the catalogue names, and the line says where the server pointed."""
    monkeypatch.setenv("TEST_KEY", KEY)
    with serving(Server()) as other, serving(Server({PROMPTS[1]: [fault]})) as server:
        server.elsewhere = f"{other.url}/chat/completions"
        finished, error = until_error(endpoint(server, concurrency=1, key="TEST_KEY").complete(requests()))
    assert finished == [0]
    assert len(server.bodies) == 2
    assert other.bodies == []
    assert other.url in str(error)
    assert KEY not in str(error)


def test_what_is_under_way_when_one_fails_is_kept() -> None:
    """All are asked at once, and answered only when all have come; the failing one does not cost the others."""
    with serving(Server({PROMPTS[1]: ["400"]}, hold=8)) as server:
        finished, _ = until_error(endpoint(server, concurrency=8).complete(requests()))
    assert sorted(finished) == [0, 2, 3, 4, 5, 6, 7]


# --- several ---------------------------------------------------------------------------------------------------


def test_requests_are_spread() -> None:
    prompts = [f"Question {n}?" for n in range(40)]
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(Server(hold=4))) for _ in range(3)]
        run(endpoint(*servers), requests(prompts))
    assert sum((server.answered for server in servers[1:]), servers[0].answered) == dict.fromkeys(prompts, 1)
    assert all(server.most == 4 for server in servers)


def test_dead_endpoint_is_left_out_and_said_once(once: None, capsys: pytest.CaptureFixture[str]) -> None:
    dead = nobody()
    with serving(Server()) as server:
        assert run(endpoint(dead, server), requests()) == EXPECTED
    assert server.answered == dict.fromkeys(PROMPTS, 1)
    assert capsys.readouterr().out == (
        f"model served: endpoint {dead}: All connection attempts failed; going on without it, 1 left\n"
    )


@pytest.mark.parametrize("fault", ["500", "invalid json", "closed"])
def test_endpoint_that_only_fails_is_left_out(once: None, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Server(always=fault)) as bad, serving(Server()) as good:
        assert run(endpoint(bad, good), requests()) == EXPECTED
    assert good.answered == dict.fromkeys(PROMPTS, 1)
    assert len(bad.bodies) <= 8, "four at once, each tried twice"
    assert capsys.readouterr().out.count("going on without it, 1 left") == 1


def test_all_endpoints_gone(once: None, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Server(always="500")) as one, serving(Server(always="invalid json")) as two:
        finished, error = until_error(endpoint(one, two).complete(requests()))
    assert finished == []
    assert "none is left" in str(error)
    assert capsys.readouterr().out.count("left\n") == 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_is_reached_and_not_exceeded(concurrency: int) -> None:
    """So many are waited for, however long it takes, and then for one more, in vain."""
    with serving(Server(hold=concurrency, linger=0.3)) as server:
        run(endpoint(server, concurrency=concurrency), requests(PROMPTS[:6]))
    assert server.most == concurrency


# --- stopping --------------------------------------------------------------------------------------------------


def wait_for(condition: Any) -> None:
    """As long as a slow machine may need; a test that hangs fails."""
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_closing_the_iterator_hangs_up() -> None:
    with serving(Server({PROMPTS[0]: ["hang"], PROMPTS[1]: ["hang"]}, hold=4)) as server:
        batches = endpoint(server).complete(requests())
        first = next(batches)
        assert {place for place, _ in first} <= set(range(2, 8))
        assert server.gone == 0
        batches.close()  # type: ignore[attr-defined]
        wait_for(lambda: server.gone == 2)


STOPPED = """
import sys
from ccai.engines import endpoint
from ccai.engines.base import Request
from ccai.base.errors import run
from ccai.base.params import Generation
from ccai.base.records import Message

def main():
    endpoint.BATCH = 60
    entry = {"endpoints": [sys.argv[1]], "model": "org/m", "revision": "0", "concurrency": 2}
    engine = endpoint.Endpoint("served", entry)
    sampling = Generation(temperature=0, min_p=0, repetition_penalty=1)
    asked = [Request((Message(role="user", content=f"Question {n}?"),), 0, 1, 8, sampling) for n in range(8)]
    for batch in engine.complete(asked):
        print(*[place for place, _ in batch], flush=True)

run(main)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_stops_at_once_and_keeps_what_is_finished(number: int, status: int) -> None:
    """Two at once: the first hangs, and when the last is asked, the six between them are finished.

    They wait for their minute to be over, so that nothing but the signal hands them on.
    """
    with serving(Server({PROMPTS[0]: ["hang"], PROMPTS[7]: ["hang"]})) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", STOPPED, server.url],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            wait_for(lambda: len(server.bodies) == 8 or process.poll() is not None)
            process.send_signal(number)
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
        assert process.returncode == status, err
        assert "Traceback" not in err
        assert "never retrieved" not in err
        wait_for(lambda: server.gone == 2)
    assert sorted(map(int, out.split())) == [1, 2, 3, 4, 5, 6]


# --- scores ----------------------------------------------------------------------------------------------------

QUESTIONS = [[Message(role="user", content=f"A or B? {n}")] for n in range(5)]


def test_scores_are_the_probabilities_of_the_labels() -> None:
    with serving(Server(probabilities={"B": log(0.6), "A": log(0.3), " A": log(0.05)})) as server:
        found = dict(item for batch in endpoint(server).score(QUESTIONS, ("A", "B", "C")) for item in batch)
    assert sorted(found) == list(range(5))
    assert found[0] == pytest.approx([0.3, 0.6, 0.0])
    assert server.bodies[0] == {
        "model": "org/m",
        "messages": server.bodies[0]["messages"],
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": True,
        "top_logprobs": 20,
    }


def test_a_probability_above_1_is_none(once: None) -> None:
    with serving(Server(probabilities={"A": 1000.0})) as server:
        finished, _ = until_error(endpoint(server).score(QUESTIONS, ("A", "B")))
    assert finished == []


@pytest.mark.parametrize("probabilities", [None, {}])
def test_endpoint_without_probabilities_cannot_judge(probabilities: dict[str, float] | None) -> None:
    with serving(Server(probabilities=probabilities)) as server:
        finished, error = until_error(endpoint(server).score(QUESTIONS, ("A", "B")))
    assert finished == []
    assert str(error) == (
        "model served: its endpoint gives no logprobs; put verdicts: json into its entry in conf/models.yaml, or set "
        "models.judge to another"
    )


def test_faults_are_those_of_completions() -> None:
    with serving(Server({"A or B? 1": ["500", "invalid json"]}, probabilities={"A": log(0.5)})) as server:
        found = dict(item for batch in endpoint(server).score(QUESTIONS, ("A",)) for item in batch)
    assert list(found.values()) == [pytest.approx([0.5])] * 5
    assert len(server.bodies) == 7


# --- identity and key ------------------------------------------------------------------------------------------


def test_identity_is_what_can_change_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    first = endpoint("http://127.0.0.1:1/v1")
    assert first.identity == {
        "engine": "openai-1",
        "model": "org/m",
        "revision": "0123abcd",
        "unverified_weights": True,
    }
    same = endpoint("http://127.0.0.1:2/v1", "https://b.example/v1", concurrency=9, timeout=1, key="TEST_KEY")
    assert same.identity == first.identity
    assert endpoint("http://127.0.0.1:1/v1", model="org/other").identity != first.identity
    assert endpoint("http://127.0.0.1:1/v1", revision="other").identity != first.identity
    assert (first.name, first.revision, first.unverified_weights) == ("served", "0123abcd", True)
    assert same.runtime == {"device": "endpoint", "endpoints": 2, "concurrency": 9}


def test_nothing_of_the_clients_own_variables_is_sent() -> None:
    with serving(Server()) as server:
        run(endpoint(server), requests(["Why?"]))
    assert server.keys == ["Bearer none"]
    assert not [value for value in server.headers[0].values() if "somebodyelses" in value]


def test_key_is_that_of_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", f" {KEY}\n")
    with serving(Server(key=KEY)) as server:
        assert run(endpoint(server, key="TEST_KEY"), requests()) == EXPECTED
    assert set(server.keys) == {f"Bearer {KEY}"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "TEST_KEY: not set; put the endpoint's key into this environment variable"),
        ("", "TEST_KEY: not set"),
        (f"{KEY} {KEY}", "TEST_KEY: contains a space or a character that a key cannot have"),
        (f"{KEY}\n{KEY}", "TEST_KEY: contains a space or a character that a key cannot have"),
        (f"“{KEY}”", "TEST_KEY: contains a space or a character that a key cannot have"),
    ],
)
def test_variable_without_a_key(monkeypatch: pytest.MonkeyPatch, value: str | None, message: str) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_KEY", value)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        endpoint("http://127.0.0.1:1/v1", key="TEST_KEY")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("fault", [None, "401", "404", "422", "500", "invalid json", "closed", CUT_SHORT])
def test_key_is_never_said(
    once: None,
    fault: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not even where the server repeats it, nor at the most talkative log level."""
    monkeypatch.setenv("TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    said = ""
    with serving(Server(always=fault)) as server:
        engine = endpoint(server, key="TEST_KEY")
        try:
            run(engine, requests())
        except UserError as error:
            said = "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format())
    assert (fault is None) == (said == "")
    assert set(server.keys) == {f"Bearer {KEY}"}, "or there was nothing to be said"
    out, err = capfd.readouterr()
    seen = [out, err, caplog.text, said, *server.log, json.dumps(engine.identity | engine.runtime), repr(vars(engine))]
    assert not [text for text in seen if KEY in text]


ECHOES: dict[str, Callable[[str], str]] = {
    "whole": lambda key: key,
    "begin": lambda key: f"{key[:8]}…",
    "middle": lambda key: f"x{key[6:14]}x",
    "end": lambda key: key[-8:],
    "capitals": str.upper,
    "in a URL": lambda key: quote(key, safe=""),
    "base64": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
}


@pytest.mark.parametrize("echo", ECHOES)
def test_completion_that_tells_the_key_is_not_kept(
    echo: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither as it is nor masked: a text that was changed is none of the model's."""
    key = "sk/Ab+9" * 4
    monkeypatch.setenv("TEST_KEY", key)
    with serving(Server()) as server:
        server.says = ECHOES[echo]
        finished, error = until_error(endpoint(server, concurrency=1, key="TEST_KEY").complete(requests()))
    assert (finished, len(server.bodies)) == ([], 1)
    assert "TEST_KEY" in str(error)
    assert ECHOES[echo](key)[1:9].lower() not in (str(error) + "".join(capfd.readouterr())).lower()


def test_words_of_the_prompt_and_short_keys_are_no_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key may be a word; what the data hold anyway is not told by the server."""
    for key, prompts in (("question", PROMPTS), ("written", PROMPTS), ("EMPTY", ["EMPTY?"])):
        monkeypatch.setenv("TEST_KEY", key)
        with serving(Server(key=key)) as server:
            assert len(run(endpoint(server, key="TEST_KEY"), requests(prompts))) == len(prompts)


def test_part_of_the_key_in_an_error_is_hidden(once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    for cut in (KEY[:12], KEY[5:13], KEY[-9:], KEY.upper(), base64.b64encode(KEY.encode()).decode()):
        for fault, (status, _) in {"400": STATUS["400"], "500": STATUS["500"], "404": STATUS["404"]}.items():
            monkeypatch.setitem(STATUS, fault, (status, f"wrong key {cut}, or so"))
            with serving(Server(always=fault)) as server:
                _, error = until_error(endpoint(server, key="TEST_KEY").complete(requests(["Why?"])))
            assert "wrong key ***" in str(error) and "or so" in str(error)
            assert cut not in str(error)


def test_faults_are_all_tried() -> None:
    assert set(RETRIED) | {"hang", "drip", "400", "401", "403", "404", "422"} == {
        *STATUS,
        *MALFORMED,
        *EDITS,
        *PACKED,
        CUT_SHORT,
        *BROKEN,
    }
