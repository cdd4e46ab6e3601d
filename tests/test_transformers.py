"""The default engine on tiny models, against token-by-token decoding without cache, padding or batches."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from conftest import END, TEMPLATE, as_model, load_engine, save_model, save_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    Lfm2Config,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from ccai.base.errors import UserError
from ccai.base.params import Generation
from ccai.base.records import Message
from ccai.engines import transformers
from ccai.engines.base import Completed, Request
from ccai.engines.sampling import SURE, gumbel
from ccai.engines.transformers import NEAR_TIE, Transformers
from ccai.models.placement import Placement

GREEDY = Generation(temperature=0, min_p=0, repetition_penalty=1)
PENALISED = Generation(temperature=0, min_p=0, repetition_penalty=1.3)
PLAIN = Generation(temperature=1, min_p=0, repetition_penalty=1)
SHIPPED = Generation(temperature=0.7, min_p=0.05, repetition_penalty=1.2)
NEW = 24

WORDS = "why does the answer depend on how one looks at it and who is asking".split()


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str) -> Message:
    return Message(role="assistant", content=content)


SYSTEM = Message(role="system", content="Be brief and kind.")
SHOWN = (
    SYSTEM,
    user("Is it late?"),
    assistant("It depends on when you got up."),
    user("And now?"),
    assistant("Now, yes."),
)


def requests(count: int, sampling: Generation, shared: Sequence[Message] = (SYSTEM,)) -> list[Request]:
    """Prompts of 1 to 60 words behind the same first messages."""
    rng = random.Random(3)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 60))) for _ in range(count)]
    return [
        Request((*shared, user(f"{text} {index}?")), len(shared), 1000 + index, NEW, sampling)
        for index, text in enumerate(texts)
    ]


def completed(engine: Transformers, asked: Sequence[Request]) -> list[Completed]:
    """Completions in the order of the requests, each exactly once."""
    got = list(chain.from_iterable(engine.complete(asked)))
    assert sorted(index for index, _ in got) == list(range(len(asked)))
    return [done for _, done in sorted(got, key=lambda entry: entry[0])]


def complete(engine: Transformers, asked: Sequence[Request]) -> list[Completed]:
    """The same without margins, whose last digits are rounding."""
    return [done._replace(margin=None) for done in completed(engine, asked)]


def each_alone(engine: Transformers, asked: Sequence[Request]) -> list[Completed]:
    return [complete(engine, [request])[0] for request in asked]


def decisions(written: Sequence[Completed]) -> int:
    """Tokens drawn, those that end completions among them."""
    return sum(done.completion_tokens + (done.finish_reason == "stop") for done in written)


class Seen(NamedTuple):
    """Of a forward pass: rows that got a token more, rows that began, and tokens in all."""

    following: int
    begun: int
    tokens: int

    @property
    def rows(self) -> int:
        return self.following + self.begun


@pytest.fixture
def passes(tiny_engine: Transformers) -> Iterator[list[Seen]]:
    """Every forward pass of the tiny model while the test runs."""
    seen: list[Seen] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        flat = kwargs["flat"]
        assert tuple(kwargs["input_ids"].shape) == (1, len(flat.tokens))
        following = flat._written
        seen.append(Seen(following, len(flat.last) - following, len(flat.tokens)))

    hook = tiny_engine.model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


# --- what is written ----------------------------------------------------------------------------------------


Decode = Callable[[Request], Completed]


def textbook(folder: Path) -> Decode:
    """Decoding as a textbook has it: one row, the whole text through the model for each token, probabilities in
    float64. Only the noise is the engine's; what it is worth is tested in test_sampling.py."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids(END)

    @torch.inference_mode()
    def decode(request: Request) -> Completed:
        turns = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in request.messages)
        prompt = tokenizer.encode(f"{turns}<|im_start|>assistant\n")
        settings, written, margin = request.sampling, list[int](), SURE
        while len(written) < request.max_new_tokens:
            logits = model(input_ids=torch.tensor([prompt + written]), use_cache=False).logits[0, -1].double().numpy()
            for token in set(written):
                logits[token] *= settings.repetition_penalty ** -np.sign(logits[token])
            if not written:
                logits[end] = -np.inf
            if settings.temperature:
                likely = np.exp((logits - logits.max()) / settings.temperature)
                likely[likely < settings.min_p * likely.max()] = 0
                ids = torch.arange(len(likely))
                noise = gumbel(torch.full_like(ids, request.seed), torch.full_like(ids, len(written)), ids)
                with np.errstate(divide="ignore"):
                    scores = (np.log(likely) + noise.numpy()) * settings.temperature
                    floor = logits.max() + np.log(settings.min_p) * settings.temperature
            else:
                scores, floor = logits, -np.inf
            token = int(scores.argmax())
            margin = min(margin, scores[token] - np.delete(scores, token).max())
            if token != logits.argmax():
                margin = min(margin, logits[token] - floor)
            if token == end:
                break
            written.append(token)
        reason: Any = "length" if len(written) == request.max_new_tokens else "stop"
        text = tokenizer.decode(written, skip_special_tokens=True).strip()
        return Completed(text, reason, len(prompt), len(written), float(margin))

    return decode


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> Decode:
    """Of the tiny model."""
    return textbook(tiny_model)


