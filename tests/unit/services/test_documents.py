"""Documents: what is read of which format, and what is said of the rest."""

import codecs
import json
import os
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coe.errors.files import ConfigError
from coe.routers.chunk import Document, passages_of
from coe.routers.retrieve import Index
from coe.services.documents import read_documents
from coe.services.formats import (
    READERS,
    Omission,
    read_html,
    read_jsonl,
    read_markdown,
    read_pdf,
    read_text,
)


def pdf(*pages, title="", packed=False):
    """A PDF with one line of text a page, written object by object."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>"
        % (b" ".join(b"%d 0 R" % (5 + 2 * n) for n in range(len(pages))), len(pages)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Title (%s) >>" % title.encode(),
    ]
    for n, text in enumerate(pages):
        stream = b"BT /F1 12 Tf 72 700 Td (%s) Tj ET" % text.encode() if text else b""
        kind = b""
        if packed:
            stream, kind = zlib.compress(stream), b"/Filter /FlateDecode "
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (6 + 2 * n),
            b"<< %s/Length %d >>\nstream\n%s\nendstream" % (kind, len(stream), stream),
        ]
    out, starts = bytearray(b"%PDF-1.4\n"), []
    for n, content in enumerate(objects, start=1):
        starts.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (n, content)
    table = b"".join(b"%010d 00000 n \n" % start for start in starts)
    size, xref = len(objects) + 1, len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    out += b"trailer << /Size %d /Root 1 0 R /Info 4 0 R >>\nstartxref\n%d\n%%%%EOF" % (size, xref)
    return bytes(out)


def sections(reader, content):
    """Title and text of each section of the only document."""
    (document,) = reader(content, "x")
    return [(section.title, section.text) for section in document.sections]


def omissions(found):
    return [each for each in found if isinstance(each, Omission)]


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


def sources(folder, **options):
    return [document.source for document in read_documents(folder, **options).documents]


# ---- plain text


@pytest.mark.parametrize(
    "content",
    [
        "Zürich\n北京".encode(),
        codecs.BOM_UTF8 + "Zürich\n北京".encode(),
        "Zürich\r\n北京".encode("utf-16"),
        codecs.BOM_UTF16_BE + "Zürich\r北京".encode("utf-16-be"),
    ],
)
def test_text_is_read_in_utf_8_and_marked_utf_16(content):
    assert sections(read_text, content) == [("", "Zürich\n北京")]


@pytest.mark.parametrize("content", [b"caf\xe9", b"\x80", b"a\0b", codecs.BOM_UTF16_LE + b"x"])
@pytest.mark.parametrize("reader", [read_text, read_markdown, read_html])
def test_what_is_no_text_is_an_omission(reader, content):
    (found,) = reader(content, "x.txt")
    assert found.failed
    assert "not text in UTF-8" in found.reason


# ---- Markdown


def test_markdown_headings_title_the_text_below_them():
    content = b"""before
# Guide #
intro
## Install
### Linux
apt
## Use
run `coe`
# End
"""
    assert sections(read_markdown, content) == [
        ("", "before"),
        ("Guide", "intro"),
        ("Guide > Install > Linux", "apt"),
        ("Guide > Use", "run `coe`"),
    ]


def test_underlined_headings():
    content = b"Guide\n=====\n\nintro\n\nUse\n---\nrun\n\n---\n\nmore\nthan one line\n---\nend\n"
    assert sections(read_markdown, content) == [
        ("Guide", "intro"),
        ("Guide > Use", "run\n\n---\n\nmore\nthan one line\n---\nend"),
    ]


@pytest.mark.parametrize("fence", ["```", "~~~~", "  ```"])
def test_a_comment_in_fenced_code_is_no_heading(fence):
    content = f"# A\n{fence}sh\n# comment\n```{'x'}\n{fence}\n# B\ntext".encode()
    assert [title for title, _ in sections(read_markdown, content)] == ["A", "B"]
    assert "# comment" in sections(read_markdown, content)[0][1]


@pytest.mark.parametrize("line", ["#hashtag", "####### seven", "    # code", "#!/bin/sh"])
def test_what_only_looks_like_a_heading_is_text(line):
    assert sections(read_markdown, line.encode()) == [("", line)]


def test_front_matter_is_text():
    content = b"---\ntitle: x\nauthor: y\n---\ntext"
    assert sections(read_markdown, content) == [("", content.decode())]


# ---- HTML

PAGE = """<!DOCTYPE html><html><head><title>The  site</title><style>p{x}</style></head><body>
<nav><a href=/>Home</a><h1>Menu</h1></nav><script>alert("x")</script><!-- remark -->
<p>Before</p>
<h1>Top <em>news</em></h1>A<div>B <b>bold</b><p>C&amp;D</p></div>E
<h2>Table</h2><table><tr><td>one</td><td>two</td></tr><tr><td>three</td></tr></table>
<h2>Code</h2><pre>x = 1
  y</pre><ul><li>first<li>second</ul>last<br>line
