"""Wherever a request is cancelled, or fails as nobody foresaw, nothing is left. Nobody sleeps."""

import asyncio
import gc
from contextlib import aclosing
from functools import partial
from random import Random

import pytest

from coe.answer import completion, pieces_of
from coe.core import Message, Request
from coe.engine import Engine
from coe.errors.experts import ExpertUnavailableError
from coe.experts.continuation import Token
from coe.experts.guarded import guarded
from coe.experts.replicated import ReplicatedExpert
from coe.experts.stub import StubContinuation
from coe.guard.group import Group
from coe.guard.guards import Guards
from coe.guard.hedging import Hedging
from coe.mode import Mode
from coe.replica import HostReport, Replica
from failing import Steps

MODES = {
    "vote": Mode("vote", (("a", "b", "c"),)),
    "fuse": Mode("fuse", (("a", "b"), ("c",))),
    "cascade": Mode("cascade", (("a",), ("b", "c")), 1.0),
    "mixture": Mode("mixture", (("a", "b"),)),
}
KINDS = ("alone", "line", "failover", "copies", "hedged", *MODES)
TOKENS = [{Token(1, b"a"): 0.0}, {Token(0, b""): 0.0}]


class Slow:
    """Lets others go first before every piece, and when it is closed."""

    def __init__(self, name, n_before=2, error=None):
        self.name, self.n_before, self.error = name, n_before, error
        self.n_open = 0

    async def stream(self, request, max_tokens):
        self.n_open += 1
        try:
            await turns(self.n_before)
            if self.error is not None:
                raise self.error
            whole = [completion("c", self.name, "4", 3, 1, "stop")]
            for piece in pieces_of("c", self.name, ["4"]) if request.stream else whole:
                await turns(1)
                yield piece
        finally:
            self.n_open -= 1
            await turns(1)

    async def continuation(self, request):
        await turns(self.n_before)
        return StubContinuation(TOKENS)


class Lowest(Random):
    """Draws the first of what there is."""

    def random(self):
        return 0.0


class Rig:
    """An engine with limits, guards and three experts; of a kind, the first is special."""

    def __init__(self, kind, make_spec, make_router, in_mode, store):
        specs = [make_spec(name) for name in "abc"]
        router = make_router(specs, [[0.9, 0.8, 0.7]] * 3)
        down = ExpertUnavailableError("a", "refused")
        self.store, self.groups = store, {n: Group(n, 1 if kind == "line" else 4) for n in "abc"}
        self.inner = {name: Slow(name) for name in "bc"}
        self.copied, hedges = None, {}
        now = asyncio.get_running_loop().time
        if kind in ("copies", "hedged"):
            first = Slow("a", 6) if kind == "hedged" else Slow("a", 2, down)
            self.inner |= {"a1": first, "a2": Slow("a", 2)}
            there = [Replica(name, "a", "n", HostReport("ready")) for name in ("a1", "a2")]
            self.copied = ReplicatedExpert(
                self.groups["a"], lambda: there, lambda r: self.inner[r.replica_id], rng=Lowest()
            )
        else:
            self.inner["a"] = Slow("a", 2, down if kind == "failover" else None)
        if kind == "hedged":
            hedging = hedges["a"] = Hedging()
            for _ in range(200):
                hedging.began(0.0)
                hedging.asked(now())
        single = {
            n: guarded(s, self.groups[n], one, now) for n, s in self.inner.items() if n in "abc"
        }
        experts = single if self.copied is None else single | {"a": self.copied}
        if kind in MODES:
            router = in_mode(router, MODES[kind])
        guards = Guards(self.groups, hedges=hedges)
        self.engine = Engine(router, experts, store=store, guards=guards, now=now)

    async def ask(self, stream):
        """As a gateway asks: what was opened is closed, whatever becomes of it."""
        opened = []
        request = Request((Message("user", "code"),), stream=stream, payload={"stream": stream})
        try:
            reply = await self.engine.answer(request, opened.append)
            async with aclosing(reply.pieces()) as pieces:
                async for _ in pieces:
                    await turns(1)
        finally:
            for reply in opened:
                await reply.close()

    def left(self):
        """What is counted, held or open."""
        members = [m for group in self.groups.values() for m in group.members.values()]
        states = [] if self.copied is None else self.copied._states.values()
        counts = {
            "loads": sum(load.n_in_flight for load in self.engine._loads.values()),
            "seats": sum(member.n_in_flight for member in members),
            "waiting": sum(len(group.line) for group in self.groups.values()),
            "copies": sum(state.n_in_flight for state in states),
            "open": sum(inner.n_open for inner in self.inner.values()),
            "held": len(self.store.ledger.held),
            "tasks": len(asyncio.all_tasks()) - 1,
        }
        return {name: n for name, n in counts.items() if n}


