"""Text to the terms that a search counts, in any script."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator

MAX_QUERY_TERMS = 512
MAX_QUERY_CHARS = 20_000
MAX_TERM_CHARS = 64

HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
UNSPACED = (
    HAN
    + "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # Japanese syllables
    + "\uac00-\ud7a3"  # Korean: it has spaces, but particles cling to its words
    + "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e81-\u0ece\u0ed0-\u0ed9\u0edc-\u0edf"  # Thai, Lao
    + "\u1000-\u1049\u1050-\u109d\u1780-\u17d3\u17dc\u17dd\u17e0-\u17e9"  # Burmese, Khmer
)
"""Letters, marks and digits of scripts that are written without spaces, as a character class."""

# Accents of Latin, Greek and Cyrillic; points and vowel signs that Hebrew and Arabic mostly leave
# out; stretched Arabic; soft hyphens and characters of no width. Not the vowel signs of Indian and
# South-East Asian scripts, which tell words apart.
_DROPPED = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640"
    "\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u00ad\u200b-\u200f\u2060\ufeff]+"
)
_ASCII_WORD = re.compile("[a-z0-9]+")
_IS_HAN = re.compile(f"[{HAN}]")


def terms(text: str) -> Iterator[str]:
    """The terms of a text in order, repetitions included.

    A term is a run of letters and digits without regard to case and accents, cut at 64 characters;
    an underscore separates. A run in a script without spaces gives every two neighbouring
    characters, and every Chinese character alone as well. Time is linear in the length.

    There is no stemming and there are no stop words: "house" does not find "houses", nor Arabic
    with its article the same word without. Sums, signs and single symbols are no terms. Simplified
    and traditional Chinese differ. Indices keep terms: after a change here, raise the schema of
    `coe.routers.retrieve`.
    """
    if text.isascii():
        for word in _ASCII_WORD.finditer(text.lower()):
            yield word[0][:MAX_TERM_CHARS]
        return
    for run in _run_pattern().finditer(fold(text)):
        if run.lastgroup == "word":
            yield run[0][:MAX_TERM_CHARS]
        else:
            yield from _grams(run[0])


def query_terms(text: str) -> list[str]:
    """The first 512 distinct terms among the first 20,000 characters: a bounded query."""
    found: dict[str, None] = {}
    for term in terms(text[:MAX_QUERY_CHARS]):
        found[term] = None
        if len(found) == MAX_QUERY_TERMS:
            break
    return list(found)


def fold(text: str) -> str:
    """The text without differences of case, accent, width or ligature."""
    bare = _DROPPED.sub("", unicodedata.normalize("NFKD", text))
    # composed again: Korean syllables and voiced Japanese ones are single characters
    return unicodedata.normalize("NFC", bare.casefold())


def _grams(run: str) -> Iterator[str]:
    if len(run) == 1:
        yield run
        return
    for k, character in enumerate(run):
        if _IS_HAN.match(character):
            yield character
        if k + 1 < len(run):
            yield run[k : k + 2]


@functools.cache
def marks() -> str:
    """Marks that belong to the letter before them, as a character class."""
    # Python's \w leaves them out, which would cut Hindi words at their vowel signs
    codes = (*range(0x300, 0x1E00), *range(0xA800, 0xAC00))
    return "".join(chr(c) for c in codes if unicodedata.category(chr(c)) in ("Mn", "Mc"))


@functools.cache
def _run_pattern() -> re.Pattern[str]:
    letter = rf"[^\W_{UNSPACED}]"
    return re.compile(rf"(?P<word>{letter}(?:{letter}|[{marks()}])*)|[{UNSPACED}]+")
