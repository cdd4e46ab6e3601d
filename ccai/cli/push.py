"""Push the pairs, the trained adapter or a merged model to the Hugging Face Hub.

    ccai push pairs OWNER/NAME --dry-run       # what would be sent
    ccai push adapter OWNER/NAME               # to a private repository; HF_TOKEN must be set
    ccai push FOLDER OWNER/NAME --public       # a folder that `ccai export --merge` wrote

The adapter's card is written again for this, with the evaluation if it is of these weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from huggingface_hub import HfApi

from ccai.publish.hub import CARD, adapter, merged, pairs, push


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("what", metavar="WHAT", help="pairs, adapter, or a folder with a merged model")
    parser.add_argument("name", metavar="OWNER/NAME")
    parser.add_argument("--public", action="store_true", help="for everybody to see; without it, a private repository")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    uploads = {"pairs": pairs, "adapter": adapter}
    upload = uploads[options.what]() if options.what in uploads else merged(Path(options.what))
    whom = "public" if options.public else "private"
    print(f"{options.name}: {whom} {upload.kind} on {HfApi().endpoint}:")
    sizes = {CARD: len(upload.card.encode())} | {name: path.stat().st_size for name, path in upload.files.items()}
    for name, size in sizes.items():
        print(f"{size:>14,} bytes  {name}")
    if options.dry_run:
        print("dry run: nothing was sent")
    else:
        print(f"sent: {push(options.name, upload, not options.public)}")
