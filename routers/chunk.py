"""Documents cut into passages."""

from __future__ import annotations

import functools
import hashlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from coe.routers.retrieve import Passage
from coe.routers.terms import UNSPACED, marks

SIZE_WORDS = 180
OVERLAP_WORDS = 30
_MAX_WORD_CHARS = 32
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
# Latin, Chinese, Japanese, Arabic, Urdu, Hindi, Burmese, Tibetan, Armenian, Amharic; then quotes
_SENTENCE_ENDS = re.compile(
    "[.!?\u2026\u3002\uff01\uff1f\uff61\u061f\u06d4\u0964\u0965\u104b\u0f0d\u0589\u1362]"
    "[\"'\u201d\u2019\u00bb)\\]\u300d\u300f]*$"
)


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch of a document that no passage leaves: under one heading, on one page.

    Parameters
    ----------
    text : blank lines separate its paragraphs.
    title : the headings above it; empty where there are none.
    page : number of the page, from 1; ``None`` where there are no pages.
    """

    text: str
    title: str = ""
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """What is cut into passages.

    Parameters
    ----------
    source : where the document comes from, as citations name it.
    sections : in order.
    """

    source: str
    sections: tuple[Section, ...]


def passages_of(
    documents: Iterable[Document], size: int = SIZE_WORDS, overlap: int = OVERLAP_WORDS
) -> Iterator[Passage]:
    """The passages of every document in order, none across two sections.

    A passage's id is a hash of its source, title, page and text, so that it stays the same when
    another part of the document changes; the second passage of equal content counts itself in.
    ``position`` counts the passages of a document. Sections without text give none.

    Parameters
    ----------
    size, overlap : as in `split`.
    """
    seen: Counter[tuple[str, str, int | None, str]] = Counter()
    for document in documents:
        position = 0
        for section in document.sections:
            for text in split(section.text, size, overlap):
                content = (document.source, section.title, section.page, text)
                yield Passage(
                    _passage_id((*content, seen[content])),
                    text,
                    document.source,
                    section.title,
                    position,
                    section.page,
                )
                seen[content] += 1
                position += 1


def split(text: str, size: int = SIZE_WORDS, overlap: int = OVERLAP_WORDS) -> list[str]:
    """Pieces of the text, verbatim, of about ``size`` words; each repeats the last one's end.

    A piece ends at the last end of a paragraph in its last third; where there is none, of a
    sentence; where there is none, in mid-sentence. The last piece may hold ``overlap`` words more,
    lest almost all of it be repeated. In scripts without spaces two characters count as a word, and
    so do 32 characters of anything longer. White space around a piece is dropped; of a text without
    anything else there are no pieces. Time is linear in the length.

    Parameters
    ----------
    size : words of a piece, at least 3.
    overlap : words that two neighbours share, at most half of ``size``.

    Raises
    ------
    ValueError
        ``size`` or ``overlap`` is out of range.
    """
    if size < 3 or not 0 <= overlap <= size // 2:
        raise ValueError(f"size {size}, overlap {overlap}: 3 <= size, 0 <= overlap <= size // 2")
    words = [match.span() for match in _word_pattern().finditer(text)]
    breaks = _Breaks.of(text, words)
    pieces, start = [], 0
    while start < len(words):
        end = len(words)
        if end - start > size + overlap:
            end = breaks.last(start + size - size // 3, start + size)
        pieces.append(text[words[start][0] : words[end - 1][1]])
        start = end - overlap if end < len(words) else end
    return pieces


@dataclass(frozen=True, slots=True)
class _Breaks:
    """Numbers of the words before which a paragraph or a sentence begins, each rising."""

    paragraphs: list[int]
    sentences: list[int]

    @classmethod
    def of(cls, text: str, words: list[tuple[int, int]]) -> _Breaks:
        paragraphs, sentences = [], []
        for k in range(1, len(words)):
            (begin, end), (following, _) = words[k - 1], words[k]
            if following - end > 1 and _PARAGRAPH.search(text, end, following):
                paragraphs.append(k)
            elif _SENTENCE_ENDS.search(text[max(begin, end - 4) : end]):
                sentences.append(k)
        return cls(paragraphs, sentences)

    def last(self, low: int, high: int) -> int:
        """The best place in (low, high] to stop before; ``high`` where none is better."""
        for places in (self.paragraphs, self.sentences):
            k = bisect_right(places, high) - 1
            if k >= 0 and places[k] > low:
                return places[k]
        return high


def _passage_id(content: tuple[object, ...]) -> str:
    parts = "\0".join(str(part) for part in content)
    return hashlib.blake2b(parts.encode(errors="surrogatepass"), digest_size=8).hexdigest()


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    # a mark is not parted from its letter
    pair = rf"(?:[{UNSPACED}][{marks()}]*){{1,2}}"
    return re.compile(rf"{pair}|[^\s{UNSPACED}]{{1,{_MAX_WORD_CHARS}}}")
