"""Folders that are no whole model, tokenizer or adapter: one line that names the file, and never another model."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import CPU, ROOT, as_model, load_engine, save_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ccai.base import versions
from ccai.base.errors import UserError
from ccai.base.params import Generation, Hardware
from ccai.base.records import Message
from ccai.engines.base import Request
from ccai.engines.chat_template import Template
from ccai.generate import completions
from ccai.models import catalogue, files, find, placement
from ccai.models import load as loading
from ccai.models.placement import Placement
from ccai.pairs.lengths import Tokens

QUESTION = [Message(role="user", content="How are you?")]
GREEDY = Generation(temperature=0, min_p=0, repetition_penalty=1)

Damage = Callable[[Path], object]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def used(folder: Path, adapter: Path | None = None) -> str:
    """What a stage does with a model: places it, and has it write."""
    model = as_model(folder)
    placement.place(model, Hardware(engine="transformers", device="cpu", dtype="float32", quantization="none"))
    [[(_, done)]] = load_engine(folder, adapter).complete([Request(tuple(QUESTION), 0, 1, 8, GREEDY)])
    return done.text


def refused(folder: Path, name: str, adapter: Path | None = None) -> str:
    """The one line that a folder is refused with; it names the file or folder."""
    with pytest.raises(UserError) as caught:
        used(folder, adapter)
    said = str(caught.value)
    assert name in said
    assert len(said.splitlines()) == 1
    assert len(said) < 1000
    return said


# --- ways to damage a folder --------------------------------------------------------------------------------


def write(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str) -> Damage:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def gone(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def keys(name: str, **values: Any) -> Damage:
    """Set keys of a JSON file."""
    return lambda folder: (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


def without(name: str, *gone: str) -> Damage:
    def damage(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({key: value for key, value in found.items() if key not in gone}))

    return damage


def tensors(change: Callable[[dict[str, torch.Tensor]], object], name: str = files.WEIGHTS) -> Damage:
    def damage(folder: Path) -> None:
        found = load_file(folder / name)
        change(found)
        save_file(found, folder / name, metadata={"format": "pt"})

    return damage


def head(change: Callable[[dict[str, Any]], Any], length: int | None = None) -> Damage:
    """Change the header of the weights' file, or the length that it says."""

    def damage(folder: Path) -> None:
        path = folder / files.WEIGHTS
        content = path.read_bytes()
        old = int.from_bytes(content[:8], "little")
        found = json.loads(content[8 : 8 + old])
        changed = json.dumps(change(found) or found).encode()
        path.write_bytes(struct.pack("<Q", length or len(changed)) + changed + content[8 + old :])

    return damage


def template(text: str) -> Damage:
    return write("chat_template.jinja", text)


