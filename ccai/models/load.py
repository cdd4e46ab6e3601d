"""Loads a model's weights, adapter and tokenizer from a folder. No other module loads them.

Only folders on this machine are read, and no code in them is run. transformers fills missing weights with random
numbers and goes on; here every weight must be present and finite.
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
"""Text that a tokenizer must encode and decode unchanged, apart from white space and case."""

OTHER_BASE = "train again (dvc repro) or set models.train back"

TEMPLATE_SECONDS, TEMPLATE_MEMORY, TEMPLATE_LENGTH = 2, 2**30, 200_000
"""Limits of a chat template for one short message: processor time, bytes of memory, characters."""

FIXED_DATE = """\
{%- macro strftime_now(format) -%}{{ format | replace('%d', '26') | replace('%-d', '26') | replace('%e', '26') | \
replace('%m', '07') | replace('%b', 'Jul') | replace('%B', 'July') | replace('%Y', '2024') | replace('%y', '24') | \
replace('%a', 'Fri') | replace('%A', 'Friday') | replace('%j', '208') | replace('%H', '12') | replace('%I', '12') | \
replace('%M', '00') | replace('%S', '00') | replace('%p', 'PM') }}{%- endmacro -%}
"""
"""Prefix for a template that asks for the date: a fixed one, which Llama's template uses by default. With today's date
a run would write other texts on another day, and the journal would not know.
"""


def weights(model: Model, placement: Placement) -> Any:
    """A causal language model on its device; quantized through bitsandbytes if the placement says so.

    Raises:
        UserError: the folder holds no complete model, or one that cannot be run here.
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
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
            **options,
        )
    wrong = [(f"{key} is {tuple(stored)}, not {tuple(expected)}") for key, stored, expected in info["mismatched_keys"]]
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
    """Check that a model's files are complete and that the dtype can hold its weights.

    Raises:
        UserError: names the first fault.
    """
    _check_finite(files.check(folder), dtype)


