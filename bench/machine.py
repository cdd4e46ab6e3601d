"""The machine a number belongs to, and processes of their own on it."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from ccai.base.files import write_json

RESULTS = Path("bench/results")
LIBRARIES = ("torch", "transformers", "numpy")


def threads() -> int:
    """$OMP_NUM_THREADS, else the physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return int(os.environ.get("OMP_NUM_THREADS", min(usable, psutil.cpu_count(logical=False) or usable)))


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system and library versions; nothing that names the machine."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "threads": threads(),
        "logical_cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def alone(module: str, *arguments: object) -> int:
    """Run `python -m module` in a fresh process, so that its peak memory is its own; returns its exit code."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads())}
    return subprocess.run([sys.executable, "-m", module, *map(str, arguments)], env=environment).returncode


def peak_memory(children: bool = False) -> int:
    """Most bytes that this process, or one of its ended children, has held. Linux passes a parent's peak on to its
    children, so a parent has to stay small."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def add_results(parser: argparse.ArgumentParser) -> None:
    """The option that says where the numbers go."""
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the numbers (default: %(default)s)")


def about(command: str) -> dict[str, Any]:
    """When, how and on what something was measured."""
    return {"date": datetime.date.today().isoformat(), "command": command, "machine": describe()}


def write(folder: Path, name: str, module: str, options: Sequence[str], values: dict[str, Any]) -> Path:
    """Write the numbers with date, command, commit and machine; returns where."""
    path = folder / f"{name}.json"
    command = f"python -m {module} {shlex.join(options)}".rstrip()
    commit = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True)
    write_json(path, about(command) | {"commit": commit.stdout.strip() or None} | values)
    return path


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