def link(name: str, to: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(to)

    return damage


def become_folder(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def index(weight_map: Any) -> Damage:
    def damage(folder: Path) -> None:
        (folder / files.WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
        (folder / files.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    return damage


def entry(**values: Any) -> Damage:
    return head(lambda found: found["model.norm.weight"].update(values))


def only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / files.WEIGHTS), folder / "pytorch_model.bin")
    (folder / files.WEIGHTS).unlink()


def become_adapter(folder: Path) -> None:
    (folder / files.WEIGHTS).rename(folder / files.ADAPTER_WEIGHTS)
    (folder / files.ADAPTER_CONFIG).write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')


def other_tokenizer(folder: Path) -> None:
    """Of a model with a larger vocabulary."""
    tensors(lambda w: w.update({k: w[k][:400].clone() for k in ("lm_head.weight", "model.embed_tokens.weight")}))(
        folder
    )
    keys("config.json", vocab_size=400)(folder)


def more_tokens(folder: Path) -> None:
    """One that the template writes and the model does not know."""
    found = loading.plain_tokenizer(folder)
    found.add_tokens(["<|persona|>"], special_tokens=True)
    found.chat_template = "<|persona|>" + found.chat_template
    found.save_pretrained(folder)


def no_end(folder: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        without(name, "eos_token_id", "eos_token")(folder)


MLP = "model.layers.1.mlp.down_proj.weight"
CONFIG, TOKENIZER, TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"

WEIGHTS_KINDS: dict[str, tuple[Damage, str]] = {
    "a layer's mlp missing": (tensors(lambda w: [w.pop(k) for k in list(w) if "layers.1.mlp" in k]), ": 3, first"),
    "one weight missing": (tensors(lambda w: w.pop(MLP)), MLP),
    "one too many": (tensors(lambda w: w.update(extra=torch.ones(2))), "extra"),
    "another shape": (tensors(lambda w: w.update({MLP: torch.ones(64, 64)})), MLP),
    "one more dimension": (tensors(lambda w: w.update({MLP: w[MLP][None].clone()})), MLP),
    "embedding and head missing": (
        tensors(lambda w: [w.pop("lm_head.weight"), w.pop("model.embed_tokens.weight")]),
        "",
    ),
    "nan": (tensors(lambda w: w[MLP].view(-1)[5:6].fill_(torch.nan)), MLP),
    "infinity": (tensors(lambda w: w[MLP].view(-1)[5:6].fill_(torch.inf)), MLP),
    "minus infinity in 16 bit": (
        tensors(lambda w: w.update({MLP: w[MLP].half().view(-1).fill_(-torch.inf).view(w[MLP].shape)})),
        MLP,
    ),
    "empty": (write(files.WEIGHTS, b""), files.WEIGHTS),
    "seven bytes": (write(files.WEIGHTS, b"\1\0\0\0\0\0\0"), files.WEIGHTS),
    "a pointer of git lfs": (write(files.WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "safetensors"),
    "torn": (cut(files.WEIGHTS), files.WEIGHTS),
    "bytes too many": (lambda folder: (folder / files.WEIGHTS).open("ab").write(b"\0" * 64), files.WEIGHTS),
    "no file": (gone(files.WEIGHTS), "model"),
    "a folder": (become_folder(files.WEIGHTS), files.WEIGHTS),
    "a dangling link": (link(files.WEIGHTS, "nowhere"), files.WEIGHTS),
    "a link to itself": (link(files.WEIGHTS, files.WEIGHTS), files.WEIGHTS),
    "pickle only": (only_pickle, "model"),
    "an adapter": (become_adapter, "adapter"),
    "header of a list": (head(lambda found: list(found)), files.WEIGHTS),
    "header of a number": (head(lambda found: 7), files.WEIGHTS),
    "header longer than the file": (head(lambda found: None, 10**9), files.WEIGHTS),
    "header longer than any": (head(lambda found: None, 2**64 - 1), files.WEIGHTS),
    "entry of a list": (head(lambda found: found | {"model.norm.weight": []}), files.WEIGHTS),
    "entry without a shape": (head(lambda found: found["model.norm.weight"].pop("shape") and None), files.WEIGHTS),
    "negative offset": (entry(data_offsets=[-4, 252]), files.WEIGHTS),
    "offsets overlap": (entry(data_offsets=[0, 256]), files.WEIGHTS),
    "offsets beyond": (entry(data_offsets=[10**12, 10**12 + 256]), files.WEIGHTS),
    "offsets of text": (entry(data_offsets="ab"), files.WEIGHTS),
    "one offset": (entry(data_offsets=[0]), files.WEIGHTS),
    "shape of other length": (entry(shape=[63]), files.WEIGHTS),
    "negative shape": (entry(shape=[-64]), files.WEIGHTS),
    "shape of text": (entry(shape="64"), files.WEIGHTS),
    "shape of halves": (entry(shape=[64.0]), files.WEIGHTS),
    "shape of a boolean": (entry(shape=[True]), files.WEIGHTS),
    "huge shape": (entry(shape=[10**30, 0]), files.WEIGHTS),
    "unknown dtype": (entry(dtype="F99"), files.WEIGHTS),
    "dtype of a number": (entry(dtype=32), files.WEIGHTS),
    "index names nothing": (index({}), files.INDEX),
    "index of a list": (index([]), files.INDEX),
    "index of numbers": (index({"a": 1}), files.INDEX),
    "shard missing": (index({"a": "model-00002-of-00002.safetensors"}), "model-00002-of-00002.safetensors"),
    "shard elsewhere": (index({"a": "../model/model-00001-of-00001.safetensors"}), files.INDEX),
    "shard at the root": (index({"a": "/etc/x.safetensors"}), files.INDEX),
    "shard of pickle": (index({"a": "pytorch_model.bin"}), files.INDEX),
    "index torn": (lambda folder: (index({})(folder), cut(files.INDEX)(folder)), files.INDEX),
    "index beside a shard too few": (
        lambda folder: (
            tensors(lambda w: w.pop(MLP))(folder),
            index({"a": "model-00001-of-00001.safetensors"})(folder),
        ),
        MLP,
    ),
}

CONFIG_KINDS: dict[str, tuple[Damage, str]] = {
    "missing": (gone(CONFIG), CONFIG),
    "empty": (write(CONFIG, ""), CONFIG),
    "torn": (cut(CONFIG), CONFIG),
    "a list": (write(CONFIG, "[]"), CONFIG),
    "a number": (write(CONFIG, "7"), CONFIG),
    "null": (write(CONFIG, "null"), CONFIG),
    "an empty object": (write(CONFIG, "{}"), "model"),
    "not utf-8": (write(CONFIG, b'{"model_type": "\xff\xfe"}'), CONFIG),
    "utf-16": (write(CONFIG, '{"model_type": "llama"}'.encode("utf-16")), CONFIG),
    "deep": (write(CONFIG, "[" * 100_000), CONFIG),
    "a number of 10,000 digits": (write(CONFIG, '{"vocab_size": ' + "9" * 10_000 + "}"), CONFIG),
    "huge": (lambda folder: os.truncate(folder / CONFIG, 10**9), CONFIG),
    "a folder": (become_folder(CONFIG), CONFIG),
    "a dangling link": (link(CONFIG, "nowhere"), CONFIG),
    "unknown model_type": (keys(CONFIG, model_type="my_llama"), "model"),
    "model_type of a list": (keys(CONFIG, model_type=["llama"]), "model"),
    "model_type of an encoder": (keys(CONFIG, model_type="vit"), "model"),
    "code of its own": (
        keys(CONFIG, model_type="x", auto_map={"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}),
        "model",
    ),
    "code of another repository": (
        keys(CONFIG, model_type="x", auto_map={"AutoModelForCausalLM": "org/code--m.M"}),
        "model",
    ),
    "one layer more": (keys(CONFIG, num_hidden_layers=3), "layers.2."),
    "one layer less": (keys(CONFIG, num_hidden_layers=1), "layers.1."),
    "a billion layers": (keys(CONFIG, num_hidden_layers=10**9), "num_hidden_layers"),
    "no layers": (keys(CONFIG, num_hidden_layers=0), "layers.0."),
    "minus one layer": (keys(CONFIG, num_hidden_layers=-1), "num_hidden_layers"),
    "half a layer": (keys(CONFIG, num_hidden_layers=1.5), "model"),
    "layers of text": (keys(CONFIG, num_hidden_layers="two"), "model"),
    "larger vocabulary": (keys(CONFIG, vocab_size=600), "(512, 64)"),
    "smaller vocabulary": (keys(CONFIG, vocab_size=400), "model"),
    "vocabulary of a trillion": (keys(CONFIG, vocab_size=10**12), "vocab_size"),
    "vocabulary of none": (keys(CONFIG, vocab_size=None), "model"),
    "vocabulary below zero": (keys(CONFIG, vocab_size=-5), "vocab_size"),
    "wider": (keys(CONFIG, hidden_size=128), "model"),
    "width of zero": (keys(CONFIG, hidden_size=0), "model"),
    "width of a million million": (keys(CONFIG, hidden_size=10**12), "hidden_size"),
    "no heads": (keys(CONFIG, num_attention_heads=0), "model"),
    "seven heads": (keys(CONFIG, num_attention_heads=7), "model"),
    "key heads that divide nothing": (keys(CONFIG, num_key_value_heads=3), "model"),
    "unknown activation": (keys(CONFIG, hidden_act="swoosh"), "model"),
    "unknown dtype": (keys(CONFIG, dtype="float99"), "model"),
    "dtype of a list": (keys(CONFIG, dtype=[1]), "model"),
    "quantized by nobody": (keys(CONFIG, quantization_config={"quant_method": "nobody"}), "model"),
    "quantized by nothing": (keys(CONFIG, quantization_config={}), "model"),
    "quantized by text": (keys(CONFIG, quantization_config="4bit"), "model"),
    "gptq": (keys(CONFIG, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128}), "model"),
    "rotation of zero": (keys(CONFIG, rope_parameters={"rope_type": "default", "rope_theta": 0.0}), "model"),
    "rotation of nan": (keys(CONFIG, rope_parameters={"rope_type": "default", "rope_theta": float("nan")}), "model"),
    "rotation unknown": (keys(CONFIG, rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}), "model"),
    "rotation of a list": (keys(CONFIG, rope_parameters=[1, 2]), "model"),
    "norm of nan": (keys(CONFIG, rms_norm_eps=float("nan")), "model"),
    "weights elsewhere": (keys(CONFIG, transformers_weights="../other/model.safetensors"), "model"),
    "generation config torn": (cut("generation_config.json"), "generation_config.json"),
    "generation config of a list": (write("generation_config.json", "[]"), "generation_config.json"),
    "generation config empty": (write("generation_config.json", ""), "generation_config.json"),
    "no end token anywhere": (no_end, "eos_token_id"),
    "end token of text": (keys("generation_config.json", eos_token_id="</s>"), "model"),
    "end token beyond": (keys("generation_config.json", eos_token_id=10**6), "eos_token_id"),
    "end token below": (keys("generation_config.json", eos_token_id=-1), "eos_token_id"),
    "end tokens: none": (keys("generation_config.json", eos_token_id=[]), "eos_token_id"),
    "end tokens of lists": (keys("generation_config.json", eos_token_id=[[1]]), "model"),
}

TOKENIZER_KINDS: dict[str, tuple[Damage, str]] = {
    "none": (gone(TOKENIZER, TOKENIZER_CONFIG), "model"),
    "no tokenizer.json": (gone(TOKENIZER), "model"),
    "torn": (cut(TOKENIZER), TOKENIZER),
    "empty": (write(TOKENIZER, ""), TOKENIZER),
    "a list": (write(TOKENIZER, "[]"), TOKENIZER),
    "an empty object": (write(TOKENIZER, "{}"), "model"),
    "no model in it": (without(TOKENIZER, "model"), "model"),
    "no vocabulary": (keys(TOKENIZER, model={"type": "BPE", "vocab": {}, "merges": []}), "model"),
    "unknown kind": (keys(TOKENIZER, model={"type": "ABC", "vocab": {}}), "model"),
    "no decoder": (keys(TOKENIZER, decoder=None), "model"),
    "config torn": (cut(TOKENIZER_CONFIG), TOKENIZER_CONFIG),
    "config of a list": (write(TOKENIZER_CONFIG, "[]"), TOKENIZER_CONFIG),
    "a class of a number": (keys(TOKENIZER_CONFIG, tokenizer_class=5), "model"),
    "added tokens torn": (write("added_tokens.json", "{"), "added_tokens.json"),
    "of a larger model": (other_tokenizer, "model"),
    "a token more than the model": (more_tokens, "token"),
    "no template": (gone("chat_template.jinja"), "model"),
    "template empty": (template(""), "model"),
    "template of spaces": (template(" \n"), "model"),
    "syntax error": (template("{% for m in messages %}{{ m.content }}"), "model"),
    "no such filter": (template("{{ messages | shout }}"), "model"),
    "raises": (template("{{ raise_exception('never') }}"), "never"),
    "divides by zero": (template("{{ 1 // 0 }}"), "model"),
    "a range of a billion": (template("{% for i in range(10**9) %}{% endfor %}{{ messages[0].content }}"), "model"),
    "never ends": (
        template("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ messages }}"),
        "model",
    ),
    "never ends in a number": (template("{{ 9**(9**9) }}{{ messages }}"), "model"),
    "takes all memory": (template("{{ 'a' * 10**10 }}{{ messages }}"), "model"),
    "writes a book": (template("{% for i in range(90000) %}{{ messages }}{% endfor %}"), "model"),
    "the same for any message": (template("<|im_start|>user<|im_end|>"), "model"),
    "a slip in a name": (template("{% for m in mesages %}{{ m.content }}{% endfor %}"), "model"),
    "only the first turn": (template("{{ messages[0].content }}"), "model"),
    "not utf-8": (write("chat_template.jinja", b"\xff\xfe{{ messages }}"), "model"),
    "named, none default": (
        lambda folder: (
            gone("chat_template.jinja")(folder),
            keys(TOKENIZER_CONFIG, chat_template=[{"name": "tool_use", "template": "{{ messages }}"}])(folder),
        ),
        "model",
    ),
    "of a number": (
        lambda folder: (gone("chat_template.jinja")(folder), keys(TOKENIZER_CONFIG, chat_template=7)(folder)),
        "model",
    ),
}


@pytest.mark.parametrize("kind", WEIGHTS_KINDS)
def test_weights(folder: Path, kind: str) -> None:
    damage, named = WEIGHTS_KINDS[kind]
    damage(folder)
    refused(folder, named)


@pytest.mark.parametrize("kind", CONFIG_KINDS)
def test_config(folder: Path, kind: str) -> None:
    damage, named = CONFIG_KINDS[kind]
    damage(folder)
    refused(folder, named)


@pytest.mark.parametrize("kind", TOKENIZER_KINDS)
def test_tokenizer(folder: Path, kind: str) -> None:
    damage, named = TOKENIZER_KINDS[kind]
    damage(folder)
    refused(folder, named)
    if kind != "a token more than the model":  # which only what is asked can show
        with pytest.raises(UserError):
            Tokens(folder)


# --- what is right is taken as it is ------------------------------------------------------------------------


def test_sharded_model_is_the_same(folder: Path, tiny_model: Path) -> None:
    (folder / files.WEIGHTS).unlink()
    AutoModelForCausalLM.from_pretrained(tiny_model).save_pretrained(folder, max_shard_size="100KB")
    assert len(files.shards(folder)) > 1
    assert files.parameters(folder) == files.parameters(tiny_model)
    assert used(folder) == used(tiny_model)


def test_tied_weights_are_not_missing(folder: Path) -> None:
    tensors(lambda w: w.pop("lm_head.weight"))(folder)
    keys(CONFIG, tie_word_embeddings=True)(folder)
    assert used(folder)


def test_weights_kept_a_second_time_are_not_counted(folder: Path, tiny_model: Path) -> None:
    """As Mistral's folders hold them, in another layout."""
    shutil.copy(folder / files.WEIGHTS, folder / "consolidated.safetensors")
    assert files.parameters(folder) == files.parameters(tiny_model)
    assert used(folder) == used(tiny_model)


def test_number_too_large_for_half_precision_is_refused_in_it_alone(folder: Path) -> None:
    tensors(lambda w: w[MLP].view(-1)[5:6].fill_(1e6))(folder)
    assert loading.weights(as_model(folder), CPU)
    with pytest.raises(UserError, match=MLP):
        loading.weights(as_model(folder), Placement("cpu", "float16", "none", "test"))


def test_default_of_named_templates_is_taken(folder: Path, tiny_model: Path) -> None:
    text = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": text}, {"name": "tool_use", "template": "{{ 1 }}"}]
    keys(TOKENIZER_CONFIG, chat_template=named)(folder)
    assert used(folder) == used(tiny_model)


@pytest.mark.parametrize("format", ["%d %b %Y", "%Y-%m-%d %H:%M:%S"])
def test_date_in_a_template_is_the_same_on_every_day(
    folder: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (folder / "chat_template.jinja").read_text()
    template("Today is {{ strftime_now('" + format + "') }}.\n" + text)(folder)
    first = Template(as_model(folder))
    written = first.text_of(first.tokens(QUESTION))
    assert written.startswith("Today is 26 Jul 2024." if "%b" in format else "Today is 2024-07-26 12:00:00.")


def test_turn_that_a_template_refuses_is_one_line(folder: Path) -> None:
    """Gemma's and the first Mistral's take no system message."""
    text = (folder / "chat_template.jinja").read_text()
    template("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + text)(folder)
    found = Template(as_model(folder))
    assert found.tokens(QUESTION)
    with pytest.raises(UserError, match="no system"):
        found.tokens([Message(role="system", content="Be brief."), *QUESTION])


def test_template_is_tried_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Template(as_model(folder))
    monkeypatch.setattr(loading, "_in_child", lambda ask: "is tried again")
    Template(as_model(folder))


# --- adapters -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model whose effect is not zero."""
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules="all-linear"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1.0)
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    tuned.save_pretrained(folder)
    keys(ADAPTER_CONFIG, base_model_name_or_path="org/tiny")(folder)  # as `as_model` names it, whatever its folder
    return folder


ADAPTER_CONFIG, ADAPTER_WEIGHTS = files.ADAPTER_CONFIG, files.ADAPTER_WEIGHTS
LORA = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"


def adapter_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    return tensors(change, ADAPTER_WEIGHTS)


def empty_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def of_another_width(folder: Path) -> None:
    shutil.rmtree(folder)
    get_peft_model(save_model(folder.parent / "wide", 32), LoraConfig(target_modules=["o_proj"])).save_pretrained(
        folder
    )


ADAPTER_KINDS: dict[str, tuple[Damage, str]] = {
    "missing": (shutil.rmtree, "adapter"),
    "empty": (empty_folder, "adapter"),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.write_text("x")), "adapter"),
    "no config": (gone(ADAPTER_CONFIG), "adapter"),
    "config empty": (write(ADAPTER_CONFIG, ""), ADAPTER_CONFIG),
    "config torn": (cut(ADAPTER_CONFIG), ADAPTER_CONFIG),
    "config of a list": (write(ADAPTER_CONFIG, "[]"), ADAPTER_CONFIG),
    "config of nothing": (write(ADAPTER_CONFIG, "{}"), ADAPTER_CONFIG),
    "unknown kind": (keys(ADAPTER_CONFIG, peft_type="MAGIC"), ADAPTER_CONFIG),
    "prompt tuning": (keys(ADAPTER_CONFIG, peft_type="PROMPT_TUNING"), ADAPTER_CONFIG),
    "kind of a list": (keys(ADAPTER_CONFIG, peft_type=["LORA"]), ADAPTER_CONFIG),
    "rank of zero": (keys(ADAPTER_CONFIG, r=0), "adapter"),
    "rank below zero": (keys(ADAPTER_CONFIG, r=-8), "adapter"),
    "another rank": (keys(ADAPTER_CONFIG, r=16), "adapter"),
    "a huge rank": (keys(ADAPTER_CONFIG, r=10**9), "adapter"),
    "rank of text": (keys(ADAPTER_CONFIG, r="eight"), "adapter"),
    "rank of none": (keys(ADAPTER_CONFIG, r=None), "adapter"),
    "alpha of nan": (keys(ADAPTER_CONFIG, lora_alpha=float("nan")), "adapter"),
    "alpha of text": (keys(ADAPTER_CONFIG, lora_alpha="sixteen"), "adapter"),
    "alpha of none": (keys(ADAPTER_CONFIG, lora_alpha=None), "adapter"),
    "tokens that switch it on, of text": (keys(ADAPTER_CONFIG, alora_invocation_tokens="x"), "adapter"),
    "modules unknown": (keys(ADAPTER_CONFIG, target_modules=["nosuch"]), "adapter"),
    "modules of a number": (keys(ADAPTER_CONFIG, target_modules=7), "adapter"),
    "modules too few": (keys(ADAPTER_CONFIG, target_modules=["q_proj"]), "adapter"),
    "modules none": (keys(ADAPTER_CONFIG, target_modules=[]), "adapter"),
    "base by another name": (keys(ADAPTER_CONFIG, base_model_name_or_path="org/other"), "org/other"),
    "base of a number": (keys(ADAPTER_CONFIG, base_model_name_or_path=7), "adapter"),
    "base of another commit": (
        keys(ADAPTER_CONFIG, base_model_name_or_path="org/tiny", revision="f" * 40),
        "f" * 40,
    ),
    "of another width": (of_another_width, "adapter"),
    "no weights": (gone(ADAPTER_WEIGHTS), ADAPTER_WEIGHTS),
    "weights empty": (write(ADAPTER_WEIGHTS, b""), ADAPTER_WEIGHTS),
    "weights torn": (cut(ADAPTER_WEIGHTS), ADAPTER_WEIGHTS),
    "weights a folder": (become_folder(ADAPTER_WEIGHTS), ADAPTER_WEIGHTS),
    "weights a dangling link": (link(ADAPTER_WEIGHTS, "nowhere"), ADAPTER_WEIGHTS),
    "weights in pickle": (
        lambda folder: (
            torch.save(load_file(folder / ADAPTER_WEIGHTS), folder / "adapter_model.bin"),
            gone(ADAPTER_WEIGHTS)(folder),
        ),
        "adapter",
    ),
    "a weight missing": (adapter_tensors(lambda w: w.pop(LORA)), "layers.1.mlp.down_proj"),
    "a weight too many": (adapter_tensors(lambda w: w.update(extra=torch.ones(2))), "extra"),
    "a weight of another shape": (adapter_tensors(lambda w: w.update({LORA: torch.ones(8, 64)})), "layers.1.mlp"),
    "nan": (adapter_tensors(lambda w: w[LORA].view(-1)[3:4].fill_(torch.nan)), "layers.1.mlp"),
    "infinity": (adapter_tensors(lambda w: w[LORA].view(-1)[3:4].fill_(-torch.inf)), "layers.1.mlp"),
    "so large that nothing is left": (adapter_tensors(lambda w: [v.fill_(1e38) for v in w.values()]), "adapter"),
}


@pytest.mark.parametrize("kind", ADAPTER_KINDS)
def test_adapter(tiny_model: Path, tiny_adapter: Path, tmp_path: Path, kind: str) -> None:
    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    assert used(tiny_model, adapter) != used(tiny_model)
    damage, named = ADAPTER_KINDS[kind]
    damage(adapter)
    refused(tiny_model, named, adapter)


def test_second_adapter_and_one_that_is_trained(tiny_model: Path, tiny_adapter: Path) -> None:
    network = loading.adapter(loading.weights(as_model(tiny_model), CPU), tiny_adapter, trainable=True)
    assert any(weight.requires_grad for weight in network.parameters())
    loading.adapter(network, tiny_adapter, name="reference")
    named = dict(network.named_parameters())
    pairs = [(name, name.replace(".default.", ".reference.")) for name in named if ".default." in name]
    assert pairs
    assert all(torch.equal(named[one], named[other]) for one, other in pairs)


# --- never asked of a hub -----------------------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hosts that anything asked for."""
    asked: list[str] = []

    def look_up(host: str, *arguments: Any, **options: Any) -> Any:
        asked.append(host)
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.mark.parametrize("adapter", ["models/adapter", "org/adapter", "./adapter", "/nowhere/adapter"])
def test_missing_adapter_is_not_looked_for_on_a_hub(
    tiny_model: Path, tmp_path: Path, no_hub: list[str], monkeypatch: pytest.MonkeyPatch, adapter: str
) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    hardware = Hardware(engine="transformers", device="cpu", dtype="float32", quantization="none")
    with pytest.raises(UserError, match=str(Path(adapter))):
        completions.load_engine(str(tiny_model), hardware, Path(adapter))
    network = loading.weights(as_model(tiny_model), CPU)
    with pytest.raises(UserError, match=str(Path(adapter))):
        loading.adapter(network, Path(adapter))
    for load in (loading.stored, loading.plain_tokenizer, loading.tokenizer, loading.check, files.fingerprint):
        with pytest.raises(UserError, match=str(Path(adapter))):
            load(Path(adapter))
    assert no_hub == []


# --- pins and catalogue -------------------------------------------------------------------------------------

VERSIONS = {
    "empty": "",
    "a list": "- torch",
    "a number": "7",
    "text": "torch",
    "no such key": "transformers: 5.23.0",
    "a number as version": "torch: 2.13",
    "null": "torch:",
    "a list as version": "torch: [2, 13, 0]",
    "a mapping as version": "torch: {is: 2.13.0}",
    "a date": "torch: 2026-01-01",
    "a boolean": "torch: yes",
    "empty text": "torch: ''",
    "not yaml": "torch: [",
    "a tab": "torch:\t- [",
    "not utf-8": b"torch: \xff\xfe",
    "a nul": b"torch: \0",
    "a tag": "torch: !!python/object:os.system x",
}


@pytest.mark.parametrize("kind", [*VERSIONS, "none", "a folder"])
def test_versions_in_any_wrong_form(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    versions.VERSIONS.parent.mkdir()
    if kind in VERSIONS:
        content = VERSIONS[kind]
        versions.VERSIONS.write_bytes(content if isinstance(content, bytes) else content.encode())
    elif kind == "a folder":
        versions.VERSIONS.mkdir()
    with pytest.raises(UserError) as caught:
        versions.check("torch")
    assert str(versions.VERSIONS) in str(caught.value)


WRONG_ENTRIES = {
    "hub of a number": {"hub": 7, "revision": "0" * 40, "licence": "mit"},
    "hub of one word": {"hub": "gpt2", "revision": "0" * 40, "licence": "mit"},
    "hub of a path": {"hub": "../x", "revision": "0" * 40, "licence": "mit"},
    "no revision": {"hub": "a/b", "licence": "mit"},
    "revision of a number": {"hub": "a/b", "revision": 1234, "licence": "mit"},
    "no licence": {"hub": "a/b", "revision": "0" * 40},
    "licence of a list": {"hub": "a/b", "revision": "0" * 40, "licence": ["mit"]},
    "template of a list": {"hub": "a/b", "revision": "0" * 40, "licence": "mit", "template": [1]},
    "family of a number": {"hub": "a/b", "revision": "0" * 40, "licence": "mit", "family": 7},
    "guard of a list": {"hub": "a/b", "revision": "0" * 40, "licence": "mit", "guard": []},
    "unknown key": {"hub": "a/b", "revision": "0" * 40, "licence": "mit", "pin": 1},
    "package of an option": {"package": "--index-url=x", "file": "f", "sha256": "0" * 64, "licence": "mit"},
    "package unpinned": {"package": "llm", "file": "f", "sha256": "0" * 64, "licence": "mit"},
    "no file": {"package": "llm==1", "sha256": "0" * 64, "licence": "mit"},
    "sha of a number": {"package": "llm==1", "file": "f", "sha256": 7, "licence": "mit"},
    "sha too short": {"package": "llm==1", "file": "f", "sha256": "0" * 40, "licence": "mit"},
    "hub and package": {"hub": "a/b", "package": "llm==1"},
    "nothing": None,
    "text": "a/b",
    "a number": 7,
    "empty": {},
}


@pytest.mark.parametrize("kind", WRONG_ENTRIES)
def test_wrong_entry_of_the_catalogue(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    catalogue.CATALOGUE.parent.mkdir()
    catalogue.CATALOGUE.write_text(yaml.safe_dump({"mine": WRONG_ENTRIES[kind]}))
    with pytest.raises(UserError, match=r"conf/models\.yaml: mine: "):
        find.find("mine")


@pytest.mark.parametrize("name", [7, None, True, "../up", "a/b", "", " ", "a b"])
def test_wrong_name_in_the_catalogue(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    catalogue.CATALOGUE.parent.mkdir()
    catalogue.CATALOGUE.write_text(yaml.safe_dump({name: WRONG_ENTRIES["no licence"] | {"licence": "mit"}}))
    with pytest.raises(UserError, match=r"conf/models\.yaml: "):
        catalogue.catalogue()


# --- through a command, and many at random ------------------------------------------------------------------


@pytest.fixture
def project(tiny_model: Path, tiny_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project set to the tiny model in `tiny` with an adapter in models/adapter, as the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "conf", "conf")
    shutil.copytree(tiny_model, "tiny")
    shutil.copytree(tiny_adapter, "models/adapter")
    keys(ADAPTER_CONFIG, base_model_name_or_path="local/tiny")(Path("models/adapter"))
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["models"]["train"] = "tiny"
    values["responses"] |= {"max_new_tokens": 8}
    values["hardware"] |= {"device": "cpu", "dtype": "float32", "quantization": "none"}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return tmp_path


of_other_base = keys(ADAPTER_CONFIG, base_model_name_or_path="org/other")


def chat(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ccai", "chat", "How are you?"],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (tensors(lambda w: w.pop(MLP)), "tiny"),
        (template("{{ 9**(9**9) }}"), "tiny"),
        (
            lambda folder: keys(ADAPTER_CONFIG, base_model_name_or_path="org/other")(folder.parent / "models/adapter"),
            "",
        ),
    ],
)
def test_command_says_one_line(project: Path, damage: Damage, named: str) -> None:
    damage(project / "tiny")
    done = chat()
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert named in line
    assert "base\n" not in done.stdout


def test_chat_without_a_hub_says_one_line(project: Path) -> None:
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["models"]["train"] = "org/tiny@" + "0" * 40
    Path("params.yaml").write_text(yaml.safe_dump(values))
    done = chat(HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(project / "hf"))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr


ODD = (None, True, False, 0, -1, 1.5, 10**9, 10**30, float("nan"), "", "x", [], [[]], {}, {"a": {}}, "../../etc/passwd")


def mutate(path: Path, chance: random.Random) -> str:
    """Damage a file in one of several ways; says how."""
    content = path.read_bytes()
    way = chance.choice(["cut", "flip", "insert", "value", "value", "value", "drop"])
    if path.suffix != ".json" and way in ("value", "drop"):
        way = "flip"
    if way == "cut":
        path.write_bytes(content[: chance.randrange(len(content))])
    elif way == "flip":
        changed = bytearray(content)
        for _ in range(chance.choice([1, 1, 10])):
            changed[chance.randrange(min(len(changed), 3000))] = chance.randrange(256)
        path.write_bytes(changed)
    elif way == "insert":
        at = chance.randrange(len(content))
        path.write_bytes(content[:at] + bytes(chance.randrange(256) for _ in range(5)) + content[at:])
    else:
        found = json.loads(content)
        inner, key = found, chance.choice(list(found))
        while isinstance(inner[key], dict) and inner[key] and chance.random() < 0.7:
            inner, key = inner[key], chance.choice(list(inner[key]))
        way = f"{way} {key}"
        if way.startswith("drop"):
            del inner[key]
        else:
            inner[key] = chance.choice(ODD)
            way += f" {inner[key]}"
        path.write_text(json.dumps(found))
    return f"{path.name}: {way}"


MUTATED = (CONFIG, TOKENIZER, TOKENIZER_CONFIG, "generation_config.json", files.WEIGHTS, "chat_template.jinja")
MUTATED += (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_at_random_is_refused_or_runs(tiny_model: Path, tiny_adapter: Path, tmp_path: Path, seed: int) -> None:
    """Nothing but the one line; and what still runs is another model to the journal, unless it is the same."""
    chance = random.Random(seed)
    base, adapter = shutil.copytree(tiny_model, tmp_path / "model"), shutil.copytree(tiny_adapter, tmp_path / "adapter")
    name = MUTATED[seed % len(MUTATED)]
    folder = adapter if name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) else base
    before = files.fingerprint(folder), (folder / name).read_bytes()
    how = mutate(folder / name, chance)
    try:
        assert isinstance(used(base, adapter), str)
    except UserError as error:
        assert len(str(error).splitlines()) == 1, how
    assert (files.fingerprint(folder) == before[0]) == ((folder / name).read_bytes() == before[1]), how
