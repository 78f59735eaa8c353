"""Passages: what they hold, where they end, what they are called."""

import itertools
import unicodedata

import pytest

from coe.routers.chunk import Document, Section, passages_of, split

PROSE = " ".join(f"w{n}" for n in range(1000))
ZH = "中文文本没有空格"


def one(text, source="a.txt", **fields):
    return Document(source, (Section(text, **fields),))


def ids(*documents):
    return [passage.passage_id for passage in passages_of(documents)]


# ---- where they end


@pytest.mark.parametrize("text", ["", " \n\n\t ", "\u3000\u00a0"])
def test_a_text_without_words_has_no_pieces(text):
    assert split(text) == []


def test_a_short_text_is_one_piece_verbatim():
    assert split("\n  One,  two.\n\nThree!  ") == ["One,  two.\n\nThree!"]


def test_pieces_have_about_180_words_and_share_30():
    pieces = [piece.split() for piece in split(PROSE)]
    assert all(180 == len(piece) for piece in pieces[:-1])
    assert 30 < len(pieces[-1]) <= 210
    for left, right in itertools.pairwise(pieces):
        assert left[-30:] == right[:30]
    assert pieces[0] + [word for piece in pieces[1:] for word in piece[30:]] == PROSE.split()


def test_a_little_more_than_a_piece_stays_one():
    words = PROSE.split()
    assert len(split(" ".join(words[:210]))) == 1
    assert len(split(" ".join(words[:211]))) == 2


def test_a_piece_ends_at_the_last_paragraph_in_its_last_third():
    words = PROSE.split()
    text = " ".join(words[:125]) + "\n \n" + " ".join(words[125:150]) + ".\n\n"
    text += " ".join(words[150:160]) + ". " + " ".join(words[160:])
    assert split(text)[0].split()[-1] == "w149."


def test_without_a_paragraph_it_ends_at_a_sentence():
    words = PROSE.split()
    words[100] += "."
    words[140] += "?”"
    assert split(" ".join(words))[0].endswith("w140?”")


def test_a_sentence_too_early_does_not_count():
    words = PROSE.split()
    words[100] += "."
    assert split(" ".join(words))[0].endswith("w179")


@pytest.mark.parametrize(
    ("text", "longest"),
    [("word " * 20_000, 210 * 5), ("a" * 100_000, 210 * 32), (ZH * 12_500, 420)],
    ids=["words", "one word", "Chinese"],
)
def test_a_paragraph_of_100_000_characters_is_cut(text, longest):
    pieces = split(text)
    assert len(pieces) > 10
    assert max(map(len, pieces)) <= longest
    assert pieces[0] in text
    # with every overlap counted once or twice nothing is lost
    assert sum(map(len, pieces)) >= len(text.strip())


def test_chinese_sentences_are_ends_too():
    text = "字" * 300 + "。" + "词" * 300
    assert split(text)[0] == "字" * 300 + "。"


def test_a_mark_stays_with_its_letter():
    thai = "กี่น้ำ" * 1000
    assert all(unicodedata.category(piece[0]) != "Mn" for piece in split(thai))


@pytest.mark.parametrize(("size", "overlap"), [(2, 0), (0, 0), (10, 6), (10, -1)])
def test_sizes_that_make_no_sense_are_refused(size, overlap):
    with pytest.raises(ValueError, match=f"size {size}, overlap {overlap}"):
        split(PROSE, size, overlap)


# ---- what they are called


def test_no_passage_leaves_its_section():
    sections = (Section("one " * 200, "First"), Section(" "), Section("two " * 5, "Second", 7))
    passages = list(passages_of([Document("a.pdf", sections), one("three", "b.txt")]))
    assert [set(p.text.split()) for p in passages] == [{"one"}, {"two"}, {"three"}]
    assert [p.title for p in passages] == ["First", "Second", ""]
    assert [p.page for p in passages] == [None, 7, None]
    assert [p.position for p in passages] == [0, 1, 0]
    assert [p.source for p in passages] == ["a.pdf", "a.pdf", "b.txt"]


def test_ids_are_the_same_every_time_and_differ_by_content_title_source_and_page():
    variants = [one("x"), one("y"), one("x", title="t"), one("x", source="b.txt"), one("x", page=1)]
    assert ids(*variants) == ids(*variants)
    assert len(set(ids(*variants))) == 5


def test_equal_passages_have_ids_of_their_own():
    twice = Document("a.txt", (Section("same"), Section("same"), Section("other")))
    assert len(set(ids(twice, one("same"), one("same", source="b.txt")))) == 5


def test_a_change_elsewhere_in_the_document_keeps_an_id():
    before = Document("a.md", (Section("kept", "B"),))
    after = Document("a.md", (Section("new", "A"), Section("kept", "B")))
    assert ids(after)[1] == ids(before)[0]


def test_a_document_without_text_gives_nothing():
    assert list(passages_of([Document("a", ()), one(""), one(" \n")])) == []
