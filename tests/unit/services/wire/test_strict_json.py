"""Bodies read strictly: as the standard library where it takes them, and less is taken."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.errors.callers import RequestError
from coe.services.wire.strict_json import MOST_DEPTH, MOST_KEYS, document_of, echoed, path_of

NUMBERS = st.integers(-(2**64) + 1, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner), max_leaves=30
)


@given(st.dictionaries(TEXTS, VALUES), st.booleans())
def test_what_is_written_is_read(document, ascii_only):
    assert document_of(json.dumps(document, ensure_ascii=ascii_only).encode()) == document


def read(body):
    """The document and no code, or no document and the code of the refusal."""
    try:
        return document_of(body), ""
    except RequestError as error:
        return None, error.code


@given(st.binary())
def test_bytes_are_read_or_refused(body):
    document, code = read(body)
    assert document is not None or code.startswith(("invalid_", "json_", "duplicate_"))


@given(st.text('[]{}",\\:1 ', max_size=40))
def test_signs_of_structure_are_read_as_the_standard_library_does(text):
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    found, code = read(text.encode())
    assert found == (expected if isinstance(expected, dict) and not code else None)
    assert code != "" or isinstance(expected, dict)
    assert code in ("", "duplicate_key") or not isinstance(expected, dict)


@pytest.mark.parametrize(("depth", "code"), [(MOST_DEPTH, None), (MOST_DEPTH + 1, "json_too_deep")])
def test_depth_counts_objects_and_lists_but_not_texts(depth, code):
    body = b'{"a": "' + b"[{" * 99 + b'", "b": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    if code is None:
        assert document_of(body)["a"] == "[{" * 99
    else:
        with pytest.raises(RequestError) as refused:
            document_of(body)
        assert refused.value.code == code


def test_an_object_may_have_so_many_keys():
    assert len(document_of(json.dumps(dict.fromkeys(map(str, range(MOST_KEYS)))).encode())) == 1024


def test_a_body_that_never_ends_a_text_takes_no_longer():
    """Every quote might begin a text that ends nowhere: each is looked at once."""
    began = time.process_time()
    with pytest.raises(RequestError):
        document_of(b'{"a": "' + b'\\"' * 1_000_000 + b"[" * 100)
    assert time.process_time() - began < 2.0


@pytest.mark.parametrize(
    ("steps", "path"),
    [(("messages", 0, "role"), "messages[0].role"), ((), ""), (("a" * 99,), "a" * 64 + "...")],
)
def test_a_path_is_written_as_openai_writes_it(steps, path):
    assert path_of(steps) == path


def test_what_is_repeated_of_a_text_is_printable():
    assert echoed("a\nb\x1b[2J\u202ec") == "a?b?[2J?c"
