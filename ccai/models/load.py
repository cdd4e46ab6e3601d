"""From a model's folder to what runs: weights, adapter, tokenizer. Everything that is loaded is loaded here.

Only folders of this machine are read, and no code of theirs is run. transformers fills weights that a file lacks with
random numbers, and goes on; here nothing is loaded but what is whole and finite.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.integrations import is_fsdp_enabled
from transformers.utils import logging

from ccai.base.errors import UserError
from ccai.models import files
from ccai.models.model import Model
from ccai.models.placement import Placement

SENTENCE = "How are you today, my friend?"
"""What a tokenizer must give back as it was, white space and case aside."""

OTHER_BASE = "train again (dvc repro) or set models.train back"

TEMPLATE_SECONDS, TEMPLATE_MEMORY, TEMPLATE_LENGTH = 2, 2**30, 200_000
"""What a chat template may take, of processor time, bytes and characters, for one short message."""

FIXED_DATE = """\
{%- macro strftime_now(format) -%}{{ format | replace('%d', '26') | replace('%-d', '26') | replace('%e', '26') | \
replace('%m', '07') | replace('%b', 'Jul') | replace('%B', 'July') | replace('%Y', '2024') | replace('%y', '24') | \
replace('%a', 'Fri') | replace('%A', 'Friday') | replace('%j', '208') | replace('%H', '12') | replace('%I', '12') | \
replace('%M', '00') | replace('%S', '00') | replace('%p', 'PM') }}{%- endmacro -%}
"""
"""Before a template that asks for the date: it gets the one that Llama's falls back to. With today's, a run would
write other texts on another day, and the journal would not know."""


def weights(model: Model, placement: Placement) -> Any:
    """A causal language model on its device; quantized through bitsandbytes if the placement says so.

    Raises:
        UserError: the folder holds no whole model, or one that can't be run here.
    """
    dtype = getattr(torch, placement.dtype)
    quantization = None
    if placement.quantization == "8bit":
        quantization = BitsAndBytesConfig(load_in_8bit=True)
    elif placement.quantization == "4bit":
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return _network(model.folder, dtype, quantization_config=quantization, device_map=placement.device)


def stored(folder: Path) -> Any:
    """A causal language model on the CPU, in the dtype of its files.

    Raises:
        UserError: as `weights`.
    """
    return _network(folder, None)


def _network(folder: Path, dtype: torch.dtype | None, **options: Any) -> Any:
    check(folder, dtype)
    logging.disable_progress_bar()
    with _one_line(folder):
        network, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype or "auto",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # told of below, by name
            output_loading_info=True,
            **options,
        )
    wrong = [(f"{key} is {tuple(stored)}, not {tuple(wanted)}") for key, stored, wanted in info["mismatched_keys"]]
    _refuse(folder, "weights are of another shape than config.json says", wrong)
    _refuse(folder, "weights are missing", info["missing_keys"])
    _refuse(folder, "weights have no place in the model that config.json describes", info["unexpected_keys"])
    if files.objects(folder)["config.json"].get("quantization_config") is not None and not getattr(
        network, "hf_quantizer", None
    ):
        raise UserError(f"{folder / 'config.json'}: quantization_config: of no kind known here; use another model")
    if options.get("quantization_config") is None:  # on some CPUs a pass changes how bitsandbytes holds weights
        _try(network, folder)
    return network


def check(folder: Path, dtype: torch.dtype | None = None) -> None:
    """That a model's files are whole, and its weights numbers that the dtype can hold.

    Raises:
        UserError: the first thing that is wrong.
    """
    _check_finite(files.check(folder), dtype)


def check_adapter(folder: Path, model: Model | None = None) -> dict[str, Any]:
    """That an adapter's files are whole and its weights finite, and that it was trained on `model`; its config.

    Raises:
        UserError: the first thing that is wrong.
    """
    path = files.check_adapter(folder)
    _check_finite([path], torch.float32)
    config = files.objects(folder)[files.ADAPTER_CONFIG]
    base = config.get("base_model_name_or_path")
    if model is not None and base and base != model.name and Path(str(base)).resolve() != model.folder.resolve():
        raise UserError(f"{folder}: was trained on {base}, but the model is {model.name}; {OTHER_BASE}")
    revision = config.get("revision")
    if model is not None and base == model.name and revision and model.pin and revision != model.pin:
        raise UserError(f"{folder}: was trained on {base} at {revision}, not {model.pin}; {OTHER_BASE}")
    return config


def adapter(
    network: Any, folder: Path, model: Model | None = None, name: str = "default", trainable: bool = False
) -> Any:
    """A network under a LoRA adapter; a further one, where it is under one already.

    Args:
        model: what the adapter must have been trained on; None: its own files say nothing of that yet.

    Raises:
        UserError: the folder holds no whole adapter, or one of another model.
    """
    from peft import PeftConfig, PeftModel, PeftModelForCausalLM

    check_adapter(folder, model)
    with _one_line(folder):
        if not isinstance(network, PeftModel):
            config = PeftConfig.from_pretrained(str(folder), local_files_only=True)
            config.inference_mode = not trainable
            network = PeftModelForCausalLM(network, config, name)
        try:
            info = network.load_adapter(
                str(folder), name, is_trainable=trainable, torch_device=str(network.device), local_files_only=True
            )
        except RuntimeError as error:
            wrong = re.findall(r"size mismatch for (\S+):", str(error))
            if not wrong:
                raise
            _refuse(folder, "weights are of another shape than this model's", wrong, OTHER_BASE)
    _refuse(folder, "weights are missing", info.missing_keys)
    _refuse(folder, "weights have no place in this model", info.unexpected_keys, OTHER_BASE)
    if getattr(network, "hf_quantizer", None) is None:  # as in `_network`
        _try(network, folder)
    return network


def dequantize(file: Path, target: Path) -> None:
    """Write a GGUF file's model, in float32, and its tokenizer into the folder `target`.

    Raises:
        UserError: it can't be loaded whole.
    """
    logging.disable_progress_bar()
    with _one_line(file), redirect_stderr(io.StringIO()):  # a progress bar that can't be turned off
        found = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        loaded, info = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    _refuse(file, "weights are missing", info["missing_keys"])
    # The weights are whole now, but the config still says GGUF and would be refused: rebuild without it.
    config = loaded.config
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(target)
    found.save_pretrained(target)


def plain_tokenizer(folder: Path) -> Any:
    """A model's tokenizer as it is in the folder.

    Raises:
        UserError: it can't be loaded, or it does not give a text back.
    """
    files.check(folder)
    logging.set_verbosity_error()
    with _one_line(folder):
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        back = found.decode(found.encode(SENTENCE, add_special_tokens=False), skip_special_tokens=True)
    if _squeezed(back) != _squeezed(SENTENCE):
        raise UserError(
            f"{folder}: its tokenizer gives {SENTENCE!r} back as {back[:60]!r}; get the model's folder again"
        )
    return found


def tokenizer(folder: Path, variables: Mapping[str, Any] | None = None) -> Any:
    """A model's tokenizer, whose chat template was tried and gives the same text on every day.

    Args:
        variables: that the template is given.

    Raises:
        UserError: as `plain_tokenizer`; it is another model's; no chat template, or one that is no use.
    """
    found = plain_tokenizer(folder)
    if isinstance(found.chat_template, dict):
        found.chat_template = found.chat_template.get("default")
    if not isinstance(found.chat_template, str) or not found.chat_template.strip():
        raise UserError(f"{folder}: its tokenizer has no chat template; use an instruct model")
    if "strftime_now" in found.chat_template:
        found.chat_template = FIXED_DATE + found.chat_template
    wrong = _tried(found, json.dumps(variables or {}, sort_keys=True))
    if wrong:
        raise UserError(f"{folder}: its chat template {wrong}; get it again or use another model")
    size = vocabulary(folder)
    if found.vocab_size > size:
        raise UserError(
            f"{folder}: its tokenizer has {found.vocab_size} tokens, the model {size}: it is another model's; get the "
            "model's folder again"
        )
    return found


def rendered(
    tokenizer: Any, conversations: Sequence[Sequence[Mapping[str, str]]], name: str, **options: Any
) -> list[str]:
    """Conversations as the model's chat template writes them.

    Raises:
        UserError: the template does not take such turns, as some take no system message.
    """
    try:
        texts: list[str] = tokenizer.apply_chat_template(conversations, tokenize=False, **options)
    except Exception as error:  # whatever somebody's template does
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"model {name}: its chat template refuses a conversation ({said}); use another model or format"
        ) from None
    return texts


def vocabulary(folder: Path) -> int:
    """Tokens that a model knows, from its config.

    Raises:
        UserError: it can't be told.
    """
    with _one_line(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return int(config.get_text_config().vocab_size)


@contextmanager
def _one_line(where: Path) -> Iterator[None]:
    """Whatever a library raises about files that somebody else wrote, as one line. Little stands under it but calls
    of the library, so that no fault of ours is taken for a fault of the file."""
    try:
        logging.set_verbosity_error()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise UserError(f"{where}: does not fit in memory; free some, or use a smaller model") from None
    except BaseException as error:  # of a panic in Rust, too, which is no Exception
        said = " ".join(str(error).split()) or "no reason given"
        said = said if len(said) < 300 else said[:300] + " …"
        raise UserError(f"{where}: can't be loaded ({type(error).__name__}: {said}); get it again") from None


def _refuse(where: Path, what: str, found: Iterable[str], remedy: str = "get it again") -> None:
    names = sorted(found)
    if names:
        raise UserError(f"{where}: {what}: {len(names)}, first {names[0]}; {remedy}")


def _check_finite(paths: Sequence[Path], dtype: torch.dtype | None) -> None:
    """In one pass over the files, which are in memory for the loading that follows."""
    wrong: list[str] = []
    for path in paths:
        with _one_line(path), safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118  # no mapping
                tensor = file.get_tensor(key)
                if not tensor.is_floating_point() or tensor.numel() == 0:
                    continue
                if tensor.element_size() == 1:
                    tensor = tensor.float()
                largest = torch.finfo(dtype or tensor.dtype).max
                least, most = map(float, tensor.aminmax())  # of a tensor with NaN, NaN
                if not -largest <= least <= most <= largest:
                    wrong.append(key)
        _refuse(path, f"weights hold NaN, infinity or more than {dtype or 'their dtype'} can", wrong)


@torch.no_grad()
def _try(network: Any, folder: Path) -> None:
    """One short pass. Weights can be whole and a number in config.json still make nonsense of them."""
    if is_fsdp_enabled():  # only the first process has the weights by now
        return
    with _one_line(folder):
        ids = torch.arange(8, device=network.device)[None] % network.get_input_embeddings().num_embeddings
        turns = [
            buffer for name, buffer in network.named_buffers() if name.endswith("inv_freq")
        ]  # sdpa hides their NaN
        logits = network(input_ids=ids, use_cache=False).logits
        finite = all(bool(tensor.isfinite().all()) for tensor in (logits, *turns))
    if not finite:
        raise UserError(f"{folder}: the model gives NaN or infinity; its config is not of these weights; get it again")


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()


_TRIED: dict[tuple[str, str, str], str] = {}


def _tried(found: Any, variables: str) -> str:
    """What is wrong with a chat template; "": nothing. Each is tried once a process."""
    key = (found.chat_template, json.dumps(found.special_tokens_map, default=str), variables)
    if key not in _TRIED:
        _TRIED[key] = _in_child(lambda: _wrong(found, json.loads(variables)))
    return _TRIED[key]


def _wrong(found: Any, variables: Mapping[str, Any]) -> str:
    def rendered(*contents: str) -> str:
        roles = ("user", "assistant")
        turns = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
        text = found.apply_chat_template(turns, tokenize=False, add_generation_prompt=len(turns) == 1, **variables)
        if not isinstance(text, str):
            raise TypeError("gives no text")
        if len(text) > TEMPLATE_LENGTH:
            raise ValueError(f"writes {len(text):,} characters around a short message")
        return text

    try:
        first, second, answered = rendered("Why?"), rendered("How?"), rendered("Why?", "Because.")
    except Exception as error:  # whatever somebody's template does
        return f"fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if first == second or answered == rendered("Why?", "Therefore."):
        return "leaves out what is said"
    return ""


def _in_child(ask: Callable[[], str]) -> str:
    """What `ask` says, run in a child process that is ended when it takes too much: neither a loop nor a number of a
    billion digits can be ended from within. The child runs Python alone, no library with threads."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (TEMPLATE_SECONDS, TEMPLATE_SECONDS))
            if sys.platform == "linux":
                room = psutil.Process().memory_info().vms + TEMPLATE_MEMORY
                resource.setrlimit(resource.RLIMIT_AS, (room, room))
            os.write(sending, b"." + ask().encode("utf-8", "replace"))
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if not said:
        return f"takes more than {TEMPLATE_SECONDS} seconds or {TEMPLATE_MEMORY / 1e9:.0f} GB for a short message"
    return said[1:].decode("utf-8", "replace")
