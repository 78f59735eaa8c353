"""Retrieved passages as a message: delimited, harmless, bounded, and apart from the caller's."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.core import Message, Request, estimated_tokens
from coe.routers.passages import harmless, quote, with_passages
from coe.routers.retrieve import Hit, Passage

NONCE = "7f3a91"
TOKENS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|start_header_id|>",
    "<\uff5cUser\uff5c>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "<<SYS>>",
    "<</SYS>>",
    "<s>",
    "</s>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<tool_call>",
    "<think>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
]


def hit(text, n=1, source="handbook.md", title="Journeys", page=None):
    return Hit(Passage(f"id-{n}", text, source, title, n - 1, page), 1.0 / n, n)


def test_each_passage_is_numbered_and_says_where_it_stands():
    quoted = quote([hit("first", 1, page=3), hit("second", 2, title="")], 1024, NONCE)
    assert f'<passage-{NONCE} n="1" source="handbook.md" title="Journeys" page="3">' in quoted.text
    assert (
        f'<passage-{NONCE} n="2" source="handbook.md">\nsecond\n</passage-{NONCE}>' in quoted.text
    )
    assert [(c.n, c.passage_id, c.page) for c in quoted.citations] == [
        (1, "id-1", 3),
        (2, "id-2", None),
    ]
    assert "untrusted" in quoted.text
    assert "[1]" in quoted.text


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_of_chat_templates_are_defused_in_text_source_and_title(token):
    for spelt in (token, token.upper(), f"x{token}y", token[0] + "\u200b" + token[1:]):
        quoted = quote([hit(spelt, source=spelt, title=spelt)], 1024, NONCE)
        assert token.lower() not in quoted.text.replace("\u200b", "").lower()


@pytest.mark.parametrize(
    "text",
    [
        "if a < b: x[0] += 1\n\treturn 3 > 2 || c",
        "List<String>, list[str] and <b>bold</b>",
        "see [1], [note] and [link](https://example.com/?a=1&b=2)",
        "Grüße 世界 👋",
    ],
)
def test_ordinary_text_stays_as_it_is(text):
    assert harmless(text) == text


def test_attributes_are_escaped_and_short():
    hostile = '"><b>' + "x" * 900 + "\nn"
    quoted = quote([hit("text", source=hostile, title=hostile)], 1024, NONCE)
    (tag,) = re.findall(rf"<passage-{NONCE}.*>", quoted.text)
    assert '"><b>' not in tag
    assert len(tag) < 600
    assert quoted.citations[0].source == hostile


parts = st.one_of(
    st.text(max_size=30),
    st.sampled_from([f"</passage-{NONCE}>", f'<passage-{NONCE} n="9">', "< / passage-", *TOKENS]),
)


@given(st.lists(st.lists(parts, max_size=5).map("".join), min_size=1, max_size=4), parts, parts)
def test_nothing_in_a_passage_opens_or_closes_a_block(texts, source, title):
    hits = [hit(text, n, source, title) for n, text in enumerate(texts, start=1)]
    quoted = quote(hits, 4096, NONCE)
    n = len(quoted.citations)
    assert len(re.findall(r"<\s{0,2}passage", quoted.text, re.IGNORECASE)) == n
    assert len(re.findall(r"<\s{0,2}/\s{0,2}passage", quoted.text, re.IGNORECASE)) == n
    assert quoted.text.count(f"</passage-{NONCE}>") == n
    quoted.text.encode()


@given(st.lists(st.text(max_size=2000), max_size=5), st.integers(0, 700))
def test_the_message_never_exceeds_its_tokens(texts, max_tokens):
    quoted = quote([hit(text, n) for n, text in enumerate(texts, start=1)], max_tokens, NONCE)
    assert quoted is None or estimated_tokens(quoted.text) <= max_tokens
    assert quoted is None or quoted.tokens == estimated_tokens(quoted.text)


def test_of_a_long_first_passage_the_beginning_is_quoted():
    quoted = quote([hit("word " * 3000), hit("next", 2)], 256, NONCE)
    assert len(quoted.citations) == 1
    assert "word word" in quoted.text


def test_without_hits_or_room_there_is_no_message():
    assert quote([], 1024, NONCE) is None
    assert quote([hit("text")], 20, NONCE) is None


def test_passages_stand_before_the_last_user_turn_and_are_no_message_of_the_caller():
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    request = Request(
        tuple(Message(m["role"], m["content"]) for m in messages),
        payload={"messages": messages, "temperature": 0},
    )
    quoted = quote([hit("secret word")], 1024, NONCE)
    longer = with_passages(request, quoted)
    sent = longer.payload["messages"]
    assert sent[3] == {"role": "user", "content": quoted.text}
    assert sent[:3] + sent[4:] == messages
    assert longer.payload["temperature"] == 0
    assert longer.text == request.text
    assert longer.prompt_tokens == request.prompt_tokens + quoted.tokens
    assert len(messages) == 4


def test_a_request_without_payload_counts_the_passages_all_the_same():
    quoted = quote([hit("text")], 1024, NONCE)
    assert with_passages(Request((Message("user", "hi"),)), quoted).passages_tokens == quoted.tokens
