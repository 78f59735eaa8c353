"""Patterns: what they match, what is refused, and that no text makes them slow."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.pattern import MAX_CHARS, MAX_REPEATS, Pattern


@pytest.mark.parametrize(
    ("source", "text", "found"),
    [
        (r"(?i)opening\s+hours", "What are your OPENING  hours?", True),
        (r"^hello$", "hello", True),
        (r"^hello$", "hello you", False),
        (r"\bGrüße\b", "Viele Grüße", True),
        ("a", "half an emoji \ud83d", False),
    ],
)
def test_a_pattern_is_searched_for(source, text, found):
    assert Pattern(source).found_in(text) is found


@given(
    st.text("ab.*?|()[]^$", max_size=8),
    st.text("ab", max_size=12),
)
def test_what_both_understand_they_find_alike(source, text):
    try:
        ours, theirs = Pattern(source), re.compile(source)
    except (ValueError, re.error, FutureWarning):
        return
    assert ours.found_in(text) == bool(theirs.search(text))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("(", "unclosed group"),
        (r"(a)\1", "backreferences are not supported"),
        ("(?=a)", "look-around"),
        ("a" * (MAX_CHARS + 1), f"at most {MAX_CHARS}"),
        ("(a{1,20}){1,20}", f"more than {MAX_REPEATS}"),
        ("(a{50,}){3}", f"more than {MAX_REPEATS}"),
    ],
)
def test_what_is_no_pattern_is_refused_in_words(source, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Pattern(source)


@pytest.mark.parametrize("source", ["(a+)+$", "(a|aa)+$", "(a|a)*b", "(.*a){30}b", "(a*)*(a*)*b"])
def test_patterns_that_backtracking_never_ends_are_found_in_linear_time(source):
    pattern, text = Pattern(source), "a" * 2000 + "!"
    began = time.process_time()
    assert not pattern.found_in(text)
    # Python's own `re` would need longer than the universe is old
    assert time.process_time() - began < 1.0
