"""Bytes of a file to documents: plain text, Markdown, HTML, JSON Lines and PDF."""

from __future__ import annotations

import codecs
import io
import json
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bs4 import BeautifulSoup, Tag, XMLParsedAsHTMLWarning
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString
from bs4.exceptions import ParserRejectedMarkup
from pypdf import PdfReader
from pypdf.errors import DependencyError, DeprecationError, PyPdfError

from coe.routers.chunk import Document, Section

# What a broken PDF raises beside pypdf's own errors: it says of itself that it may raise others.
# Found by changing bytes at random; its DeprecationError comes of filter names in the file.
_BROKEN_PDF = (
    PyPdfError, DependencyError, DeprecationError, ArithmeticError, AssertionError, AttributeError,
    LookupError, NotImplementedError, OSError, RecursionError, TypeError, ValueError, struct.error,
    zlib.error,
)  # fmt: skip
# its remarks on broken files would go to standard error where nobody listens to them
logging.getLogger("pypdf").addHandler(logging.NullHandler())

_MAX_TITLE_CHARS = 200
_LINES_NAMED = 10
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|--+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_UNREAD_TAGS = ("head", "script", "style", "nav", "noscript", "template", "svg", "iframe")
_HEADING_TAGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_LINE_TAGS = frozenset(("li", "tr", "dt", "dd", "option"))
_BLOCK_TAGS = _HEADING_TAGS | _LINE_TAGS | frozenset(
    ("address", "article", "aside", "blockquote", "body", "caption", "details", "div", "dl",
     "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "main", "ol", "p", "pre",
     "section", "summary", "table", "ul")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Omission:
    """Something that was not read. ``failed``: it should have been and could not be."""

    source: str
    reason: str
    failed: bool = True


Found = Iterator[Document | Omission]


@dataclass(slots=True)
class _Outline:
    """Text as it comes, cut into sections by headings."""

    title: str = ""
    headings: list[tuple[int, str]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def head(self, level: int, text: str) -> None:
        self.close()
        while self.headings and self.headings[-1][0] >= level:
            self.headings.pop()
        self.headings.append((level, " ".join(text.split())))

    def close(self) -> None:
        text = "".join(self.parts).strip("\n")
        if text.strip():
            names = [name for _, name in self.headings if name]
            if self.title and self.title not in names:
                names.insert(0, self.title)
            self.sections.append(Section(text, " > ".join(names)[:_MAX_TITLE_CHARS]))
        self.parts.clear()


def read_text(content: bytes, source: str) -> Found:
    """The text of a file as one section."""
    text = _decoded(content)
    if text is None:
        yield _not_text(source)
    else:
        yield Document(source, (Section(text),))


def read_markdown(content: bytes, source: str) -> Found:
    """A section for each heading outside fenced code; other marks stay in the text."""
    text = _decoded(content)
    if text is None:
        yield _not_text(source)
        return
    outline, fence, lines = _Outline(), "", text.split("\n")
    for n, line in enumerate(lines):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip(fence[0] + " \t"):
                fence = ""
        elif mark:
            fence = mark[1]
        elif heading := _HEADING.match(line):
            outline.head(len(heading[1]), heading[2] or "")
            continue
        elif _is_underlined(lines, n):
            level = 1 if lines[n + 1].lstrip().startswith("=") else 2
            outline.head(level, line)
            continue
        elif n and _is_underlined(lines, n - 1):
            continue
        outline.parts.append(line + "\n")
    outline.close()
    yield Document(source, tuple(outline.sections))


def read_html(content: bytes, source: str) -> Found:
    """A section for each heading, under the page's title; scripts, styles and navigation left out.

    The encoding is the declared one, else UTF-8.
    """
    text = _decoded(content, EncodingDetector.find_declared_encoding(content, is_html=True))
    if text is None:
        yield _not_text(source)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)
            page = BeautifulSoup(text, "html.parser")
        title = page.title.get_text(" ", strip=True) if page.title else ""
        for tag in page.find_all(_UNREAD_TAGS):
            tag.decompose()
        yield Document(source, _html_sections(page, " ".join(title.split())))
    except (ParserRejectedMarkup, RecursionError) as error:
        yield Omission(source, f"not readable as HTML: {_short(error)}")


def read_jsonl(content: bytes, source: str) -> Found:
    """A document for each line: an object with "text", and optionally "title", "url", "id".

    Its source is its URL, else the file with the id or the number of the line.
    """
    n_wrong = 0
    for n, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _json_document(json.loads(line.decode()), f"{source}#", n)
        except (ValueError, RecursionError) as error:
            n_wrong += 1
            if n_wrong <= _LINES_NAMED:
                yield Omission(f"{source}:{n}", _short(error))
    if n_wrong > _LINES_NAMED:
        yield Omission(source, f"{n_wrong - _LINES_NAMED} more lines are wrong")


def read_pdf(content: bytes, source: str) -> Found:
    """A section for each page with text, under the document's title."""
    sections = []
    try:
        reader = PdfReader(io.BytesIO(content))
        n_pages = len(reader.pages)
        title = (reader.metadata and reader.metadata.title) or ""
    except _BROKEN_PDF as error:
        yield Omission(source, f"not readable as PDF: {_short(error)}")
        return
    title = _whole(" ".join(str(title).split()))[:_MAX_TITLE_CHARS]
    for number in range(1, n_pages + 1):
        try:
            text = reader.pages[number - 1].extract_text()
        except _BROKEN_PDF as error:
            yield Omission(f"{source} page {number}", f"not readable: {_short(error)}")
            continue
        if text.strip():
            sections.append(Section(_whole(text), title, number))
    if sections:
        yield Document(source, tuple(sections))
    else:
        yield Omission(source, f"no text on its {n_pages} pages: a scan?", failed=False)


READERS: Mapping[str, Callable[[bytes, str], Found]] = {
    ".txt": read_text,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".jsonl": read_jsonl,
    ".pdf": read_pdf,
}
"""By suffix in lower case: content and source to documents, and to what is wrong."""


def _decoded(content: bytes, declared: str | None = None) -> str | None:
    """The text with plain line ends; ``None`` for bytes that are none."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif content.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    else:
        encoding = declared or "utf-8"
    try:
        text = content.decode(encoding)
    except (UnicodeError, LookupError):
        return None
    return None if "\0" in text else text.replace("\r\n", "\n").replace("\r", "\n")


def _not_text(source: str) -> Omission:
    return Omission(source, "not text in UTF-8 (or in the encoding it declares): convert it")


def _is_underlined(lines: list[str], n: int) -> bool:
    """Whether line ``n`` stands alone above a line of = or -, which makes it a heading."""
    return (
        n + 1 < len(lines)
        and bool(lines[n].strip())
        and not _UNDERLINE.match(lines[n])
        and (n == 0 or not lines[n - 1].strip())
        and bool(_UNDERLINE.match(lines[n + 1]))
    )


def _html_sections(page: BeautifulSoup, title: str) -> tuple[Section, ...]:
    outline = _Outline(title)
    block_of: dict[int, Tag] = {id(page): page}
    last: Tag = page
    for node in page.descendants:
        block = block_of[id(node.parent)]
        if isinstance(node, Tag):
            inside_heading = block.name in _HEADING_TAGS
            starts_block = node.name in _BLOCK_TAGS and not inside_heading
            block_of[id(node)] = node if starts_block else block
            if starts_block and node.name in _HEADING_TAGS:
                outline.head(int(node.name[1]), node.get_text(" ", strip=True))
            elif node.name in ("br", "td", "th") and not inside_heading:
                outline.parts.append("\n" if node.name == "br" else " ")
        elif type(node) is NavigableString and block.name not in _HEADING_TAGS:
            text = str(node) if block.name == "pre" else re.sub(r"\s+", " ", node)
            if text.strip() and block is not last:
                outline.parts.append("\n" if block.name in _LINE_TAGS else "\n\n")
                last = block
            outline.parts.append(text)
    outline.close()
    return tuple(outline.sections)


def _json_document(row: Any, prefix: str, n: int) -> Document:
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise ValueError('not an object with a string "text"')
    names = {key: row[key] for key in ("id", "title", "url") if isinstance(row.get(key), str | int)}
    source = str(names.get("url") or f"{prefix}{names.get('id', n)}")
    title = " ".join(str(names.get("title", "")).split())[:_MAX_TITLE_CHARS]
    return Document(_whole(source), (Section(_whole(row["text"]), _whole(title)),))


def _whole(text: str) -> str:
    """The text without lone surrogates, which JSON and PDF can carry and UTF-8 cannot."""
    return text.encode(errors="replace").decode()


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:160]
