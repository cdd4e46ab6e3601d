"""Evaluation prompts inside longer training texts: word 3-grams of the prompt that the text has, over all of its own.

The share is 1 for a prompt that stands in the text word for word, whatever surrounds it. Before the comparison a text
loses case, accents, punctuation and invisible characters, and leetspeak becomes letters. A character of a script that
is written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) counts as a word. scipy's
sparse product counts the grams that texts share.

Out of reach: a paraphrase, a translation, an encoding such as Base64, letters of other alphabets that look alike, and
words that are spelled out letter by letter.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from ccai.prompts.near_duplicates import Integers, Vocabulary, blocks

GRAM = 3
"""Length of a gram in words."""

CONTAINED = 0.85
"""Share of an evaluation prompt's grams from which it counts as contained (docs/DATA.md has the measurements)."""

SHORTEST = 4
"""Words of the shortest prompt that is looked for: shorter ones, such as "What is this?", occur in any prose. Two
characters of a script without spaces count as one word here.
"""

# Ranges are those of letters after NFKD.
_CHARACTERS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_UNSPACED = re.compile(rf"[{_CHARACTERS}]")
_WORD = re.compile(rf"[{_CHARACTERS}]|[^\W_{_CHARACTERS}]+")

_DIGITS = str.maketrans("013457l", "oieasti")
"""Digits to the letters that they stand for; l like 1 and i, since 1 stands for both."""

_ASCII = {at: " " for at in range(128) if not chr(at).isalnum()} | _DIGITS
"""The same for a text of ASCII alone, which `str.split` then divides several times as fast as `_WORD`."""

_SIGNS = str.maketrans("@$!|", "asii")
_SIGN = re.compile(r"[@$]|[!|](?=\w)|(?<!\w)[!|]")
"""A sign that may stand for a letter. After a word an exclamation mark is one."""


class ContainedPairs(NamedTuple):
    """A block of pairs: positions in the training and the evaluation texts, and shares, in arrays of equal length."""

    left: Integers
    right: Integers
    share: npt.NDArray[np.float64]


def contained(
    training: Sequence[str], evaluation: Sequence[str], threshold: float = CONTAINED
) -> Iterator[ContainedPairs]:
    """All pairs of a training text and an evaluation prompt of which it has `threshold` (above 0) or more, in blocks.

    Memory grows with `evaluation` and with the number of texts in `training`.
    """
    sets = [prompt_grams(prompt) for prompt in evaluation]
    places = np.array([at for at, some in enumerate(sets) if some], dtype=np.int64)
    if not len(places):
        return
    vocabulary = Vocabulary()
    prompts = vocabulary.learn(sets[at] for at in places)
    sizes = np.diff(prompts.indptr)
    index = csr_array(prompts.T)
    postings = np.diff(index.indptr).astype(np.int64)
    for start, stop in blocks(np.array([len(text) for text in training], dtype=np.int64)):
        texts = vocabulary.counts(text_grams(text) for text in training[start:stop])
        for first, last in blocks(np.asarray(texts @ postings)):
            shared = (texts[first:last] @ index).tocoo()
            share = shared.data / sizes[shared.col]
            enough = share >= threshold
            if enough.any():
                rows = shared.row[enough].astype(np.int64) + first + start
                yield ContainedPairs(rows, places[shared.col[enough]], share[enough])


def prompt_grams(prompt: str) -> set[str]:
    """An evaluation prompt's grams; none if it is shorter than `SHORTEST`."""
    words = _words(_plain(prompt))
    halves = len(_UNSPACED.findall("".join(words))) / 2
    return _grams(words) if len(words) - halves >= SHORTEST else set()


def text_grams(text: str) -> set[str]:
    """A training text's grams. Signs that may be letters or punctuation are read as both."""
    plain = _plain(text)
    grams = _grams(_words(plain))
    if not any(sign in plain for sign in "@$!|"):
        return grams
    return grams | _grams(_words(_SIGN.sub(lambda sign: sign[0].translate(_SIGNS), plain)))


def _plain(text: str) -> str:
    """Lower case, and compatible letters without accents or invisible characters."""
    if text.isascii():
        return text.lower()
    whole = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in whole if unicodedata.category(character) not in ("Mn", "Cf"))


def _words(text: str) -> list[str]:
    if text.isascii():
        return text.translate(_ASCII).split()
    return _WORD.findall(text.translate(_DIGITS))


def _grams(words: Sequence[str]) -> set[str]:
    return set(map(" ".join, zip(*(words[start:] for start in range(GRAM)), strict=False)))
