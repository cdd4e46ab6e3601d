"""Look after the journal, which keeps every completion.

Examples:

    ccai journal stats
    ccai journal verify
    ccai journal prune --older-than 90
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ccai.base import cache
from ccai.base.errors import UserError
from ccai.base.files import write_text
from ccai.generate.journal import Journal, has_writer, segments, whole


def _stats(journal: Journal, folder: Path) -> None:
    """What the folder holds, on a few lines."""
    entries = prompted = written = scores = 0
    first = last = ""
    for entry in journal.entries():
        entries += 1
        scores += "completion_tokens" not in entry.value
        prompted += entry.value.get("prompt_tokens", 0)
        written += entry.value.get("completion_tokens", 0)
        first, last = first or entry.at, entry.at
    paths = list(segments(folder))
    torn = sum(line.torn for line in journal.damage)
    print(folder)
    print(f"entries     {entries:,}: {entries - scores:,} completions, {scores:,} others")
    print(f"tokens      {written:,} written in answer to {prompted:,}")
    print(f"segments    {len(paths):,}, {sum(map(has_writer, paths)):,} of them being written")
    print(f"bytes       {sum(path.stat().st_size for path in paths):,}")
    print(f"duplicates  {journal.duplicates:,}")
    print(f"damaged     {journal.damaged:,} lines: {torn:,} torn, {journal.damaged - torn:,} corrupted")
    if last:
        print(f"written     {first or 'earlier'} to {last}")


def _verify(journal: Journal, folder: Path) -> None:
    """Say that all is well.

    Raises:
        UserError: a line is damaged; names it.
    """
    if journal.damage:
        first, torn = journal.damage[0], sum(line.torn for line in journal.damage)
        raise UserError(
            f"{first.segment}:{first.number}: {'torn' if first.torn else 'corrupted'} line; {torn} torn and "
            f"{journal.damaged - torn} corrupted in all, they are passed over; "
            "ccai journal prune --yes takes them out"
        )
    print(f"{folder}: {len(journal) + journal.duplicates:,} lines, all as they were written")


def _prune(journal: Journal, folder: Path, days: float | None, really: bool) -> None:
    """Prune, or say what that would do."""
    before = "" if days is None else (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="microseconds")
    done = journal.prune(before, really)
    if done.nothing:
        written = sum(map(has_writer, segments(folder)))
        print(f"nothing to prune; {written:,} segments are being written" if written else "nothing to prune")
        return
    aged = "" if days is None else f", {done.old:,} entries older than {days:g} days given up"
    print(
        f"{'pruned' if really else 'would prune'}: segments {done.segments:,} → {min(done.kept, 1)}, "
        f"bytes {done.bytes:,} → {done.size:,}, {done.kept:,} entries kept{aged}"
    )
    if not really:
        print("nothing is changed yet: add --yes")


def _export(journal: Journal, out: Path | None) -> None:
    """Every entry as a line of JSON, in the order in which they were written."""
    lines = (json.dumps(entry._asdict(), ensure_ascii=False) + "\n" for entry in journal.entries())
    if out:
        write_text(out, "".join(lines))
    else:
        sys.stdout.writelines(lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("--folder", type=Path, help="a copy of a journal (without it, the one in the cache folder)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("stats", help="what is in it")
    commands.add_parser("verify", help="check every line; exit code 2 if one is damaged")
    prune = commands.add_parser("prune", help="rewrite as one segment, without damaged lines and duplicates")
    prune.add_argument("--older-than", type=float, metavar="DAYS", help="give up entries written before that, too")
    prune.add_argument("--yes", action="store_true", help="do it; otherwise only say what would be done")
    export = commands.add_parser("export", help="write all entries as JSON lines")
    export.add_argument("-o", "--out", type=Path, metavar="FILE", help="instead of standard output")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    folder = options.folder or cache.folder("journal")
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --folder names a copy of a journal")
    journal = Journal(folder, whole)
    match options.command:
        case "stats":
            _stats(journal, folder)
        case "verify":
            _verify(journal, folder)
        case "prune":
            _prune(journal, folder, options.older_than, options.yes)
        case "export":
            _export(journal, options.out)
