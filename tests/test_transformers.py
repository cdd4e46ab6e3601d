"""The default engine on the tiny model, against token-by-token decoding without cache, padding or batches."""

from __future__ import annotations

import copy
import itertools
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import END, TEMPLATE, as_model, load_engine, save_tokenizer
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

from ccai import models
from ccai.engines import transformers as engines
from ccai.engines.request import Completed, Request
from ccai.engines.transformers import Transformers, draw, gumbel
from ccai.errors import UserError
from ccai.models import Placement
from ccai.params import Generation
from ccai.records import Message

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


def complete(engine: Transformers, asked: Sequence[Request]) -> list[Completed]:
    """Completions in the order of the requests, each exactly once."""
    got = [entry for batch in engine.complete(asked) for entry in batch]
    assert sorted(index for index, _ in got) == list(range(len(asked)))
    return [done for _, done in sorted(got, key=lambda entry: entry[0])]


@pytest.fixture
def shapes(tiny_engine: Transformers) -> Iterator[list[tuple[int, int]]]:
    """(rows, columns) of every forward pass of the model while the test runs."""
    seen: list[tuple[int, int]] = []

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(tuple(kwargs["input_ids"].shape))

    hook = tiny_engine.model.register_forward_pre_hook(note, with_kwargs=True)
    yield seen
    hook.remove()