def check_adapter(folder: Path, model: Model | None = None) -> dict[str, Any]:
    """Check that an adapter is complete, finite, and trained on `model`; returns its config.

    Raises:
        UserError: names the first fault.
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
    """A network with a LoRA adapter added to it; it may have others already.

    Args:
        model: the model that the adapter must have been trained on; None: not checked, its files do not name it yet.

    Raises:
        UserError: the folder holds no complete adapter, or one of another model.
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
        UserError: it cannot be loaded completely.
    """
    logging.disable_progress_bar()
    with _one_line(file), redirect_stderr(io.StringIO()):  # hides a progress bar that has no switch
        own_tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        loaded, info = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    _refuse(file, "weights are missing", info["missing_keys"])
    # The weights are complete, but the config still says GGUF, which `check` refuses: rebuild without it.
    config = loaded.config
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(target)
    own_tokenizer.save_pretrained(target)


def plain_tokenizer(folder: Path) -> Any:
    """A model's tokenizer as it is in the folder.

    Raises:
        UserError: it cannot be loaded, or does not decode what it encodes.
    """
    files.check(folder)
    logging.set_verbosity_error()
    with _one_line(folder):
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        decoded = loaded.decode(loaded.encode(SENTENCE, add_special_tokens=False), skip_special_tokens=True)
    if _squeezed(decoded) != _squeezed(SENTENCE):
        raise UserError(
            f"{folder}: its tokenizer gives {SENTENCE!r} back as {decoded[:60]!r}; get the model's folder again"
        )
    return loaded


def tokenizer(folder: Path, variables: Mapping[str, Any] | None = None) -> Any:
    """A model's tokenizer with a tested chat template that gives the same text on every day.

    Args:
        variables: variables for the template.

    Raises:
        UserError: as `plain_tokenizer`; it belongs to another model; no chat template, or one that does not work.
    """
    loaded = plain_tokenizer(folder)
    if isinstance(loaded.chat_template, dict):
        loaded.chat_template = loaded.chat_template.get("default")
    if not isinstance(loaded.chat_template, str) or not loaded.chat_template.strip():
        raise UserError(f"{folder}: its tokenizer has no chat template; use an instruct model")
    if "strftime_now" in loaded.chat_template:
        loaded.chat_template = FIXED_DATE + loaded.chat_template
    wrong = _tried(loaded, json.dumps(variables or {}, sort_keys=True))
    if wrong:
        raise UserError(f"{folder}: its chat template {wrong}; get it again or use another model")
    size = vocabulary(folder)
    if loaded.vocab_size > size:
        raise UserError(
            f"{folder}: its tokenizer has {loaded.vocab_size} tokens, the model {size}: it is another model's; get the "
            "model's folder again"
        )
    return loaded


def rendered(
    tokenizer: Any, conversations: Sequence[Sequence[Mapping[str, str]]], name: str, **options: Any
) -> list[str]:
    """Conversations as text, through the model's chat template.

    Raises:
        UserError: the template refuses such turns; some refuse a system message.
    """
    try:
        texts: list[str] = tokenizer.apply_chat_template(conversations, tokenize=False, **options)
    except Exception as error:  # a template can raise anything
        message = " ".join(str(error).split())[:200]
        raise UserError(
            f"model {name}: its chat template refuses a conversation ({message}); use another model or format"
        ) from None
    return texts


def vocabulary(folder: Path) -> int:
    """Size of a model's vocabulary, from its config.

    Raises:
        UserError: the config does not give it.
    """
    with _one_line(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return int(config.get_text_config().vocab_size)


@contextmanager
def _one_line(where: Path) -> Iterator[None]:
    """Any exception of a library about other people's files, as a UserError of one line.

    Wrap little more than calls of the library, so that a fault of ours is not taken for a fault of the file.
    """
    try:
        logging.set_verbosity_error()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, KeyboardInterrupt, SystemExit):
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise UserError(f"{where}: does not fit in memory; free some, or use a smaller model") from None
    except BaseException as error:  # also a panic in Rust, which is not an Exception
        message = " ".join(str(error).split()) or "no reason given"
        message = message if len(message) < 300 else message[:300] + " …"
        raise UserError(f"{where}: can't be loaded ({type(error).__name__}: {message}); get it again") from None


def _refuse(where: Path, what: str, keys: Iterable[str], remedy: str = "get it again") -> None:
    names = sorted(keys)
    if names:
        raise UserError(f"{where}: {what}: {len(names)}, first {names[0]}; {remedy}")


def _check_finite(paths: Sequence[Path], dtype: torch.dtype | None) -> None:
    """One pass over the files, which leaves them in the page cache for loading."""
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
                least, most = map(float, tensor.aminmax())  # NaN if the tensor has one
                if not -largest <= least <= most <= largest:
                    wrong.append(key)
        _refuse(path, f"weights hold NaN, infinity or more than {dtype or 'their dtype'} can", wrong)


@torch.no_grad()
def _try(network: Any, folder: Path) -> None:
    """One short forward pass: weights can be complete and a number in config.json still turn them into nonsense."""
    if is_fsdp_enabled():  # so far only the first process has the weights
        return
    with _one_line(folder):
        ids = torch.arange(8, device=network.device)[None] % network.get_input_embeddings().num_embeddings
        turns = [
            buffer for name, buffer in network.named_buffers() if name.endswith("inv_freq")
        ]  # sdpa hides their NaN
        logits = network(input_ids=ids, use_cache=False).logits
        finite = all(bool(tensor.isfinite().all()) for tensor in (logits, *turns))
    if not finite:
        raise UserError(
            f"{folder}: the model gives NaN or infinity; its config does not belong to these weights; get it again"
        )


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()


_TRIED: dict[tuple[str, str, str], str] = {}


def _tried(tokenizer: Any, variables: str) -> str:
    """What is wrong with a chat template, or "". Each is tested once per process."""
    key = (tokenizer.chat_template, json.dumps(tokenizer.special_tokens_map, default=str), variables)
    if key not in _TRIED:
        _TRIED[key] = _in_child(lambda: _wrong(tokenizer, json.loads(variables)))
    return _TRIED[key]


def _wrong(tokenizer: Any, variables: Mapping[str, Any]) -> str:
    def rendered(*contents: str) -> str:
        roles = ("user", "assistant")
        turns = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=len(turns) == 1, **variables)
        if not isinstance(text, str):
            raise TypeError("gives no text")
        if len(text) > TEMPLATE_LENGTH:
            raise ValueError(f"writes {len(text):,} characters around a short message")
        return text

    try:
        first, second, answered = rendered("Why?"), rendered("How?"), rendered("Why?", "Because.")
    except Exception as error:  # a template can raise anything
        return f"fails ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if first == second or answered == rendered("Why?", "Therefore."):
        return "leaves out what is said"
    return ""


def _in_child(test: Callable[[], str]) -> str:
    """The result of `test`, run in a child process that is killed when it takes too much.

    An endless loop or a number of a billion digits cannot be stopped from within. The child runs only Python, no
    library with threads.
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (TEMPLATE_SECONDS, TEMPLATE_SECONDS))
            if sys.platform == "linux":
                room = psutil.Process().memory_info().vms + TEMPLATE_MEMORY
                resource.setrlimit(resource.RLIMIT_AS, (room, room))
            os.write(sending, b"." + test().encode("utf-8", "replace"))
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        reply = pipe.read()
    os.waitpid(child, 0)
    if not reply:
        return f"takes more than {TEMPLATE_SECONDS} seconds or {TEMPLATE_MEMORY / 1e9:.0f} GB for a short message"
    return reply[1:].decode("utf-8", "replace")
