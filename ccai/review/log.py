"""People's verdicts on pairs: the record, which of them stand, and a reviewer's file.

The file contains no text of a prompt or an answer, only a hash of the displayed texts.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from ccai.base import files
from ccai.base.errors import UserError
from ccai.base.hashing import digest
from ccai.base.records import Pair, Record

Label = Literal["chosen", "rejected", "tie"]


class Review(Record):
    """One action of a reviewer: a verdict on a pair, or its withdrawal.

    `content` is the hash of the displayed texts (see `content`), so that a verdict is on texts, whatever their id.
    `first` is the answer that was shown first, on the left. `at` is the time in UTC.
    """

    pair_id: str
    content: str
    first: Literal["chosen", "rejected"]
    choice: Literal["first", "second", "tie", "both_bad", "skip", "undo"]
    note: str
    at: str


def content(pair: Pair) -> str:
    """sha256 of a pair's displayed texts: principle, prompt and both answers."""
    texts = [[message.model_dump() for message in part] for part in (pair.prompt, pair.chosen, pair.rejected)]
    return digest([pair.principle, *texts])


def standing(reviews: Iterable[Review]) -> dict[str, Review]:
    """The verdicts that count, by `content`, the latest last: a later one replaces, `undo` withdraws."""
    verdicts: dict[str, Review] = {}
    for review in reviews:
        verdicts.pop(review.content, None)
        if review.choice != "undo":
            verdicts[review.content] = review
    return verdicts


def label(review: Review) -> Label | None:
    """The answer that a verdict prefers; a tie for both bad, as neither is preferred; None for a skipped pair."""
    if review.choice == "skip":
        return None
    if review.choice == "first":
        return review.first
    if review.choice == "second":
        return "rejected" if review.first == "chosen" else "chosen"
    return "tie"


def shown_first(pair: Pair, reviewer: str) -> Literal["chosen", "rejected"]:
    """The answer that a reviewer sees first: by a hash that differs between reviewers."""
    return "chosen" if int(digest(["order", reviewer, content(pair)]), 16) % 2 else "rejected"


class Log:
    """A reviewer's file, open in this process alone: a verdict is on disk when `append` returns.

    Raises:
        UserError: another process has the file open, or a line is not a review.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: in use by another `ccai review`; stop that, or give another --reviewer") from None
        self._drop_torn_line()
        self.reviews = list(files.each(path, Review))

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)

    def _drop_torn_line(self) -> None:
        """A power cut may leave part of a line, of a verdict that was never confirmed."""
        stored = self.path.read_bytes()
        whole = stored.rfind(b"\n") + 1
        if whole < len(stored):
            os.ftruncate(self._file, whole)
            print(f"{self.path}: the last line was cut short and is dropped; give that verdict again", file=sys.stderr)

    def append(self, review: Review) -> None:
        """Add one line.

        Raises:
            OSError: it could not be written; the file is as before.
        """
        size = os.fstat(self._file).st_size
        line = (review.model_dump_json() + "\n").encode()
        try:
            if os.write(self._file, line) < len(line):
                raise OSError("no space left on device")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, size)
            raise
        self.reviews.append(review)