# --- what is written ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(tiny_model: Path) -> Callable[[Request], Completed]:
    """Decoding as a textbook has it: one row, the whole text through the model for each token, probabilities in
    float64. Only the noise is the engine's; what it is worth is tested below."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    end = tokenizer.convert_tokens_to_ids(END)

    @torch.inference_mode()
    def decode(request: Request) -> Completed:
        turns = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in request.messages)
        prompt = tokenizer.encode(f"{turns}<|im_start|>assistant\n")
        settings, written = request.sampling, list[int]()
        while len(written) < request.max_new_tokens:
            logits = model(input_ids=torch.tensor([prompt + written])).logits[0, -1].double().numpy()
            for token in set(written):
                logits[token] *= settings.repetition_penalty ** -np.sign(logits[token])
            if not written:
                logits[end] = -np.inf
            if settings.temperature:
                likely = np.exp((logits - logits.max()) / settings.temperature)
                likely[likely < settings.min_p * likely.max()] = 0
                with np.errstate(divide="ignore"):
                    logits = np.log(likely) + gumbel(request.seed, len(written), len(likely))
            token = int(logits.argmax())
            if token == end:
                break
            written.append(token)
        reason: Any = "length" if len(written) == request.max_new_tokens else "stop"
        return Completed(tokenizer.decode(written, skip_special_tokens=True).strip(), reason, len(prompt), len(written))

    return decode


@pytest.mark.parametrize(
    "sampling", [GREEDY, PENALISED, PLAIN, SHIPPED], ids=["greedy", "penalised", "plain", "shipped"]
)
@pytest.mark.parametrize("shared", [(), (SYSTEM,), SHOWN], ids=["nothing", "system", "examples"])
def test_same_as_textbook_decoding(
    tiny_engine: Transformers,
    reference: Callable[[Request], Completed],
    sampling: Generation,
    shared: tuple[Message, ...],
) -> None:
    """With a shared prefix and padding after it; text, reason and both lengths."""
    asked = requests(20, sampling, shared)
    written = complete(tiny_engine, asked)
    assert written == [reference(request) for request in asked]
    assert {done.finish_reason for done in written} == {"stop", "length"}


@pytest.mark.parametrize("sampling", [PENALISED, SHIPPED], ids=["greedy", "sampled"])
def test_text_is_independent_of_batch_order_and_sharing(
    tiny_engine: Transformers, sampling: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(120, sampling) + requests(80, sampling, SHOWN)
    alone = [complete(tiny_engine, [request])[0] for request in asked]
    assert len({done.text for done in alone}) > 150, "texts too alike to tell rows apart"
    assert complete(tiny_engine, asked) == alone
    unshared = [replace(request, shared=0) for request in asked]
    assert complete(tiny_engine, unshared) == alone
    for rows in (3, 7, 64):
        monkeypatch.setitem(engines.MAX_ROWS, "cpu", rows)
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
    assert complete(tiny_engine, asked) == [complete(tiny_engine, [request])[0] for request in asked]


def test_prefix_is_computed_once_and_finished_rows_leave(
    tiny_engine: Transformers, shapes: list[tuple[int, int]]
) -> None:
    asked = requests(32, SHIPPED, SHOWN)
    together = complete(tiny_engine, asked)
    prefix, first = shapes[:2]
    assert prefix == (1, len(tiny_engine.tokens(SHOWN, generation_prompt=False)))
    longest = max(done.prompt_tokens for done in together)
    assert first == (32, longest - prefix[1])
    rows = [rows for rows, _ in shapes[1:]]
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 16
    assert together == [complete(tiny_engine, [request])[0] for request in asked]


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


def test_never_ends_before_it_began(tiny_engine: Transformers) -> None:
    """Ends are moved to the tokens that the model would write first: it has to write others, and may end after."""
    asked = requests(60, GREEDY)
    likeliest = {
        int(tiny_engine.model(input_ids=torch.tensor([ids]), logits_to_keep=1).logits[0, -1].argmax())
        for ids in (tiny_engine.tokens(request.messages, generation_prompt=True) for request in asked)
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


# --- how tokens are drawn -----------------------------------------------------------------------------------

LOGITS = np.random.default_rng(5).normal(scale=2.0, size=40)


def softmax(logits: np.ndarray[Any, Any], temperature: float, min_p: float) -> np.ndarray[Any, Any]:
    likely = np.exp(logits / temperature)
    likely = np.where(likely >= min_p * likely.max(), likely, 0.0)
    return likely / likely.sum()


def goodness(drawn: Sequence[int], expected: np.ndarray[Any, Any]) -> float:
    """p of a chi-square test; classes of fewer than five expected draws are pooled."""
    counts = Counter(drawn)
    seen = np.array([counts[token] for token in range(len(expected))])
    assert seen[expected == 0].sum() == 0, "drew what min_p forbids"
    wanted = expected * len(drawn)
    common = wanted >= 5
    seen = np.append(seen[common], seen[~common].sum())
    wanted = np.append(wanted[common], wanted[~common].sum())
    return float(stats.chisquare(seen[wanted > 0], wanted[wanted > 0]).pvalue)


@pytest.mark.parametrize(("temperature", "min_p"), [(1.0, 0.0), (0.7, 0.05), (2.0, 0.2), (0.5, 0.0)])
def test_draws_follow_the_softmax(temperature: float, min_p: float) -> None:
    sampling = Generation(temperature=temperature, min_p=min_p, repetition_penalty=1)
    rows = 20_000
    asked = [Request((), 0, seed, 8, sampling) for seed in range(rows)]
    logits = torch.from_numpy(LOGITS).float().expand(rows, -1)
    drawn = draw(logits, torch.empty(rows, 0, dtype=torch.long), asked).tolist()
    assert goodness(drawn, softmax(LOGITS, temperature, min_p)) > 0.001
    assert goodness(drawn, softmax(LOGITS, temperature * 1.1, min_p)) < 1e-6, "too few draws to tell"


def test_draws_follow_the_softmax_along_one_completion() -> None:
    drawn = [int((LOGITS + gumbel(7, position, len(LOGITS))).argmax()) for position in range(20_000)]
    assert goodness(drawn, softmax(LOGITS, 1.0, 0.0)) > 0.001
    pairs = Counter(itertools.pairwise(drawn))
    top = int(LOGITS.argmax())
    share = drawn.count(top) / len(drawn)
    assert pairs[top, top] / len(drawn) == pytest.approx(share**2, abs=0.015), "neighbours are not independent"


def test_noise_is_finite_and_gumbel() -> None:
    """2^26 values: drawn in float32, some eight of them would be infinite."""
    chunks = 16
    most, total = -math.inf, 0.0
    for position in range(chunks):
        noise = gumbel(11, position, 1 << 22)
        assert np.isfinite(noise).all()
        most, total = max(most, float(noise.max())), total + float(noise.mean(dtype=np.float64))
    assert total / chunks == pytest.approx(np.euler_gamma, abs=0.001)
    assert 14 < most < 36


def test_noise_depends_on_seed_position_and_token_and_on_nothing_else() -> None:
    seeds, positions, size = range(20), range(20), 30
    values = [gumbel(seed, position, size) for seed in seeds for position in positions]
    assert len(np.unique(np.concatenate(values))) > 0.999 * 20 * 20 * size
    np.testing.assert_array_equal(gumbel(3, 4, size), gumbel(3, 4, size))
    np.testing.assert_array_equal(gumbel(3, 4, 2 * size)[:size], gumbel(3, 4, size))


def test_repetition_penalty_is_for_written_tokens_alone() -> None:
    def pick(logits: list[float], written: list[int], penalty: float = 1.25) -> int:
        sampling = Generation(temperature=0, min_p=0, repetition_penalty=penalty)
        return int(draw(torch.tensor([logits]), torch.tensor([written]), [Request((), 0, 0, 8, sampling)]))

    assert pick([5.0, 4.5, 0.0], [2]) == 0
    assert pick([5.0, 4.5, 0.0], [0]) == 1
    assert pick([5.0, 4.5, 0.0], [0, 1]) == 0
    assert pick([5.0, 4.5, 0.0], [0], penalty=1.0) == 0
    assert pick([-1.0, -1.2, -9.0], [0]) == 1  # a negative logit is multiplied: divided, it would rise
    assert pick([5.0, 4.1, 0.0], [0, 0, 0]) == 1  # once, however often it was written: 5 / 1.25 = 4


def test_written_tokens_of_each_row_are_its_own() -> None:
    sampling = Generation(temperature=0, min_p=0, repetition_penalty=1.25)
    asked = [Request((), 0, 0, 8, sampling)] * 2
    drawn = draw(torch.tensor([[5.0, 4.5, 0.0]] * 2), torch.tensor([[0], [2]]), asked)
    assert drawn.tolist() == [1, 0]


# --- limits -------------------------------------------------------------------------------------------------


def test_context_is_used_to_the_last_token_and_not_beyond(tiny_engine: Transformers) -> None:
    [short] = requests(1, GREEDY)
    length = len(tiny_engine.tokens(short.messages, generation_prompt=True))
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
    with pytest.raises(UserError, match="org/tiny: its tokenizer has no chat template; use an instruct model"):
        load_engine(folder)


@pytest.fixture
def small_memory(tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the model run out of memory above so many rows, as CUDA does."""
    forward = tiny_engine.model.forward

    def shrink(most: int) -> None:
        def limited(*args: Any, **kwargs: Any) -> Any:
            if kwargs["input_ids"].shape[0] > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return forward(*args, **kwargs)

        monkeypatch.setattr(tiny_engine.model, "forward", limited)

    return shrink


