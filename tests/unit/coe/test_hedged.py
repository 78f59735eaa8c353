"""A stream that is asked for of two copies: one answers, both are held for, both are booked."""

import asyncio
from random import Random

import pytest

from coe.answer import pieces_of
from coe.core import Message, Request
from coe.engine import Engine
from coe.errors.experts import ExpertUnavailableError
from coe.experts.replicated import ReplicatedExpert
from coe.guard.group import Group
from coe.guard.guards import Guards
from coe.guard.hedging import Hedging
from coe.hedged import Hedged, may_hedge
from coe.replica import HostReport, Replica

LATE_S = 0.01
STREAM = b"".join(pieces_of("chatcmpl-1", "e", ["Hello", " there", "."]))
DOWN = ExpertUnavailableError("e", "refused")


class Copy:
    """Answers when it is let, or fails then."""

    def __init__(self, error=None):
        self.gate, self.asked, self.error = asyncio.Event(), asyncio.Event(), error
        self.n_asked = self.n_left = 0

    async def stream(self, request, max_tokens):
        self.n_asked += 1
        self.asked.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.n_left += 1
            raise
        if self.error is not None:
            raise self.error
        for piece in pieces_of("chatcmpl-1", "e", ["Hello", " there", "."]):
            yield piece


class Lowest(Random):
    """Draws the first of what there is."""

    def random(self):
        return 0.0


class Rig:
    """An engine whose one expert is two copies; of streams later than 10 ms two are asked."""

    def __init__(self, spec, router, store, *copies):
        self.copies = dict(zip("ab", copies, strict=True))
        replicas = [Replica(name, "e", "n", HostReport("ready")) for name in self.copies]
        self.group, self.hedging, self.store = Group("e"), Hedging(), store
        expert = ReplicatedExpert(
            self.group, lambda: replicas, lambda r: self.copies[r.replica_id], rng=Lowest()
        )
        guards = Guards({"e": self.group}, hedges={"e": self.hedging})
        self.engine = Engine(router, {"e": expert}, store=store, guards=guards)
        for _ in range(200):
            self.hedging.began(LATE_S)
            self.hedging.asked(self.engine.now())
        self.spec = spec

    def ask(self, **fields):
        asked = {"stream": True} | fields
        return asyncio.create_task(
            self.engine.answer(Request((Message("user", "code"),), pinned="e", **asked))
        )

    @property
    def n_in_flight(self):
        return sum(member.n_in_flight for member in self.group.members.values())


@pytest.fixture
def rig(make_spec, make_router, memory_store):
    def build(first=None, second=None):
        spec = make_spec("e")
        router = make_router([spec], [[0.9]] * 3)
        return Rig(spec, router, memory_store(), first or Copy(), second or Copy())

    return build


async def both_asked(r):
    async with asyncio.timeout(5.0):
        for copy in r.copies.values():
            await copy.asked.wait()


async def drain(reply):
    return b"".join([piece async for piece in reply.pieces()])


@pytest.mark.parametrize(("wins", "loses"), ["ab", "ba"])
async def test_whoever_begins_first_answers_and_both_are_booked(rig, wins, loses):
    r = rig()
    asking = r.ask()
    await both_asked(r)
    assert len(r.store.ledger.held) == 2
    r.copies[wins].gate.set()
    reply = await asking
    assert reply.receipt is None
    assert await drain(reply) == STREAM
    assert (r.copies[loses].n_left, r.copies[wins].n_left) == (1, 0)
    receipt = reply.receipt
    assert [part.outcome for part in receipt.parts] == ["complete", "cancelled"]
    assert [part.output_tokens for part in receipt.parts] == [3, 0]
    assert receipt.prompt_tokens == 2 * reply.request.prompt_tokens
    assert (receipt.outcome, receipt.output_tokens) == ("complete", 3)
    assert r.store.spent.tokens == receipt.prompt_tokens + receipt.output_tokens
    assert r.store.spent.requests == 1
    assert (r.hedging.n_hedged, r.hedging.n_won) == (1, int(wins == "b"))
    assert r.n_in_flight == 0


