"""What a stream states of its tokens reaches receipts always, and callers if they asked."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.answer import DONE, chunk, pieces_of
from coe.core import Budget, Message, Policy, Request
from coe.engine import Engine
from coe.experts.stub import StubExpert
from coe.usage import WithoutUsage, asks_for_usage, with_usage

BODY = b"".join(pieces_of("chatcmpl-1", "a", ["Write", " data: here", ' "usage"', " 世界", "!"]))
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def event(**fields):
    return b"data: " + json.dumps({"choices": [], **fields}).encode() + b"\n\n"


def ending_with(last):
    """``BODY`` with another event before its end mark."""
    return BODY.removesuffix(DONE) + last + DONE


def without_usage(*pieces):
    passing = WithoutUsage()
    return b"".join([*map(passing.feed, pieces), passing.end()])


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@given(st.data())
def test_only_events_of_usage_alone_are_left_out_however_a_stream_is_cut(newline, data):
    stating = chunk("chatcmpl-1", "a", {}, "stop", (3, 5))  # the last one that has a choice
    kept = ending_with(stating).replace(b"\n", newline)
    whole = ending_with(stating + event(usage=USAGE)).replace(b"\n", newline)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=20))
    edges = [0, *sorted(cuts), len(whole)]
    assert without_usage(*(whole[a:b] for a, b in pairwise(edges))) == kept


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        BODY[:-30],  # broken off in a line
        b": waiting\n\n" + BODY,
        ending_with(event(usage=None)),
        ending_with(event(coe={"usage": 1})),
        b'data: "usage"\n\ndata: {"usage"\n\n',
    ],
)
def test_everything_else_passes(body):
    assert without_usage(body) == body


def asking(**options):
    payload = {"stream_options": options} if options else {}
    policy = Policy("default", Budget())
    return Request((Message("user", "code"),), policy=policy, stream=True, payload=payload)


def test_asking_keeps_what_else_is_asked_for():
    asked = with_usage(asking(include_obfuscation=False))
    assert asked.payload["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    assert asks_for_usage(asked)
    assert not asks_for_usage(asking(include_usage=False))
    assert not asks_for_usage(asking())


class Stating(StubExpert):
    """States its tokens when it is asked to, as servers do."""

    async def stream(self, request, max_tokens):
        async for piece in StubExpert.stream(self, request, max_tokens):
            if piece == DONE and asks_for_usage(request):
                yield event(usage=USAGE)
            yield piece


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("states", [True, False])
async def test_an_expert_that_states_usage_is_asked_in_any_case(
    make_spec, make_router, wanted, states
):
    router = make_router([make_spec("a", stream_usage=states)], [[0.9]] * 3)
    engine = Engine(router, {"a": Stating("a")})
    reply = await engine.answer(asking(include_usage=wanted))
    body = b"".join([piece async for piece in reply.pieces()])
    assert body.count(b'"usage"') == wanted
    assert body.endswith(DONE)
    stated = states or wanted
    assert reply.receipt.tokens_source == ("stated" if stated else "counted")
    assert reply.receipt.output_tokens == (7 if stated else 3)