def test_out_of_memory_halves_batches_and_changes_no_text(
    tiny_engine: Transformers,
    shapes: list[tuple[int, int]],
    small_memory: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = requests(40, SHIPPED)
    whole = complete(tiny_engine, asked)
    small_memory(5)
    shapes.clear()
    assert complete(tiny_engine, asked) == whole
    rows = [rows for rows, _ in shapes]
    assert rows[:5] == [1, 32, 16, 8, 4]
    assert max(rows[5:]) == 4
    assert capsys.readouterr().out.splitlines() == [
        f"out of memory: batches of {rows} from here on" for rows in (16, 8, 4)
    ]


@pytest.mark.parametrize("step", [1, 9, 23])
def test_out_of_memory_in_the_middle_of_a_batch(
    tiny_engine: Transformers, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that had ended are not written a second time; the others begin again."""
    asked = requests(40, SHIPPED, ())
    whole = complete(tiny_engine, asked)
    forward, passes = tiny_engine.model.forward, itertools.count()

    def once(*args: Any, **kwargs: Any) -> Any:
        if next(passes) == step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, **kwargs)

    monkeypatch.setattr(tiny_engine.model, "forward", once)
    assert complete(tiny_engine, asked) == whole
    assert next(passes) > step + NEW


def test_row_that_does_not_fit_is_one_line(tiny_engine: Transformers, small_memory: Callable[[int], None]) -> None:
    small_memory(0)
    with pytest.raises(UserError, match=r"one row of \d+ tokens does not fit in memory on cpu; lower max_new_tokens"):
        complete(tiny_engine, [replace(request, shared=0) for request in requests(4, GREEDY)])


def test_other_errors_are_not_taken_for_memory(tiny_engine: Transformers, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(tiny_engine.model, "forward", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        complete(tiny_engine, requests(4, GREEDY, ()))


def test_batches_are_no_larger_than_free_memory_allows(
    tiny_engine: Transformers, shapes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(20, SHIPPED)
    whole = complete(tiny_engine, asked)
    longest = max(done.prompt_tokens for done in whole) + NEW
    per_token = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, size of a head, bytes
    monkeypatch.setattr(models, "free_memory", lambda device: 2 * 3 * longest * per_token)
    shapes.clear()
    assert complete(tiny_engine, asked) == whole
    assert max(rows for rows, _ in shapes) == 3


# --- label scores -------------------------------------------------------------------------------------------


def test_scores_are_the_softmax_of_a_plain_forward(tiny_engine: Transformers, tiny_model: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    conversations = [request.messages for request in requests(40, GREEDY)]
    columns = tokenizer.convert_tokens_to_ids(["A", "B", "7"])
    scored = tiny_engine.score(conversations, ("A", "B", "7"))
    with torch.inference_mode():
        for messages, probabilities in zip(conversations, scored, strict=True):
            turns = [message.model_dump() for message in messages]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            logits = model(input_ids=torch.tensor([tokenizer.encode(text)])).logits[0, -1]
            assert probabilities == pytest.approx(logits.softmax(-1)[columns].tolist(), rel=1e-3, abs=1e-7)


def test_label_of_two_tokens(tiny_engine: Transformers) -> None:
    with pytest.raises(UserError, match=r"labels \['A', ' 5'\] are not single tokens of it; use another judge"):
        tiny_engine.score([[user("Which?")]], ("A", " 5"))


# --- forms --------------------------------------------------------------------------------------------------


def test_bfloat16_is_another_engine(tiny_model: Path, tiny_engine: Transformers) -> None:
    half = Transformers(as_model(tiny_model), Placement("cpu", "bfloat16", "none", ""))
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert half.identity == tiny_engine.identity | {"dtype": "bfloat16"}
    assert all(done.text for done in complete(half, requests(8, SHIPPED)))


def test_estimate_grows_with_the_work(tiny_engine: Transformers) -> None:
    few, many = requests(32, GREEDY), requests(3200, GREEDY)
    assert 0 < tiny_engine.estimate(few) < tiny_engine.estimate(many)
