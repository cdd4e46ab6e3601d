"""The files of a model or an adapter: which ones count, whether they are complete, and their fingerprint.

This module imports no torch and reads weights only to hash them, so a faulty folder is reported at once.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccai.base import cache
from ccai.base.errors import UserError
from ccai.base.files import write_text
from ccai.base.hashing import digest, sha256_of

FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""Files that are fetched from a hub: safetensors and text. Never pickles, never code."""

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

OBJECTS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    INDEX,
    ADAPTER_CONFIG,
)
"""Files that hold a JSON object. Libraries skip some of them when they are truncated, without an error."""

LARGEST_JSON = 200_000_000
"""Size limit of a JSON file in bytes. The largest vocabularies take 40 MB."""

LARGEST_HEADER = 100_000_000
"""Size limit of a safetensors header in bytes, as in the library."""

BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32}
BITS |= {"U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
"""Bits per number, by safetensors' name of its type. Lengths of other types are not checked."""

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "head_dim", "num_attention_heads", "num_key_value_heads"),
    *("n_embd", "d_model", "n_head", "n_inner", "ffn_dim"),
)
"""Keys of config.json for the number of layers (LAYERS) and their sizes."""

PACKED = 8
"""Factor by which a size in config.json may exceed a weight's longest side: an int32 packs 8 numbers of 4 bits."""

SETTLED = 0.1
"""Seconds since a file's last change before its hash is cached: clocks of file systems have coarser ticks."""


class Tensor(NamedTuple):
    """An entry of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]


def fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of all files that can affect the model's completions.

    Hashes of files are cached, since every stage needs them, for as long as the operating system reports the same inode
    and change time; unlike the modification time, users cannot set these.

    Raises:
        UserError: no such folder, no such files in it, or one cannot be read.
    """
    paths = sorted({path for pattern in FILES for path in _present(folder).glob(pattern)})
    if not paths:
        raise UserError(f"{folder}: none of a model's files in this folder; get it again, or train again (dvc repro)")
    memory_file = cache.folder("models") / "hashes.json"
    memory = _remembered(memory_file)
    hashes: dict[str, str] = {}
    fresh: dict[str, dict[str, Any]] = {}
    for path in paths:
        at = str(path.resolve())
        try:
            status = _status(path)
            cached = memory.get(at, {})
            if cached.get("status") == status:
                hashes[path.name] = cached["sha256"]
                continue
            hashes[path.name] = sha256_of(path)
            if _status(path) == status and abs(time.time_ns() - path.stat().st_ctime_ns) > SETTLED * 1e9:
                fresh[at] = _entry(at, status, hashes[path.name])
        except OSError as error:
            raise _unreadable(path, error) from None
    if fresh:
        write_text(memory_file, json.dumps(_remembered(memory_file) | fresh, indent=1))
    return digest(hashes)


