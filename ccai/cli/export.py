"""Write the trained model as one folder or file that needs neither this project nor PEFT.

    ccai export --merge OUT           # a folder: safetensors, tokenizer, generation config, card
    ccai export --gguf OUT.gguf       # for llama.cpp, Ollama, LM Studio

GGUF needs llama.cpp's convert_hf_to_gguf.py on the PATH or in the folder that LLAMA_CPP names. Nothing is overwritten.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ccai.base import params
from ccai.base.errors import UserError
from ccai.models import find
from ccai.publish.export import ADAPTER, absent, converter, gguf, merge, workspace
from ccai.train import model_card


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("--merge", type=Path, metavar="OUT", help="folder for transformers, vLLM and others")
    parser.add_argument("--gguf", type=Path, metavar="OUT.gguf", help="file for llama.cpp and others")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    if not (options.merge or options.gguf):
        raise UserError("give --merge OUT, --gguf OUT.gguf, or both")
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
