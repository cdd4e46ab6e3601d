"""TODO."""

from __future__ import annotations

import argparse
from pathlib import Path

from ccai.base import params
from ccai.base.errors import run
from ccai.models import find
from ccai.publish.export import ADAPTER, absent, converter, gguf, merge, workspace
from ccai.train import model_card


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ccai.export", description="Write the trained model whole.")
    parser.add_argument("--merge", type=Path, metavar="OUT", help="folder for transformers, vLLM and others")
    parser.add_argument("--gguf", type=Path, metavar="OUT.gguf", help="file for llama.cpp and others")
    options = parser.parse_args()
    if not (options.merge or options.gguf):
        parser.error("give --merge OUT, --gguf OUT.gguf, or both")
    if options.gguf:  # before the minutes that merging may take
        converter()
        absent(options.gguf)
    model_card.read(ADAPTER)  # before a model is fetched for nothing
    base = find.find(params.load().models.train)
    with workspace(options.merge or options.gguf) as scratch:
        merged = options.merge or scratch / "merged"
        merge(base, ADAPTER, merged)
        if options.merge:
            print(f"merged: {merged}")
        if options.gguf:
            gguf(merged, options.gguf)
            print(f"converted: {options.gguf}")


if __name__ == "__main__":
    run(main)