@pytest.mark.parametrize(
    "sampling", [GREEDY, PENALISED, PLAIN, SHIPPED], ids=["greedy", "penalised", "plain", "shipped"]
)
@pytest.mark.parametrize("shared", [(), (SYSTEM,), SHOWN], ids=["nothing", "system", "examples"])
def test_same_as_textbook_decoding(
    tiny_engine: Transformers,
    reference: Decode,
    sampling: Generation,
    shared: tuple[Message, ...],
) -> None:
    """Text, reason and both lengths; and by how much each completion could have been another."""
    asked = requests(20, sampling, shared)
    written, wanted = completed(tiny_engine, asked), [reference(request) for request in asked]
    assert [done._replace(margin=None) for done in written] == [done._replace(margin=None) for done in wanted]
    assert {done.finish_reason for done in written} == {"stop", "length"}
    margins = [(done.margin, other.margin) for done, other in zip(written, wanted, strict=True)]
    # Tokens just under the floor of min_p count in the engine's margin only if they are next to it.
    assert [found for found, _ in margins] == pytest.approx([margin for _, margin in margins], abs=2 * NEAR_TIE)
    assert len({round(found or 0, 4) for found, _ in margins}) > 10


@pytest.mark.parametrize("sampling", [PENALISED, SHIPPED], ids=["greedy", "sampled"])
def test_text_is_independent_of_batch_order_and_sharing(
    tiny_engine: Transformers, sampling: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(30, sampling) + requests(20, sampling, SHOWN)
    alone = each_alone(tiny_engine, asked)
    assert len({done.text for done in alone}) > 40, "texts too alike to tell rows apart"
    assert complete(tiny_engine, asked) == alone
    unshared = [replace(request, shared=0) for request in asked]
    assert complete(tiny_engine, unshared) == alone
    for rows, tokens in ((1, 2048), (3, 16), (7, 2048), (64, 100), (64, 2048)):
        monkeypatch.setitem(transformers.MAX_ROWS["float32"], "cpu", rows)
        monkeypatch.setitem(transformers.MAX_TOKENS, "cpu", tokens)
        order = random.Random(rows).sample(range(len(asked)), len(asked))
        mixed = complete(tiny_engine, [(asked if place % 2 else unshared)[place] for place in order])
        assert mixed == [alone[place] for place in order]


def test_limits_and_settings_do_not_mix(tiny_engine: Transformers) -> None:
    """Requests of one call may differ in everything."""
    asked = [
        replace(request, max_new_tokens=limit, sampling=sampling)
        for index, request in enumerate(requests(24, GREEDY))
        for limit, sampling in [((4, 9, 20)[index % 3], (GREEDY, PLAIN)[index % 2])]
    ]
    assert complete(tiny_engine, asked) == each_alone(tiny_engine, asked)


def test_no_token_is_read_twice_and_nothing_is_padded(tiny_engine: Transformers, passes: list[Seen]) -> None:
    """Each prefix once, the rest of each prompt once, each token written once but the last, which nothing follows."""
    asked = requests(30, SHIPPED, SHOWN) + requests(30, PENALISED, (SYSTEM,)) + requests(1, PLAIN, ())
    near_ties = tiny_engine.near_ties
    together = complete(tiny_engine, asked)
    assert tiny_engine.near_ties == near_ties, "a near tie is read alone once more: choose other prompts"
    first, second = (len(tiny_engine.template.tokens(shared, generation_prompt=False)) for shared in (SHOWN, (SYSTEM,)))
    prompts = sum(done.prompt_tokens for done in together) - 29 * first - 29 * second
    assert sum(seen.tokens for seen in passes) == prompts + decisions(together) - len(asked)
    assert passes[0] == Seen(0, 1, first)
    assert passes.count(Seen(0, 1, first)) == passes.count(Seen(0, 1, second)) == 1
    assert max(seen.following for seen in passes) > 30


def test_finished_rows_are_replaced_at_once(
    tiny_engine: Transformers, passes: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No slot is free while a request waits."""
    monkeypatch.setitem(transformers.MAX_ROWS["float32"], "cpu", 4)
    asked = [
        replace(request, max_new_tokens=limit)
        for request, limit in zip(requests(12, PLAIN, ()), (30, 2, 9, 5) * 3, strict=True)
    ]
    written = complete(tiny_engine, asked)
    rows = [seen.rows for seen in passes]
    full = len(rows) - rows[::-1].index(4)
    assert set(rows[:full]) == {4}
    assert rows[full:] == sorted(rows[full:], reverse=True)
    assert sum(seen.begun for seen in passes[:full]) == 12
    assert sum(rows) == decisions(written)
    assert len({seen.begun for seen in passes}) > 1, "all began together"


@pytest.mark.parametrize("limit", [16, 150])
def test_passes_are_no_longer_than_their_limit(
    tiny_engine: Transformers, passes: list[Seen], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless one row alone is; then no second one begins in that pass."""
    asked = requests(40, SHIPPED, ())
    whole = complete(tiny_engine, asked)
    passes.clear()
    monkeypatch.setitem(transformers.MAX_TOKENS, "cpu", limit)
    assert complete(tiny_engine, asked) == whole
    assert all(seen.tokens <= limit or seen.begun <= 1 for seen in passes)
    assert sum(seen.begun for seen in passes) == 40
    assert (max(seen.begun for seen in passes) > 1) == (limit == 150)


@pytest.mark.parametrize("asked", [[], requests(1, SHIPPED), requests(2, SHIPPED)], ids=["none", "one", "two"])
def test_few_requests(tiny_engine: Transformers, reference: Decode, asked: list[Request]) -> None:
    assert complete(tiny_engine, asked) == [reference(request)._replace(margin=None) for request in asked]


def test_same_request_twice_and_with_other_seeds(tiny_engine: Transformers) -> None:
    [request] = requests(1, PLAIN)
    [one, two, *others] = complete(tiny_engine, [request, request, *(replace(request, seed=n) for n in range(9))])
    assert one == two
    assert len({done.text for done in others}) == 9


def test_completions_come_while_others_are_written(tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they finish if that is wanted; held back until the end, all at once."""
    asked = requests(40, SHIPPED)
    monkeypatch.setattr(transformers, "YIELD_EVERY", -1.0)
    assert len(list(tiny_engine.complete(asked))) > 5
    monkeypatch.setattr(transformers, "YIELD_EVERY", 1e9)
    assert len(list(tiny_engine.complete(asked))) == 1


def test_stopped_half_way_the_engine_goes_on_as_before(
    tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(40, SHIPPED, SHOWN)
    whole = complete(tiny_engine, asked)
    monkeypatch.setattr(transformers, "YIELD_EVERY", -1.0)
    half = tiny_engine.complete(asked)
    some = next(half) + next(half)
    assert 0 < len(some) < 40
    assert [(place, whole[place]) for place, _ in some] == [(place, done._replace(margin=None)) for place, done in some]
    half.close()  # type: ignore[attr-defined]
    assert complete(tiny_engine, asked) == whole
    ahead, behind = tiny_engine.complete(asked), tiny_engine.complete(asked[::-1])
    assert next(ahead) and next(behind)
    rest = [entry for batch in ahead for entry in batch]  # two at once do not mix either
    assert all(done._replace(margin=None) == whole[place] for place, done in rest)
    assert len(list(chain.from_iterable(behind))) > 30


def test_prefix_that_later_turns_change_is_not_shared(tiny_model: Path, tmp_path: Path) -> None:
    """Some templates write earlier answers differently once a question follows."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    changing = TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] if loop.last else m['content'] | upper }}")
    assert changing != TEMPLATE
    save_tokenizer(folder, changing)
    engine = load_engine(folder)
    asked = requests(12, SHIPPED, SHOWN)
    assert complete(engine, asked) == complete(engine, [replace(request, shared=0) for request in asked])


def test_never_ends_before_it_began(tiny_engine: Transformers, tiny_model: Path) -> None:
    """Ends are moved to the tokens that the model would write first: it has to write others, and may end after."""
    asked, plain = requests(60, GREEDY), AutoModelForCausalLM.from_pretrained(tiny_model)
    likeliest = {
        int(plain(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        for ids in (tiny_engine.template.tokens(request.messages, generation_prompt=True) for request in asked)
    }
    eager = copy.copy(tiny_engine)
    eager._ends = sorted(likeliest)
    assert len(likeliest) > 1
    assert min(done.completion_tokens for done in complete(eager, asked)) >= 1


def test_adapter_changes_texts_and_the_base_stays_what_it_was(tiny_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules="all-linear"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    tuned.save_pretrained(tmp_path / "adapter")
    asked = requests(40, SHIPPED)
    base = load_engine(tiny_model)
    before = complete(base, asked)
    adapted = load_engine(tiny_model, tmp_path / "adapter")
    assert sum(a.text != b.text for a, b in zip(before, complete(adapted, asked), strict=True)) > 30
    assert complete(base, asked) == complete(load_engine(tiny_model), asked) == before
    assert (base.name, adapted.name) == ("org/tiny", "org/tiny+adapter")
    assert base.identity | {"adapter": adapted.identity["adapter"]} == adapted.identity


# --- near ties ----------------------------------------------------------------------------------------------


def watchful(engine: Transformers, near_tie: float) -> Transformers:
    """The same engine with another idea of what is near."""
    other = copy.copy(engine)
    other._near_tie, other.near_ties = near_tie, 0
    return other


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in which each token has a twin, alike up to rounding: every decision of a greedy row is a near tie."""
    folder = tmp_path_factory.mktemp("models") / "twins"
    model = save_model(folder)
    with torch.no_grad():
        head = model.lm_head.weight
        head[4::2] = head[3:-1:2] * (1 + 1e-7 * torch.randn(len(head[4::2]), 1))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("sampling", [GREEDY, PENALISED], ids=["greedy", "penalised"])
def test_near_ties_are_decided_as_if_alone(twins: Path, sampling: Generation) -> None:
    """Where rounding decides, it is the rounding of a row read by itself, whatever stands beside it."""
    engine = load_engine(twins)
    asked = requests(20, sampling, SHOWN)
    done = completed(engine, asked)
    assert engine.near_ties > 100
    whole = [each._replace(margin=None) for each in done]
    assert whole == each_alone(engine, asked)
    assert whole == complete(engine, [replace(request, shared=0) for request in asked[::-1]])[::-1]
    assert max(each.margin or 0 for each in done) < NEAR_TIE


def test_every_decision_may_be_taken_again(tiny_engine: Transformers, passes: list[Seen], reference: Decode) -> None:
    asked = requests(20, SHIPPED, SHOWN)
    careful = watchful(tiny_engine, 1e9)
    written = complete(careful, asked)
    assert careful.near_ties == decisions(written)
    assert written == complete(tiny_engine, asked) == [reference(request)._replace(margin=None) for request in asked]
    alone = [seen for seen in passes if seen.rows == 1 and seen.tokens >= written[0].prompt_tokens // 2]
    assert len(alone) >= careful.near_ties, "not read alone"


def test_a_token_decided_again_is_the_one_that_is_kept(
    tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of passes with several rows are made wrong by more than rounding: what is read alone puts them right."""
    asked = requests(12, GREEDY)
    alone = each_alone(tiny_engine, asked)
    forward = Transformers._forward

    def shaken(engine: Transformers, flat: Any) -> torch.Tensor:
        logits = forward(engine, flat)
        return logits if len(flat.last) == 1 else logits + 3 * torch.randn(logits.shape[-1])

    monkeypatch.setattr(Transformers, "_forward", shaken)
    same = replace(asked[0], max_new_tokens=1)  # ends everywhere at once, so that two rows are always there
    assert complete(watchful(tiny_engine, 0.0), [*asked, same])[:12] != alone
    assert complete(watchful(tiny_engine, 1e9), [*asked, same])[:12] == alone


def test_16_bit_decides_once(tiny_model: Path, twins: Path) -> None:
    """There a row's own logits move far more than any tie, alone or not; the README promises nothing of it."""
    for folder in (tiny_model, twins):
        engine = Transformers(as_model(folder), Placement("cpu", "bfloat16", "none", ""))
        written = completed(engine, requests(8, GREEDY))
        assert engine.near_ties == 0
        assert min(done.margin or 0 for done in written) < 0.1


# --- limits -------------------------------------------------------------------------------------------------


def test_context_is_used_to_the_last_token_and_not_beyond(tiny_engine: Transformers) -> None:
    [short] = requests(1, GREEDY)
    length = len(tiny_engine.template.tokens(short.messages, generation_prompt=True))
    fill = 2048 - 8 - length
    fits = replace(short, max_new_tokens=8, messages=(SYSTEM, user(short.messages[-1].content + "@" * fill)))
    [done] = complete(tiny_engine, [fits])
    assert done.prompt_tokens == 2040
    with pytest.raises(UserError, match=r"org/tiny: a prompt of 2040 tokens and 9 new ones exceed its context of 2048"):
        complete(tiny_engine, [replace(fits, max_new_tokens=9)])


def test_tokenizer_without_chat_template(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    save_tokenizer(folder, template=None)
    with pytest.raises(UserError, match="has no chat template"):
        load_engine(folder)


@pytest.fixture
def small_memory(tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the model run out of memory above so many rows or tokens in one pass: it asks for more than there is."""
    forward = tiny_engine.model.forward

    def shrink(rows: int, tokens: int = 10**9) -> None:
        def limited(*args: Any, **kwargs: Any) -> Any:
            if len(kwargs["flat"].last) > rows or len(kwargs["flat"].tokens) > tokens:
                torch.empty(1 << 60)
            return forward(*args, **kwargs)

        monkeypatch.setattr(tiny_engine.model, "forward", limited)

    return shrink


def test_out_of_memory_halves_rows_and_changes_no_text(
    tiny_engine: Transformers,
    passes: list[Seen],
    small_memory: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(transformers.MAX_TOKENS, "cpu", 100_000)
    asked = requests(40, SHIPPED)
    whole = complete(tiny_engine, asked)
    small_memory(5)
    passes.clear()
    assert complete(tiny_engine, asked) == whole
    rows = [seen.rows for seen in passes]
    assert rows[:5] == [1, 40, 20, 10, 5], "the prefix, which is kept, and halves"
    assert max(rows[4:]) == 5
    assert capsys.readouterr().out.splitlines() == [
        f"out of memory: {rows} rows at a time from here on" for rows in (20, 10, 5)
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=["cuda", "mps", "cublas", "numpy"],
)
@pytest.mark.parametrize("step", [1, 9, 23])
def test_out_of_memory_half_way(
    tiny_engine: Transformers, passes: list[Seen], step: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that had ended are not written again; the others go on with what they had."""
    asked = requests(40, SHIPPED, ())
    whole = complete(tiny_engine, asked)
    failed: list[Seen] = []

    def once(module: Any, args: Any, output: Any) -> None:
        if len(passes) == step + 1 and not failed:
            failed.append(passes[-1])
            raise error

    hook = tiny_engine.model.model.norm.register_forward_hook(once)  # when all layers have kept their keys
    try:
        passes.clear()
        assert complete(tiny_engine, asked) == whole
    finally:
        hook.remove()
    assert sum(seen.rows for seen in passes) - failed[0].rows == decisions(whole)
    assert max(seen.rows for seen in passes[step + 1 :]) == failed[0].rows // 2
    again = passes[step + 1]
    assert again.following == 0
    assert again.tokens > 2 * again.begun, "they began anew"


def test_out_of_memory_in_a_prefix(tiny_engine: Transformers, passes: list[Seen]) -> None:
    """Half of its layers' keys are there by then."""
    asked = requests(12, SHIPPED, SHOWN)
    whole = complete(tiny_engine, asked)
    passes.clear()

    def once(module: Any, args: Any) -> None:
        if len(passes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = tiny_engine.model.model.layers[1].register_forward_pre_hook(once)
    try:
        assert complete(tiny_engine, asked) == whole
    finally:
        hook.remove()
    assert passes[0] == passes[1] == Seen(0, 1, len(tiny_engine.template.tokens(SHOWN, generation_prompt=False)))


def test_row_that_does_not_fit_is_one_line(tiny_engine: Transformers, small_memory: Callable[..., None]) -> None:
    small_memory(0)
    with pytest.raises(UserError, match=r"one row of \d+ tokens does not fit in memory on cpu; lower max_new_tokens"):
        complete(tiny_engine, [replace(request, shared=0) for request in requests(4, GREEDY)])


def test_what_was_finished_before_a_row_that_does_not_fit_is_kept(
    tiny_engine: Transformers, small_memory: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers, "YIELD_EVERY", 1e9)
    short = requests(6, GREEDY)
    [long] = [replace(short[0], shared=0, messages=(SYSTEM, user("why " * 300)))]
    whole = complete(tiny_engine, short)
    small_memory(100, tokens=500)
    got: list[tuple[int, Completed]] = []
    with pytest.raises(UserError, match="does not fit in memory"):
        for batch in tiny_engine.complete([*short, long]):
            got += batch
    assert {place: done._replace(margin=None) for place, done in got}.items() <= dict(enumerate(whole)).items()
    assert got


@pytest.mark.parametrize(
    "message", ["CUDA error: device-side assert triggered", "CUDA error: an illegal memory access was encountered"]
)
def test_other_errors_are_not_taken_for_memory(
    tiny_engine: Transformers, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(message)

    monkeypatch.setattr(tiny_engine.model, "forward", broken)
    with pytest.raises(RuntimeError, match=message):
        complete(tiny_engine, requests(4, GREEDY, ()))


PER_TOKEN = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, size of a head, bytes


def test_rows_are_no_more_than_free_memory_allows(
    tiny_engine: Transformers, passes: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [replace(request, seed=seed) for seed, request in enumerate(requests(1, SHIPPED) * 20)]
    asked = [replace(request, shared=0) for request in asked]
    whole = complete(tiny_engine, asked)
    longest = whole[0].prompt_tokens + NEW
    monkeypatch.setattr("ccai.engines.transformers.free_memory", lambda device: 2 * 3 * longest * PER_TOKEN)
    passes.clear()
    assert complete(tiny_engine, asked) == whole
    assert max(seen.rows for seen in passes) == 3


def test_more_rows_are_written_once_only_shorter_ones_are_left(
    tiny_engine: Transformers, passes: list[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same memory holds more of them; those on their way move and change nothing."""
    asked = [replace(request, shared=0, messages=request.messages[-1:]) for request in requests(40, PLAIN)]
    asked = [
        replace(request, max_new_tokens=200 if index < 2 else 12 + index % 5) for index, request in enumerate(asked)
    ]
    whole = complete(tiny_engine, asked)
    longest = max(done.prompt_tokens for done in whole[:2]) + 200
    monkeypatch.setattr("ccai.engines.transformers.free_memory", lambda device: 2 * 2 * longest * PER_TOKEN)
    passes.clear()
    assert complete(tiny_engine, asked) == whole
    rows = [seen.rows for seen in passes]
    assert rows[0] == 2
    assert max(rows) > 4


# --- label scores -------------------------------------------------------------------------------------------


def scores(
    engine: Transformers, conversations: Sequence[Sequence[Message]], labels: Sequence[str]
) -> list[list[float]]:
    """In the order of the conversations, each exactly once."""
    found = list(chain.from_iterable(engine.score(conversations, labels)))
    assert sorted(place for place, _ in found) == list(range(len(conversations)))
    return [probabilities for _, probabilities in sorted(found)]


def test_scores_are_the_softmax_of_a_plain_forward(tiny_engine: Transformers, tiny_model: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    conversations = [request.messages for request in requests(40, GREEDY)]
    columns = tokenizer.convert_tokens_to_ids(["A", "B", "7"])
    scored = scores(tiny_engine, conversations, ("A", "B", "7"))
    with torch.inference_mode():
        for messages, probabilities in zip(conversations, scored, strict=True):
            turns = [message.model_dump() for message in messages]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            logits = model(input_ids=torch.tensor([tokenizer.encode(text)])).logits[0, -1]
            assert probabilities == pytest.approx(logits.softmax(-1)[columns].tolist(), rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("limit", [1, 200, 100_000])
def test_conversations_that_begin_alike_are_read_once(
    tiny_engine: Transformers, passes: list[Seen], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However far that goes, message or not; and the batch changes nothing."""
    monkeypatch.setitem(transformers.MAX_TOKENS, "cpu", limit)
    conversations = [request.messages for request in requests(20, GREEDY, (*SHOWN, user("Once more: Is it")))]
    conversations = [(*messages[:-2], user(f"Once more: {messages[-1].content}")) for messages in conversations]
    alone = [scores(tiny_engine, [messages], ("A", "B"))[0] for messages in conversations]
    lengths = [seen.tokens for seen in passes]
    assert len(passes) == 20
    passes.clear()
    together = scores(tiny_engine, conversations, ("A", "B"))
    assert [value for row in together for value in row] == pytest.approx(
        [value for row in alone for value in row], rel=1e-4
    )
    [prefix, *others] = passes
    assert prefix.tokens > len(tiny_engine.template.tokens(SHOWN, generation_prompt=False)) + 3
    assert sum(seen.tokens for seen in others) == sum(lengths) - 20 * prefix.tokens
    assert all(seen.tokens <= limit or seen.begun == 1 for seen in others)
    assert len(others) == {1: 20, 100_000: 1}.get(limit, len(others))


@pytest.mark.parametrize("limit", [1, 300, 100_000])
def test_two_orders_of_a_question_are_read_once(
    tiny_engine: Transformers, passes: list[Seen], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind what all questions share, each question's own text, then its ends; the batch changes nothing."""
    monkeypatch.setitem(transformers.MAX_TOKENS, "cpu", limit)
    texts = [f"Is {n} much more than {n * n % 7}, and would {n * 31} be still more? " for n in range(9)]
    conversations = [(*SHOWN, user(text + ends)) for ends in ("A yes B no", "A no B yes") for text in texts]
    alone = [scores(tiny_engine, [messages], ("A", "B"))[0] for messages in conversations]
    apart = sum(seen.tokens for seen in passes)
    passes.clear()
    together = scores(tiny_engine, conversations, ("A", "B"))
    for row, other in zip(together, alone, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    [prefix, *others] = passes
    read, ends = others[::2], others[1::2]
    assert sum(seen.begun for seen in read) == 9
    assert sum(seen.begun for seen in ends) == 18
    assert {1: 9, 100_000: 1}.get(limit, len(read)) == len(read) == len(ends)
    doubled = 2 * sum(seen.tokens for seen in read) + sum(seen.tokens for seen in ends)
    assert doubled == apart - 18 * prefix.tokens
    assert sum(seen.tokens for seen in others) < 0.75 * doubled


def test_scores_of_conversations_that_are_all_the_same(tiny_engine: Transformers, passes: list[Seen]) -> None:
    [request] = requests(1, GREEDY)
    [one] = scores(tiny_engine, [request.messages], ("A", "B"))
    [whole] = passes
    same = scores(tiny_engine, [request.messages] * 5, ("A", "B"))
    assert passes[1:] == [Seen(0, 1, whole.tokens - 1), Seen(0, 5, 5)]
    assert [value for row in same for value in row] == pytest.approx(one * 5, rel=1e-4)


def test_no_conversation_no_score(tiny_engine: Transformers) -> None:
    assert list(tiny_engine.score([], ("A", "B"))) == []


def test_scores_where_nothing_is_alike(tiny_engine: Transformers) -> None:
    conversations = [(user("Is it?"),), (SYSTEM, user("Is it?"))]
    alone = [scores(tiny_engine, [messages], ("A", "B"))[0] for messages in conversations]
    for row, other in zip(scores(tiny_engine, conversations, ("A", "B")), alone, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def test_conversation_that_is_too_long_to_score(tiny_engine: Transformers) -> None:
    with pytest.raises(UserError, match=r"org/tiny: a prompt of \d+ tokens and 1 new ones exceed its context of 2048"):
        scores(tiny_engine, [[user("Is it?")], [user("@" * 2048)]], ("A", "B"))


def test_label_of_two_tokens(tiny_engine: Transformers) -> None:
    with pytest.raises(UserError, match=r"labels \['A', ' 5'\] are not single tokens of it; use another judge"):
        scores(tiny_engine, [[user("Which?")]], ("A", " 5"))


# --- other models -------------------------------------------------------------------------------------------

TINY = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.25,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def save_random(folder: Path, config: PreTrainedConfig) -> Path:
    """A random model of any kind with the tiny tokenizer."""
    assert save_tokenizer(folder).eos_token_id == 2
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(**TINY),
        Qwen3Config(**TINY, head_dim=24),
        MistralConfig(**TINY, sliding_window=400, head_dim=16),
        Phi3Config(**TINY),
        Gemma3TextConfig(**TINY, head_dim=16, sliding_window=400, tie_word_embeddings=False),
    ],
    ids=lambda config: config.model_type,
)
def test_models_of_other_kinds(tmp_path: Path, config: PreTrainedConfig) -> None:
    """Biases, norms of queries and keys, heads of another size, windows wider than the rows."""
    folder = save_random(tmp_path, config)
    engine, decode = load_engine(folder), textbook(folder)
    asked = requests(8, SHIPPED, SHOWN) + requests(8, PENALISED, ())
    written = complete(engine, asked)
    assert written == [decode(request)._replace(margin=None) for request in asked]
    assert len({done.text for done in written}) > 8
    assert AutoConfig.from_pretrained(folder).model_type == config.model_type


OTHERWISE = {key: value for key, value in TINY.items() if key != "initializer_range"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Gemma2Config(**TINY, head_dim=16), "attention needs softcap; serve it and use an endpoint"),
        (
            GptOssConfig(**TINY, head_dim=16, num_local_experts=2, num_experts_per_tok=1),
            "attention needs s_aux; serve it and use an endpoint",
        ),
        (MistralConfig(**TINY, sliding_window=64), r"sees 64 tokens at a time and a row has \d+; use fewer examples"),
        (
            Qwen2Config(**TINY, use_sliding_window=True, sliding_window=64, max_window_layers=1),
            r"sees 64 tokens at a time and a row has \d+; use fewer examples",
        ),
        (
            Lfm2Config(**OTHERWISE, layer_types=["conv", "full_attention"]),
            "not all of its layers are plain attention; serve it and use an endpoint",
        ),
    ],
    ids=["softcap", "sinks", "window", "window in some layers", "convolution"],
)
@pytest.mark.parametrize("shared", [(), SHOWN], ids=["nothing", "examples"])
def test_models_that_attend_otherwise_are_refused(
    tmp_path: Path, config: PreTrainedConfig, message: str, shared: tuple[Message, ...]
) -> None:
    """Not answered from attention they were not trained with."""
    engine = load_engine(save_random(tmp_path, config))
    asked = [replace(r, messages=(*shared, user("why " * 80 + r.messages[-1].content))) for r in requests(2, SHIPPED)]
    with pytest.raises(UserError, match=message):
        complete(engine, [replace(request, shared=len(shared)) for request in asked])
    with pytest.raises(UserError, match=message):
        scores(engine, [request.messages for request in asked], ("A", "B"))


def test_weights_that_are_no_numbers(tiny_model: Path, tmp_path: Path) -> None:
    """Of a file they are refused as it is loaded; what becomes so later is one line, and no record."""
    engine = load_engine(tiny_model)
    with torch.no_grad():
        engine.model.model.norm.weight[3] = torch.nan
    with pytest.raises(UserError, match=r"logits are not numbers \(NaN\)"):
        complete(engine, requests(4, SHIPPED))
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 4] = torch.nan
    model.save_pretrained(folder)
    with pytest.raises(UserError):
        complete(load_engine(folder), requests(4, SHIPPED))


# --- forms --------------------------------------------------------------------------------------------------


def test_bfloat16_is_another_engine(tiny_model: Path, tiny_engine: Transformers) -> None:
    half = Transformers(as_model(tiny_model), Placement("cpu", "bfloat16", "none", ""))
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert half.identity == tiny_engine.identity | {"dtype": "bfloat16"}
    assert all(done.text for done in complete(half, requests(8, SHIPPED)))


def test_estimate_grows_with_the_work(tiny_engine: Transformers) -> None:
    few, many = requests(32, GREEDY), requests(3200, GREEDY)
    assert 0 < tiny_engine.estimate(few) < tiny_engine.estimate(many)