</body></html>"""


def test_html_keeps_title_headings_and_blocks_and_drops_the_machinery():
    found = dict(sections(read_html, PAGE.encode()))
    assert list(found) == [
        "The site",
        "The site > Top news",
        "The site > Top news > Table",
        "The site > Top news > Code",
    ]
    assert found["The site"].strip() == "Before"
    paragraphs = [line.split() for line in found["The site > Top news"].split("\n\n")]
    assert paragraphs == [["A"], ["B", "bold"], ["C&D"], ["E"]]
    rows = [line.split() for line in found["The site > Top news > Table"].strip().split("\n")]
    assert rows == [["one", "two"], ["three"]]
    assert "x = 1\n  y" in found["The site > Top news > Code"]
    assert found["The site > Top news > Code"].split()[-4:] == ["first", "second", "last", "line"]
    everything = str(found)
    assert not any(w in everything for w in ("alert", "remark", "Home", "Menu", "p{x}", "DOCTYPE"))


def test_html_in_a_declared_encoding():
    content = '<meta charset="windows-1251"><p>Москва</p>'.encode("windows-1251")
    assert sections(read_html, content) == [("", "Москва")]


def test_html_in_an_unknown_encoding_is_an_omission():
    (found,) = read_html(b'<meta charset="klingon-8"><p>caf\xe9</p>', "x.html")
    assert found.failed


@pytest.mark.parametrize(
    "content",
    [
        b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><p>text</p></html>',
        b"text",
        b"<p>text",
        b"</div></p>text<",
        b"<b>" * 3000 + b"text",
        b"<div>" * 3000 + b"text",
        b"<h1><div>x</div></h1>text",
    ],
)
def test_html_that_is_odd_is_read_all_the_same(content):
    ((_, text),) = sections(read_html, content)
    assert text.strip().rstrip("<").strip() == "text"


@pytest.mark.parametrize("content", [b"<![foo", b"<!DOCTYPE", b"<", b"<!--", b"\xef\xbb\xbf"])
def test_html_that_is_broken_is_no_crash(content):
    assert len(list(read_html(content, "x.html"))) == 1


# ---- JSON Lines


def test_each_line_is_a_document_with_a_source_of_its_own():
    rows = [
        {"text": "one"},
        {"text": "two", "id": 7, "title": "Second  row"},
        {"text": "three", "id": "c", "url": "https://example.com/c"},
    ]
    content = b"\n".join(json.dumps(row).encode() for row in rows)
    found = list(read_jsonl(codecs.BOM_UTF8 + content + b"\r\n\n", "notes.jsonl"))
    assert [each.source for each in found] == [
        "notes.jsonl#1",
        "notes.jsonl#7",
        "https://example.com/c",
    ]
    assert [each.sections[0].title for each in found] == ["", "Second row", ""]


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"3", b"{}", b'{"text": 3}', b'{"text": null}', b"\xff", b"[" * 100_000, b"nul"],
)
def test_a_bad_line_is_named_by_its_number_and_the_others_are_read(line):
    found = list(read_jsonl(b'{"text": "a"}\n\n' + line + b'\n{"text": "b"}', "notes.jsonl"))
    assert [each.source for each in found] == ["notes.jsonl#1", "notes.jsonl:3", "notes.jsonl#4"]
    assert found[1].failed
    assert found[1].reason


def test_many_bad_lines_are_counted():
    found = list(read_jsonl(b"{}\n" * 1000, "notes.jsonl"))
    assert len(found) == 11
    assert found[-1] == Omission("notes.jsonl", "990 more lines are wrong")


def test_a_lone_surrogate_becomes_a_question_mark():
    ((_, text),) = sections(read_jsonl, b'{"text": "a\\ud800b"}')
    assert text == "a?b"


# ---- PDF


@pytest.mark.parametrize("packed", [False, True])
def test_pdf_pages_keep_their_numbers(packed):
    content = pdf("Hello world", "", "Third page", title="The report", packed=packed)
    (found,) = read_pdf(content, "a.pdf")
    assert [(s.page, s.title, s.text.strip()) for s in found.sections] == [
        (1, "The report", "Hello world"),
        (3, "The report", "Third page"),
    ]


def test_pdf_without_text_is_skipped_as_a_scan():
    (found,) = read_pdf(pdf("", ""), "scan.pdf")
    assert not found.failed
    assert "no text on its 2 pages" in found.reason


@pytest.mark.parametrize(
    "content", [b"", b"%PDF-1.4", b"not a pdf", pdf("x")[:200], pdf("x")[100:], b"\0" * 1000]
)
def test_broken_pdf_is_an_omission(content, caplog):
    (found,) = read_pdf(content, "a.pdf")
    assert found.failed
    assert "not readable" in found.reason


def test_pdf_with_a_filter_of_an_old_name_is_an_omission():
    content = pdf("x", packed=True).replace(b"/FlateDecode", b"/Fl         ")
    found = list(read_pdf(content, "a.pdf"))
    assert found[0].source == "a.pdf page 1"
    assert found[0].failed


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_pdf_never_crashes(data):
    content = bytearray(pdf("Hello world", "Second", packed=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 4))] = data.draw(st.binary(max_size=4))
    for found in read_pdf(bytes(content), "a.pdf"):
        assert isinstance(found, Document | Omission)


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_a_document_or_an_omission(suffix, content):
    for found in READERS[suffix](content, "x" + suffix):
        assert isinstance(found, Document | Omission)


@given(st.sampled_from([".md", ".html", ".txt"]), st.text("#=-`~<>/!&;h1pre \n\ta é"))
def test_any_text_is_one_document(suffix, text):
    for found in READERS[suffix](text.encode(), "x"):
        assert isinstance(found, Document | Omission)


# ---- folders


def test_a_folder_is_read_in_the_order_of_its_names(docs):
    (docs / "b").mkdir()
    for name in ("c.txt", "b/z.MD", "b/a.htm", "a.markdown"):
        (docs / name).write_text("text")
    (docs / "b.pdf").write_bytes(pdf("text"))
    (docs / "b.jsonl").write_text('{"text": "text"}')
    assert sources(docs) == ["a.markdown", "b.jsonl#1", "b.pdf", "b/a.htm", "b/z.MD", "c.txt"]


def test_what_is_not_read_is_listed(docs):
    for name in ("a.txt", "b.docx", "Makefile", ".hidden.txt", "empty.txt"):
        (docs / name).write_text("text" if name != "empty.txt" else " \n")
    (docs / ".git").mkdir()
    (docs / ".git" / "c.txt").write_text("text")
    reading = read_documents(docs)
    assert [document.source for document in reading.documents] == ["a.txt"]
    assert {o.source: o.reason for o in reading.skipped} == {
        "b.docx": "format .docx is not read",
        "Makefile": "format without suffix is not read",
        "empty.txt": "holds no text",
    }
    assert reading.failed == []


def test_a_damaged_file_is_named_and_the_others_are_read(docs):
    (docs / "good.txt").write_text("text")
    (docs / "bad.txt").write_bytes(b"\xff\xfe\xff")
    (docs / "bad.pdf").write_bytes(b"%PDF-1.4 no")
    (docs / "bad.jsonl").write_text('{"text": "x"}\nno')
    reading = read_documents(docs)
    assert [each.source for each in reading.documents] == ["bad.jsonl#1", "good.txt"]
    assert [each.source for each in reading.failed] == ["bad.jsonl:2", "bad.pdf", "bad.txt"]


def test_strict_refuses_a_damaged_file_by_name_but_not_a_foreign_one(docs):
    (docs / "good.txt").write_text("text")
    (docs / "picture.png").write_bytes(b"\x89PNG")
    assert sources(docs, strict=True) == ["good.txt"]
    (docs / "bad.jsonl").write_text('{"text": "x"}\nno')
    with pytest.raises(ConfigError, match=r"(?s)not everything could be read:.*bad.jsonl:2: "):
        read_documents(docs, strict=True)


def test_a_large_file_is_named_with_its_size(docs):
    (docs / "small.txt").write_text("text")
    (docs / "large.txt").write_text("x" * 2000)
    (omission,) = read_documents(docs, max_bytes=1000).failed
    assert omission == Omission("large.txt", "2,000 bytes, more than the 1,000 allowed: split it")


@pytest.mark.parametrize("names", [[], ["a.docx"], ["empty.txt"], ["inner/"]])
def test_a_folder_without_documents_is_one_clear_error(docs, names):
    for name in names:
        (docs / name).mkdir() if name.endswith("/") else (docs / name).touch()
    with pytest.raises(ConfigError, match=r"holds no document with text: \.txt, \.md"):
        read_documents(docs)


def test_a_folder_of_damaged_documents_says_why(docs):
    for n in range(12):
        (docs / f"{n:02}.txt").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"(?s)holds no document.*00\.txt: .*\nand 2 more"):
        read_documents(docs)


def test_one_file_is_read_under_its_name(docs):
    (docs / "a.txt").write_text("text")
    assert sources(docs / "a.txt") == ["a.txt"]
    (docs / "a.docx").write_text("text")
    with pytest.raises(ConfigError, match=r"a\.docx: cannot be read: only \.txt"):
        read_documents(docs / "a.docx")
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_documents(docs / "nowhere")


def test_links_that_leave_the_folder_are_not_followed(docs, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "b.txt").write_text("secret")
    (docs / "a.txt").write_text("text")
    (docs / "leak.txt").symlink_to(tmp_path / "secret.txt")
    (docs / "leaks").symlink_to(tmp_path / "secrets")
    reading = read_documents(docs)
    assert [document.source for document in reading.documents] == ["a.txt"]
    assert {o.source: o.reason for o in reading.skipped} == {
        "leak.txt": "a link that leaves the folder",
        "leaks": "a link to a folder",
    }


def test_links_inside_the_folder_are_read_once(docs):
    (docs / ".data").mkdir()
    (docs / ".data" / "a").write_text("mounted")
    (docs / "a.txt").symlink_to(".data/a")
    (docs / "z.txt").write_text("text")
    (docs / "b.txt").symlink_to("z.txt")
    (docs / "itself.txt").symlink_to("itself.txt")
    (docs / "around").symlink_to(".")
    reading = read_documents(docs)
    assert [document.source for document in reading.documents] == ["a.txt", "z.txt"]
    assert {o.source for o in reading.skipped} == {"around", "b.txt"}
    assert {o.source for o in reading.failed} == {"itself.txt"}


def test_a_linked_folder_may_be_named_itself(docs, tmp_path):
    (docs / "a.txt").write_text("text")
    (tmp_path / "link").symlink_to(docs)
    assert sources(tmp_path / "link") == ["a.txt"]


def test_a_pipe_is_not_waited_for(docs):
    (docs / "a.txt").write_text("text")
    os.mkfifo(docs / "pipe.txt")
    assert [each.reason for each in read_documents(docs).skipped] == ["not a regular file"]


def test_an_index_among_the_documents_is_not_read(docs):
    (docs / "a.txt").write_text("text")
    Index.build(list(passages_of(read_documents(docs).documents))).save(docs / "index")
    reading = read_documents(docs)
    assert [document.source for document in reading.documents] == ["a.txt"]
    assert [each.reason for each in reading.skipped] == ["a retrieval index"]


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(docs):
    (docs / os.fsdecode(b"caf\xe9.txt")).write_text("text")
    assert sources(docs) == ["caf\ufffd.txt"]


def test_progress_counts_the_files(docs):
    for n in range(3):
        (docs / f"{n}.txt").write_text("text")
    done = []
    read_documents(docs, progress=lambda n_done, n_files: done.append((n_done, n_files)))
    assert done == [(1, 3), (2, 3), (3, 3)]
