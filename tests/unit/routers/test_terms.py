"""Terms: what counts as the same word, in every script."""

# ruff: noqa: RUF001

import pytest

from coe.routers.terms import MAX_QUERY_CHARS, MAX_QUERY_TERMS, fold, query_terms, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t.,;!? -- — …", []),
        ("The Cat, the cat", ["the", "cat", "the", "cat"]),
        ("create_task(x2) 3.14", ["create", "task", "x2", "3", "14"]),
        ("don't", ["don", "t"]),
        ("Straße CAFÉ naïve", ["strasse", "cafe", "naive"]),
        # Russian: io and short i lose their dots
        ("Ёлка", ["елка"]),
        # Arabic with and without vowel signs
        ("ك\u0650ت\u064eاب", ["كتاب"]),
        # Hindi keeps the vowel signs inside a word
        ("हिन्दी भाषा", 2),
        # full-width letters and a ligature
        ("ＡＢＣ ﬁle", ["abc", "file"]),
        # soft hyphen and zero-width joiner vanish
        ("Donau\u00addampf می\u200cخواهم", 2),
    ],
)
def test_terms_of_scripts_with_spaces(text, expected):
    found = list(terms(text))
    assert len(found) == expected if isinstance(expected, int) else found == expected


def test_scripts_without_spaces_give_pairs_and_chinese_characters_themselves_too():
    assert list(terms("北京大学")) == [
        "北", "北京", "京", "京大", "大", "大学", "学",
    ]  # fmt: skip
    assert list(terms("ひらがな")) == ["ひら", "らが", "がな"]
    assert "กา" in list(terms("การเงิน"))
    assert list(terms("水")) == ["水"]


def test_scripts_are_parted_where_they_meet():
    assert list(terms("Python的GIL")) == ["python", "的", "gil"]


def test_half_width_kana_and_decomposed_hangul_are_the_whole_ones():
    assert fold("ｶﾞ") == "ガ"
    assert fold("\u1112\u1161\u11ab") == "한"


def test_a_plain_word_is_the_same_term_among_foreign_ones():
    assert list(terms("GIL lock")) == [t for t in terms("GIL 的 lock") if t.isascii()]


def test_a_term_is_not_longer_than_64_characters():
    assert list(terms("a" * 1000)) == ["a" * 64]
    assert list(terms("ä" * 1000)) == ["a" * 64]


def test_a_query_is_bounded():
    assert query_terms("b a b c a") == ["b", "a", "c"]
    many = query_terms(" ".join(f"w{n}" for n in range(10_000)))
    assert many == [f"w{n}" for n in range(MAX_QUERY_TERMS)]
    assert query_terms("again " * (MAX_QUERY_CHARS // 6) + " " * 6 + "unread") == ["again"]


def test_a_lone_surrogate_is_no_term():
    assert list(terms("a\ud800b é")) == ["a", "b", "e"]
