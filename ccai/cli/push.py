"""TODO."""

from __future__ import annotations

import argparse
from pathlib import Path

from huggingface_hub import HfApi

from ccai.base.errors import run
from ccai.publish.hub import CARD, adapter, merged, pairs, push


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ccai.hub", description="Publish on the Hugging Face Hub.")
    parser.add_argument("what", metavar="WHAT", help="pairs, adapter, or a folder with a merged model")
    parser.add_argument("name", metavar="OWNER/NAME")
    parser.add_argument("--public", action="store_true", help="for everybody to see; without it, a private repository")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    options = parser.parse_args()
    known = {"pairs": pairs, "adapter": adapter}
    upload = known[options.what]() if options.what in known else merged(Path(options.what))
    whom = "public" if options.public else "private"
    print(f"{options.name}: {whom} {upload.kind} on {HfApi().endpoint}:")
    sizes = {CARD: len(upload.card.encode())} | {name: path.stat().st_size for name, path in upload.files.items()}
    for name, size in sizes.items():
        print(f"{size:>14,} bytes  {name}")
    if options.dry_run:
        print("dry run: nothing was sent")
    else:
        print(f"sent: {push(options.name, upload, not options.public)}")


if __name__ == "__main__":
    run(main)