def one(request):
    return 1.0


async def turns(n):
    """Let everybody else go on so many times."""
    for _ in range(n):
        await asyncio.sleep(0)


@pytest.fixture
def by_hand():
    """What is left open stays so: nothing is closed by being collected."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("again_after", [None, 1, 2, 3])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", KINDS)
async def test_wherever_a_request_is_cancelled_nothing_is_left(
    kind, stream, again_after, make_spec, make_router, in_mode, memory_store, by_hand
):
    for n in range(200):
        rig = Rig(kind, make_spec, make_router, in_mode, memory_store())
        before = [asyncio.create_task(rig.ask(stream)) for _ in range(kind == "line")]
        await turns(len(before))
        asking = asyncio.create_task(rig.ask(stream))
        await turns(n)
        done = asking.done()
        asking.cancel()
        if again_after is not None:
            await turns(again_after)
            asking.cancel()
        ends = await asyncio.gather(asking, *before, return_exceptions=True)
        assert done or isinstance(ends[0], asyncio.CancelledError) or ends[0] is None, ends
        await turns(1)
        assert not rig.left(), f"cancelled after {n} turns"
        if done:
            return
    pytest.fail("it never ends")


ROOMS = ("", "experts", "guard")
# what gives something back, and cannot be given back itself; each is alone with its failure
GIVING_BACK = frozenset(
    {
        "Booking._end_hold",
        "Booking._leave",
        "Booking.abandon",
        "Booking.end",
        "Engine.leave",
        "Group.give_up",
        "Group.leave",
        "GuardedAnswer.aclose",
        "Hold._book",
        "Hold.fail",
        "Line.leave",
        "Line.seat",
        "Load.left",
        "Member.left",
        "ReplicatedExpert._end",
        "ReplicatedExpert._learn",
        "Watch.end",
        "_any_would_say",
        "_took_nothing",
        "close",
    }
)


steps = partial(Steps, ROOMS, GIVING_BACK)


async def stepping(steps, rig, stream, n_before):
    """A request behind others; what it ends with."""
    before = [asyncio.create_task(rig.ask(stream)) for _ in range(n_before)]
    await turns(n_before)
    with steps:
        ends = await asyncio.gather(rig.ask(stream), return_exceptions=True)
    await asyncio.gather(*before, return_exceptions=True)
    await turns(1)
    return ends[0]


@pytest.mark.parametrize(("kind", "stream"), [*((kind, True) for kind in KINDS), ("alone", False)])
async def test_wherever_a_request_fails_as_nobody_foresaw_nothing_is_left(
    kind, stream, make_spec, make_router, in_mode, memory_store, by_hand
):
    def rig():
        return Rig(kind, make_spec, make_router, in_mode, memory_store())

    # what is worked out once is so before
    for every in (steps(), steps()):
        assert await stepping(every, rig(), stream, kind == "line") is None
    assert len(every.seen) > 100
    for step in every.seen:
        failing, one = steps(step), rig()
        async with asyncio.timeout(5.0):
            await stepping(failing, one, stream, kind == "line")
        assert failing.struck, step
        assert not one.left(), f"{step} fails"
