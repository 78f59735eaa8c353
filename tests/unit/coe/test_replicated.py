"""An expert by its copies: one that fails early is replaced, one that fails late is not."""

import pytest

from coe.core import Message, Request
from coe.errors import ExpertRejectedError, ExpertTimeoutError, ExpertUnavailableError
from coe.experts.replicated import ReplicatedExpert
from coe.replica import HostReport, Replica

REQUEST = Request((Message("user", "hello"),))


class Copy:
    """Yields what it was given; raises what is an error."""

    def __init__(self, *pieces):
        self.pieces = pieces
        self.n_asked = 0

    async def stream(self, request, max_tokens):
        self.n_asked += 1
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


class InOrder:
    """Picks the first name; remembers what it was told."""

    def __init__(self):
        self.told = []

    def pick(self, names):
        self.told.append(("pick", names[0]))
        return names[0]

    def ended(self, name, latency_s):
        self.told.append(("failed" if latency_s is None else "began", name))

    def left(self, name):
        self.told.append(("left", name))


def replicated(**copies):
    replicas = [Replica(name, "e", "n", HostReport("ready")) for name in copies]
    balancer = InOrder()
    expert = ReplicatedExpert("e", lambda: replicas, lambda r: copies[r.replica_id], balancer)
    return expert, balancer


async def answer(expert):
    return [piece async for piece in expert.stream(REQUEST, None)]


async def test_one_copy_answers():
    expert, balancer = replicated(a=Copy(b"1", b"2"), b=Copy(b"3"))
    assert await answer(expert) == [b"1", b"2"]
    assert balancer.told == [("pick", "a"), ("began", "a"), ("left", "a")]


@pytest.mark.parametrize(
    "error", [ExpertUnavailableError("e", "refused"), ExpertTimeoutError("e", "silent")]
)
async def test_a_copy_that_fails_before_its_first_piece_is_replaced(error):
    first = Copy(error)
    expert, balancer = replicated(a=first, b=Copy(b"3"))
    assert await answer(expert) == [b"3"]
    assert first.n_asked == 1
    assert balancer.told[:4] == [("pick", "a"), ("failed", "a"), ("left", "a"), ("pick", "b")]


async def test_a_copy_that_fails_after_its_first_piece_is_not():
    second = Copy(b"3")
    expert, balancer = replicated(a=Copy(b"1", ExpertUnavailableError("e", "broke")), b=second)
    with pytest.raises(ExpertUnavailableError, match="broke"):
        await answer(expert)
    assert second.n_asked == 0
    assert balancer.told[-2:] == [("failed", "a"), ("left", "a")]


async def test_a_refusal_is_the_experts_word_and_no_other_copy_is_asked():
    second = Copy(b"3")
    expert, balancer = replicated(a=Copy(ExpertRejectedError("e", "no", 400)), b=second)
    with pytest.raises(ExpertRejectedError):
        await answer(expert)
    assert second.n_asked == 0
    assert balancer.told == [("pick", "a"), ("left", "a")]


async def test_where_all_fail_the_first_error_is_said():
    expert, _ = replicated(
        a=Copy(ExpertTimeoutError("e", "first")), b=Copy(ExpertUnavailableError("e", "second"))
    )
    with pytest.raises(ExpertTimeoutError, match="first"):
        await answer(expert)


async def test_without_copies_it_is_unavailable():
    expert, _ = replicated()
    with pytest.raises(ExpertUnavailableError, match="no copy of it is running"):
        await answer(expert)


async def test_who_leaves_early_leaves_the_copy_too():
    expert, balancer = replicated(a=Copy(b"1", b"2"))
    pieces = expert.stream(REQUEST, None)
    assert await anext(pieces) == b"1"
    await pieces.aclose()
    assert balancer.told[-1] == ("left", "a")