async def test_one_that_begins_in_time_is_asked_for_once(rig):
    r = rig()
    r.copies["a"].gate.set()
    reply = await r.ask()
    assert isinstance(reply, Hedged)
    assert await drain(reply) == STREAM
    assert (r.copies["b"].n_asked, reply.receipt.parts, r.hedging.n_hedged) == (0, (), 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": False},
        {"payload": {"tools": [{"type": "function"}]}},
        {"payload": {"functions": [{"name": "pay"}]}},
    ],
)
async def test_whole_answers_and_tools_are_asked_for_once(rig, fields):
    assert not may_hedge(Request((Message("user", "code"),), **({"stream": True} | fields)))
    r = rig()
    asking = r.ask(**fields)
    await asyncio.sleep(3 * LATE_S)
    assert r.copies["b"].n_asked == 0
    r.copies["a"].gate.set()
    reply = await asking
    assert not isinstance(reply, Hedged)
    await reply.close()


async def test_without_budget_it_is_waited_for(rig):
    r = rig()
    while r.hedging.take(r.engine.now()):
        pass
    asking = r.ask()
    await asyncio.sleep(3 * LATE_S)
    assert r.copies["b"].n_asked == 0
    r.copies["a"].gate.set()
    await (await asking).close()


async def test_where_one_fails_the_other_is_waited_for(rig):
    r = rig(first=Copy(DOWN))
    asking = r.ask()
    await both_asked(r)
    r.copies["a"].gate.set()
    await asyncio.sleep(0.005)
    r.copies["b"].gate.set()
    reply = await asking
    assert await drain(reply) == STREAM
    assert (reply.receipt.parts, r.n_in_flight) == ((), 0)
    assert (r.copies["a"].n_asked, r.copies["b"].n_asked) == (1, 1)
    assert not r.store.ledger.held


async def test_what_another_copy_has_taken_over_is_not_asked_for_a_third_time(rig):
    r = rig(first=Copy(DOWN))
    r.copies["a"].gate.set()
    asking = r.ask()
    await both_asked(r)
    await asyncio.sleep(3 * LATE_S)
    assert (r.copies["a"].n_asked, r.copies["b"].n_asked, r.hedging.n_hedged) == (1, 1, 0)
    r.copies["b"].gate.set()
    reply = await asking
    assert await drain(reply) == STREAM
    assert (reply.receipt.parts, r.n_in_flight) == ((), 0)


async def test_where_both_fail_nobody_is_asked_a_third_time(rig):
    r = rig(Copy(DOWN), Copy(ExpertUnavailableError("e", "the other")))
    asking = r.ask()
    await both_asked(r)
    for copy in r.copies.values():
        copy.gate.set()
    with pytest.raises(ExpertUnavailableError, match="refused") as raised:
        await asking
    assert raised.value.n_tried == 2
    assert (r.copies["a"].n_asked, r.copies["b"].n_asked, r.n_in_flight) == (1, 1, 0)
    assert not r.store.ledger.held


async def test_who_leaves_while_both_are_asked_is_booked_for_two_prompts(rig):
    r = rig()
    asking = r.ask()
    await both_asked(r)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [copy.n_left for copy in r.copies.values()] == [1, 1]
    prompt = Request((Message("user", "code"),)).prompt_tokens
    assert r.store.spent.tokens == 2 * prompt
    assert r.n_in_flight == 0


async def test_who_leaves_in_mid_answer_leaves_nothing_behind(rig):
    r = rig()
    asking = r.ask()
    await both_asked(r)
    r.copies["b"].gate.set()
    reply = await asking
    pieces = reply.pieces()
    await anext(pieces)
    await pieces.aclose()
    await reply.close()
    assert [part.outcome for part in reply.receipt.parts] == ["cancelled", "cancelled"]
    assert r.n_in_flight == 0
    assert not r.store.ledger.held
