"""The most that an answer can take: never less than any receipt of it can say."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.bound import MESSAGE_TOKENS, TEMPLATE_TOKENS, TOOLS_TOKENS, bound, prompt_bound
from coe.core import ExpertSpec, Message, Request
from coe.device import DeviceProfile
from coe.ledger.amounts import NOTHING, Amounts
from coe.standing import Standing

PROFILE = DeviceProfile("p", 0.001, 0.5, 20.0, 40.0, 12.0, 9.0)
SPEC = ExpertSpec(
    "a", PROFILE, context_tokens=4096, usd_per_mtok_in=1.5, usd_per_mtok_out=6.0, answer_tokens=64
)
WIDE = 10**6


def asked(*messages, **fields):
    """A request as the gateway makes it of these messages."""
    said = tuple(Message(m["role"], m["content"]) for m in messages if type(m["content"]) is str)
    return Request(
        said, payload={"messages": list(messages), **fields.pop("payload", {})}, **fields
    )


def user(text):
    return {"role": "user", "content": text}


def test_a_byte_is_a_token_at_most_and_templates_add_their_own():
    plain = prompt_bound(asked(user("hello")), WIDE)
    assert plain == len("hello") + MESSAGE_TOKENS + TEMPLATE_TOKENS
    assert prompt_bound(asked(user("hello"), user("é")), WIDE) == plain + 2 + MESSAGE_TOKENS


def test_text_parts_count_as_text():
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    request = asked({"role": "user", "content": parts})
    assert prompt_bound(request, WIDE) == prompt_bound(asked(user("hello")), WIDE)


def test_half_of_a_surrogate_pair_is_three_bytes():
    whole, half = (prompt_bound(asked(user(text)), WIDE) for text in ("", "\ud800"))
    assert half == whole + 3


def test_tools_schemas_names_and_calls_are_written_into_the_prompt():
    bare = prompt_bound(asked(user("hello")), WIDE)
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 100}}]
    assert prompt_bound(asked(user("hello"), payload={"tools": tools}), WIDE) > (
        bare + TOOLS_TOKENS + 100
    )
    schema = {"type": "json_schema", "json_schema": {"schema": {"title": "s" * 100}}}
    assert (
        prompt_bound(asked(user("hello"), payload={"response_format": schema}), WIDE) > bare + 100
    )
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c" * 100}]}
    assert prompt_bound(asked(user("hello"), call), WIDE) > bare + 100


def test_numbers_and_switches_are_not():
    bare, more = asked(user("hello")), {"temperature": 0.5, "stream": True, "n": 3, "stop": None}
    assert prompt_bound(asked(user("hello"), payload=more), WIDE) == prompt_bound(bare, WIDE)


def test_a_picture_may_take_the_whole_context():
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    assert prompt_bound(asked(user("hello"), picture), 4096) == 4096


def test_no_prompt_is_longer_than_the_context_but_as_estimated_all_the_same():
    assert prompt_bound(asked(user("x" * 5000)), 4096) == 4096
    long = asked(user("x" * 50_000))
    assert prompt_bound(long, 4096) == long.prompt_tokens > 4096


def test_a_request_without_a_payload_goes_by_its_messages():
    assert prompt_bound(Request((Message("user", "hello"),)), WIDE) == prompt_bound(
        asked(user("hello")), WIDE
    )


@pytest.mark.parametrize(("max_tokens", "longest"), [(10, 10), (None, 4096), (9000, 4096)])
def test_every_answer_may_be_as_long_as_its_cap_and_the_context_allow(max_tokens, longest):
    request = asked(user("hello"), n_answers=3)
    n_prompt, n_output = prompt_bound(request, 4096), 3 * longest
    assert bound(SPEC, request, max_tokens) == Amounts.of(
        PROFILE.energy_j(n_prompt, n_output),
        SPEC.cost_usd(n_prompt, n_output),
        n_prompt + n_output,
    )


def test_an_answer_that_stands_ready_takes_nothing():
    ready = replace(asked(user("hello")), standing={"a": Standing("yes", 1, 1.0, "canned")})
    assert bound(SPEC, ready, None) == NOTHING
    assert bound(replace(SPEC, id="b"), ready, None) != NOTHING


@given(
    texts=st.lists(st.text(max_size=40), min_size=1, max_size=5),
    max_tokens=st.none() | st.integers(1, 5000),
    n_answers=st.integers(1, 16),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_no_receipt_says_more(texts, max_tokens, n_answers, shares):
    """Whatever the tokenizer makes of it: no more tokens than bytes, and the cap is kept."""
    request = asked(*map(user, texts), n_answers=n_answers)
    most = sum(len(text.encode()) + MESSAGE_TOKENS for text in texts)
    n_prompt = round(shares[0] * most)
    n_output = round(shares[1] * n_answers * min(max_tokens or 4096, 4096))
    took = Amounts.of(
        PROFILE.energy_j(n_prompt, n_output), SPEC.cost_usd(n_prompt, n_output), n_prompt + n_output
    )
    assert took.beyond(bound(SPEC, request, max_tokens)) == NOTHING
    estimated = request.prompt_tokens
    assert estimated <= prompt_bound(request, SPEC.context_tokens)
