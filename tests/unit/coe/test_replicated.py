"""An expert by its copies: one that fails early is replaced, one that fails late is not."""

from random import Random

import pytest

from coe.core import Message, Request
from coe.errors.experts import ExpertRejectedError, ExpertTimeoutError, ExpertUnavailableError
from coe.experts.replicated import ReplicatedExpert
from coe.guard.group import Group
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


class Lowest(Random):
    """Draws the first of what there is."""

    def random(self):
        return 0.0


def replicated(**copies):
    replicas = [Replica(name, "e", "n", HostReport("ready")) for name in copies]
    clock = iter(range(10_000))
    return ReplicatedExpert(
        Group("e"),
        lambda: replicas,
        lambda r: copies[r.replica_id],
        rng=Lowest(),
        now=lambda: next(clock) / 100,
    )


def in_flight(expert):
    return {name: state.n_in_flight for name, state in expert._states.items()}


async def answer(expert):
    return [piece async for piece in expert.stream(REQUEST, None)]


async def test_a_busy_copy_is_passed_over():
    expert = replicated(a=Copy(b"1"), b=Copy(b"2"))
    first = expert.stream(REQUEST, None)
    assert await anext(first) == b"1"
    assert await answer(expert) == [b"2"]
    await first.aclose()


async def test_a_copy_that_has_left_the_fleet_is_forgotten():
    expert = replicated(a=Copy(b"1"), b=Copy(b"2"))
    await answer(expert)
    expert.copies = lambda: [Replica("c", "e", "n", HostReport("ready"))]
    expert.connect = lambda replica: Copy(b"3")
    assert await answer(expert) == [b"3"]
    assert set(in_flight(expert)) == {"c"}


async def test_one_copy_answers():
    expert = replicated(a=Copy(b"1", b"2"), b=Copy(b"3"))
    assert await answer(expert) == [b"1", b"2"]
    assert in_flight(expert) == {"a": 0, "b": 0}


@pytest.mark.parametrize(
    "error",
    [
        ExpertUnavailableError("e", "refused"),
        ExpertTimeoutError("e", "silent"),
        ExpertRejectedError("e", "broken", 500),
        ExpertRejectedError("e", "full", 503),
        ExpertRejectedError("e", "busy", 429),
        ExpertRejectedError("e", "another copy's key", 401),
    ],
)
async def test_a_copy_that_fails_before_its_first_piece_is_replaced(error):
    first = Copy(error)
    expert = replicated(a=first, b=Copy(b"3"))
    assert await answer(expert) == [b"3"]
    assert first.n_asked == 1
    assert in_flight(expert) == {"a": 0, "b": 0}
    assert await answer(expert) == [b"3"]
    assert first.n_asked == 1, "a copy that has just failed is asked again"


async def test_a_copy_that_fails_after_its_first_piece_is_not():
    second = Copy(b"3")
    expert = replicated(a=Copy(b"1", ExpertUnavailableError("e", "broke")), b=second)
    with pytest.raises(ExpertUnavailableError, match="broke"):
        await answer(expert)
    assert second.n_asked == 0
    assert in_flight(expert) == {"a": 0, "b": 0}


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_a_refusal_is_the_experts_word_and_no_other_copy_is_asked(status):
    second = Copy(b"3")
    expert = replicated(a=Copy(ExpertRejectedError("e", "no", status)), b=second)
    with pytest.raises(ExpertRejectedError):
        await answer(expert)
    assert second.n_asked == 0
    assert in_flight(expert) == {"a": 0, "b": 0}


async def test_where_all_fail_the_first_error_is_said():
    expert = replicated(
        a=Copy(ExpertTimeoutError("e", "first")), b=Copy(ExpertUnavailableError("e", "second"))
    )
    with pytest.raises(ExpertTimeoutError, match="first"):
        await answer(expert)


async def test_without_copies_it_is_unavailable():
    expert = replicated()
    with pytest.raises(ExpertUnavailableError, match="no copy of it is running"):
        await answer(expert)


async def test_who_leaves_early_leaves_the_copy_too():
    expert = replicated(a=Copy(b"1", b"2"), b=Copy(b"3"))
    pieces = expert.stream(REQUEST, None)
    assert await anext(pieces) == b"1"
    assert in_flight(expert) == {"a": 1, "b": 0}
    await pieces.aclose()
    assert in_flight(expert) == {"a": 0, "b": 0}


async def test_which_copy_answers_is_known_before_its_first_piece():
    expert = replicated(a=Copy(b"1"), b=Copy(b"2"))
    first = expert.stream(REQUEST, None)
    assert first.replica_id == "a"
    assert [piece async for piece in first] == [b"1"]
    assert first.replica_id == "a"
    assert replicated().stream(REQUEST, None).replica_id is None


async def test_an_answer_says_which_copy_took_over():
    expert = replicated(a=Copy(ExpertUnavailableError("e", "refused")), b=Copy(b"3"))
    pieces = expert.stream(REQUEST, None)
    assert pieces.replica_id == "a"
    assert await anext(pieces) == b"3"
    assert pieces.replica_id == "b"
    await pieces.aclose()


async def test_an_answer_that_nobody_asked_for_leaves_nothing_in_flight():
    expert = replicated(a=Copy(b"1"))
    await expert.stream(REQUEST, None).aclose()
    assert await answer(expert) == [b"1"]
    assert in_flight(expert) == {"a": 0}