def _status(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _entry(at: str, status: list[int], sha: str) -> dict[str, Any]:
    return {"status": status, "sha256": sha, "check": digest([at, status, sha])}


def _remembered(path: Path) -> dict[str, dict[str, Any]]:
    """The hashes in hashes.json. Truncated or edited entries are left out and hashed again."""
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(entries, dict):
        return {}
    return {
        at: value
        for at, value in entries.items()
        if isinstance(value, dict) and value == _entry(at, value.get("status", []), value.get("sha256", ""))
    }


def check(folder: Path) -> list[Path]:
    """Check that a folder holds a complete model, without reading its weights; returns the files with the weights.

    Raises:
        UserError: a file is missing or truncated, or sizes in config.json do not match the weights.
    """
    paths = shards(folder)
    config = objects(folder).get("config.json")
    if config is None:
        raise UserError(f"{folder / 'config.json'}: no such file; get the model's folder again")
    entries = [entry for path in paths for entry in header(path).values()]
    for key, value in _numbers(config):
        longest = max((side for entry in entries for side in entry.shape), default=0)
        most = len(entries) if key in LAYERS else longest * PACKED
        if key in (*LAYERS, *SIZES) and not 0 <= value <= most:
            raise UserError(
                f"{folder / 'config.json'}: {key}: {value} does not match these weights; get the model's folder again"
            )
    return paths


def check_adapter(folder: Path) -> Path:
    """Check that a folder holds a complete LoRA adapter, without reading its weights; returns their file.

    Raises:
        UserError: a file is missing or truncated, or the adapter is of another kind.
    """
    config = objects(folder).get(ADAPTER_CONFIG)
    if config is None:
        raise UserError(f"{folder / ADAPTER_CONFIG}: no such file; train again (dvc repro) or fetch it (dvc pull)")
    if config.get("peft_type") != "LORA":
        raise UserError(f"{folder / ADAPTER_CONFIG}: peft_type: not LORA; other adapters are not run here")
    path = folder / ADAPTER_WEIGHTS
    if not path.exists():
        raise UserError(f"{path}: no such file; train again (dvc repro) or fetch it (dvc pull)")
    header(path)
    return path


def objects(folder: Path) -> dict[str, dict[str, Any]]:
    """The JSON files of a folder by name: those of `OBJECTS` that exist.

    Raises:
        UserError: no such folder, or names the first file that is not a JSON object.
    """
    folder = _present(folder)
    return {name: _object(folder / name) for name in OBJECTS if os.path.lexists(folder / name)}


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise UserError(f"{path}: larger than {LARGEST_JSON / 1e6:.0f} MB; get it again")
        value = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON; get it again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object; get it again")
    return value


def shards(folder: Path) -> list[Path]:
    """The files with a model's weights: one, or those that the index names.

    Raises:
        UserError: there are none, or one is missing; says what the folder holds instead.
    """
    folder = _present(folder)
    if os.path.lexists(folder / WEIGHTS):
        return [folder / WEIGHTS]
    if os.path.lexists(folder / INDEX):
        names = _object(folder / INDEX).get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise UserError(f"{folder / INDEX}: weight_map: not a mapping of weights to files; get it again")
        paths = [folder / name for name in sorted(set(names.values()))]
        for path in paths:
            if path.parent != folder or not re.fullmatch(r"[\w.-]+\.safetensors", path.name):
                raise UserError(f"{folder / INDEX}: names {path.name!r}, no safetensors file beside it; get it again")
            if not path.exists():
                raise UserError(f"{path}: no such file, but {INDEX} names it; get it again")
        return paths
    if (folder / ADAPTER_CONFIG).exists():
        raise UserError(f"{folder}: an adapter, not a model; merge it (ccai export --merge) or name its base")
    if (folder / ADAPTER_WEIGHTS).exists():
        raise UserError(f"{folder}: an adapter without {ADAPTER_CONFIG}; train again (dvc repro) or dvc pull")
    raise UserError(f"{folder}: no {WEIGHTS} or {INDEX} in this folder; save the model as safetensors")


def header(path: Path) -> dict[str, Tensor]:
    """The entries of a safetensors file: length in 8 bytes, then JSON, then numbers without a gap.

    The safetensors library would map the whole file, which fails for a file larger than memory: the case to report.

    Raises:
        UserError: a file without such a header, or of another length than the header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 0 < length <= min(size - 8, LARGEST_HEADER) else b""
        fields = json.loads(text.decode("utf-8"))
        entries = {name: _tensor(value) for name, value in fields.items() if name != "__metadata__"}
        places = sorted((value["data_offsets"] for name, value in fields.items() if name != "__metadata__"))
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UserError(f"{path}: not a safetensors file; get it or save it again") from None
    end = 0
    for begin, after in places:
        if begin != end:
            raise UserError(f"{path}: its weights leave gaps or overlap; get it or save it again")
        end = after
    if size != 8 + length + end:
        raise UserError(f"{path}: {size:,} bytes, not the {8 + length + end:,} that its header says; get it again")
    return entries


def _tensor(value: Mapping[str, Any]) -> Tensor:
    """One entry. Raises ValueError, TypeError or KeyError if it is malformed."""
    shape, (begin, end) = value["shape"], value["data_offsets"]
    if not all(type(number) is int and 0 <= number < 2**63 for number in [*shape, begin, end]):
        raise ValueError
    if not isinstance(value["dtype"], str):
        raise TypeError
    bits = BITS.get(value["dtype"])
    if bits and math.prod(shape) * bits != (end - begin) * 8:
        raise ValueError
    return Tensor(value["dtype"], tuple(shape))


def parameters(folder: Path) -> int:
    """Number of weights of a model, from its files' headers.

    Raises:
        UserError: as `shards` and `header`.
    """
    return sum(math.prod(entry.shape) for path in shards(folder) for entry in header(path).values())


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """All (key, number) in a JSON value, at any depth of mappings."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def _present(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; train (dvc repro), fetch it (dvc pull) or correct its name")
    return folder


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({error.strerror or error}); get it again or set its permissions")
