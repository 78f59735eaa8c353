"""The engine: dispatch, failover, metering, settlement. Time is a clock that obeys."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

import pytest

from coe.answer import DONE, completion, pieces_of
from coe.core import Budget, Message, Policy, Prices, Request
from coe.energy import EnergyAccount
from coe.engine import Engine
from coe.errors.callers import InfeasibleError, UnknownExpertError
from coe.errors.experts import (
    ExpertError,
    ExpertOverloadedError,
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUnavailableError,
)
from coe.experts.guarded import guarded
from coe.experts.replicated import ReplicatedExpert
from coe.experts.stub import StubExpert
from coe.guard.group import Group
from coe.guard.guards import Guards
from coe.guard.retries import Retries
from coe.load import Presence
from coe.meter import MeterReading
from coe.optimizer.pacing import Allowance, Pacer
from coe.replica import HostReport, Replica
from coe.retrieval import Retriever
from coe.routers.retrieve import Index, Passage
from coe.steps import Steps

REJECT, NEAREST = Policy("reject"), Policy("nearest", on_infeasible="nearest")
SILENT = ExpertTimeoutError("good", "silent")
# what `StubExpert` says to its first question
STREAM = b"".join(pieces_of("chatcmpl-stub-1", "good", ["Hello", " there", "."]))


@dataclass
class Script:
    """An expert whose pieces are written out: bytes to send, errors to raise, seconds to take."""

    clock: Callable
    steps: list
    fails_to_close: bool = False

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        try:
            for step in self.steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, bytes):
                    yield step
                else:
                    await self.clock.sleep(step)
        finally:
            if self.fails_to_close:
                raise ExpertUnavailableError("good", "would not close")


@dataclass
class Remote:
    """An embedder that knows only what was fetched before, which takes half a second."""

    inner: object
    clock: Callable
    fetched: list = field(default_factory=list)
    name: str = "words"

    def embed(self, texts):
        known = [text if text in self.fetched else "" for text in texts]
        return self.inner.embed(known)

    async def warm(self, texts):
        await self.clock.sleep(0.5)
        self.fetched += texts


@dataclass
class Rig:
    """An engine over experts "good", "fair" and "poor", best first, with nobody else about."""

    engine: Engine
    experts: dict

    def stretch(self, expert_id: str) -> float:
        """How many times its idle time the router now expects of an expert."""
        return self.engine.decide(ask(pinned=expert_id)).predicted.ttft_ms / 100.0

    def in_flight(self) -> dict[str, int]:
        """Requests that each expert is answering: each stretches the next by one idle time.

        As long as nobody is slower or faster than its profile.
        """
        return {name: round(self.stretch(name) - 1, 6) for name in self.experts}


def ask(stream=True, policy=REJECT, **fields):
    return Request((Message("user", "some code"),), policy, stream=stream, **fields)


@pytest.fixture
def rig(make_spec, make_router, clock):
    """Experts that take 100 ms to the first token and 10 ms for each of 100 tokens."""

    def build(**unusual):
        # six pieces, three of them tokens, in the 130 ms that the profile promises
        experts = {
            name: StubExpert(name, token_s=0.13 / 6, sleep=clock.sleep)
            for name in ("good", "fair", "poor")
        } | unusual
        specs = [make_spec(expert_id) for expert_id in experts]
        router = make_router(specs, [[0.9, 0.6, 0.3]] * 3)
        return Rig(Engine(router, experts, now=clock), experts)

    return build


def guarded_rig(rig, slots=None, **unusual):
    """As `rig`, its experts guarded."""
    r = rig(**unusual)
    r.engine.guards = Guards({name: Group(name, slots) for name in r.experts})
    for name, group in r.engine.guards.groups.items():
        r.experts[name] = guarded(r.experts[name], group, lambda request: 0.1, r.engine.now)
    return r


def failing(expert_id, error=None, **fields):
    error = error or ExpertUnavailableError(expert_id, "not started")
    return StubExpert(expert_id, error=error, **fields)


async def drain(reply):
    return b"".join([piece async for piece in reply.pieces()])


async def drain_to_error(reply):
    """The error in which the pieces end, and the bytes before it."""
    body = b""
    try:
        async for piece in reply.pieces():
            body += piece
    except ExpertError as error:
        return error, body
    raise AssertionError("the pieces came to a good end")


IDLE = {"good": 0, "fair": 0, "poor": 0}


@pytest.fixture
def remote(rig, word_embedder, clock):
    """An engine whose embedder has to be warmed, and that embedder."""
    engine = rig().engine
    embedder = Remote(word_embedder(), clock)
    engine.router = replace(engine.router, embedder=embedder)
    engine.warm = embedder.warm
    return engine, embedder


async def test_a_remote_embedder_fetches_the_user_turns_before_they_are_decided_on(remote):
    engine, embedder = remote
    assert engine.decide(ask()).category.name == "general"
    reply = await engine.answer(ask())
    assert reply.decision.category.name == "code"
    assert embedder.fetched == ["some code"]
    await drain(reply)


async def test_of_a_conversation_every_turn_is_fetched_that_is_read(remote):
    engine, embedder = remote
    said = ("some code", "sure", "and why?")
    roles = ("user", "assistant", "user")
    reply = await engine.answer(replace(ask(), messages=tuple(map(Message, roles, said))))
    assert reply.decision.category.name == "code"
    assert embedder.fetched == ["some code", "and why?"]
    await drain(reply)


async def test_the_wait_for_a_vector_counts_against_the_time_ceilings_and_is_measured(remote):
    engine, _ = remote
    # each expert takes 1,100 ms
    with pytest.raises(InfeasibleError):
        await engine.answer(ask(budget=Budget(latency_ms=1500)))
    reply = await engine.answer(ask(budget=Budget(latency_ms=1700, energy_j=500)))
    assert reply.decision.budget == Budget(latency_ms=1200, energy_j=500)
    await drain(reply)
    assert reply.receipt.ttft_ms >= 500


async def test_a_local_embedder_takes_nothing_from_the_ceilings(rig):
    reply = await rig().engine.answer(ask(budget=Budget(latency_ms=1500)))
    assert reply.decision.budget == Budget(latency_ms=1500)
    await drain(reply)


# ---- bytes


async def test_a_stream_passes_untouched(rig):
    reply = await rig().engine.answer(ask())
    assert await drain(reply) == STREAM
    assert reply.receipt.outcome == "complete"


async def test_a_document_passes_untouched(rig):
    reply = await rig().engine.answer(ask(stream=False))
    assert await drain(reply) == completion("chatcmpl-stub-1", "good", "Hello there.", 5, 3, "stop")
    assert reply.receipt.outcome == "complete"


async def test_pieces_keep_the_edges_they_came_with(rig, clock):
    pieces = [STREAM[:7], STREAM[7:50], STREAM[50:]]
    reply = await rig(good=Script(clock, pieces)).engine.answer(ask())
    assert [piece async for piece in reply.pieces()] == pieces


async def test_the_expert_gets_the_request_and_the_cap(rig):
    r = rig()
    request = ask(max_tokens=2)
    await drain(await r.engine.answer(request))
    assert (r.experts["good"].requests, r.experts["good"].caps) == ([request], [2])


# ---- failover


async def test_an_expert_that_fails_before_its_first_piece_is_replaced(rig):
    r = rig(good=failing("good"))
    reply = await r.engine.answer(ask())
    await drain(reply)
    assert reply.decision.expert_id == reply.receipt.expert_id == "fair"
    assert reply.failed_over == reply.receipt.failed_over == ("good",)
    assert reply.decision.why.startswith("good did not answer; ")
    assert reply.receipt.decision_id == reply.decision.decision_id
    assert r.in_flight() == IDLE


async def test_an_expert_that_answers_with_nothing_is_replaced(rig, clock):
    r = rig(good=Script(clock, []))
    reply = await r.engine.answer(ask())
    assert reply.failed_over == ("good",)
    await drain(reply)
    assert r.in_flight() == IDLE


async def test_two_experts_are_tried_best_first_each_once(rig):
    r = rig(good=failing("good"), fair=failing("fair"))
    with pytest.raises(ExpertUnavailableError) as raised:
        await r.engine.answer(ask())
    assert (raised.value.expert_id, raised.value.n_tried) == ("good", 2)
    assert [len(r.experts[name].requests) for name in IDLE] == [1, 1, 0]
    assert r.in_flight() == IDLE


async def test_experts_that_were_not_asked_are_no_attempts(rig):
    full = {name: failing(name, ExpertOverloadedError(name, "full")) for name in ("good", "fair")}
    r = rig(**full)
    reply = await r.engine.answer(ask())
    await drain(reply)
    assert (reply.receipt.failed_over, reply.receipt.expert_id) == ((), "poor")
    assert reply.decision.why.startswith("good, fair: no room; ")
    assert r.engine.guards.retries.n_spent == 0
    assert r.in_flight() == IDLE


async def test_where_all_are_full_the_caller_is_told_when_to_come_back(rig):
    r = rig(**{name: failing(name, ExpertOverloadedError(name, "full", 3.0)) for name in IDLE})
    with pytest.raises(ExpertOverloadedError) as raised:
        await r.engine.answer(ask())
    assert (raised.value.expert_id, raised.value.n_tried) == ("good", 0)
    assert r.in_flight() == IDLE


async def test_without_budget_nobody_else_is_tried(rig):
    r = rig(good=failing("good"))
    r.engine.guards.retries = Retries(per_s=0.1)
    for n in range(3):
        if n:
            with pytest.raises(ExpertUnavailableError) as raised:
                await r.engine.answer(ask())
            assert raised.value.n_tried == 2
        else:
            await drain(await r.engine.answer(ask()))
    assert len(r.experts["fair"].requests) == 1
    assert (r.engine.guards.retries.n_spent, r.engine.guards.retries.n_refused) == (1, 2)


async def test_when_all_fail_the_first_error_is_raised(rig):
    errors = {name: ExpertUnavailableError(name, f"{name} is down") for name in IDLE}
    r = rig(**{name: failing(name, error) for name, error in errors.items()})
    with pytest.raises(ExpertUnavailableError) as raised:
        await r.engine.answer(ask())
    assert raised.value is errors["good"]
    assert r.in_flight() == IDLE


async def test_after_the_first_piece_nothing_is_retried(rig):
    r = rig(good=failing("good", SILENT, error_after=2))
    reply = await r.engine.answer(ask())
    error, body = await drain_to_error(reply)
    assert error is SILENT
    assert STREAM.startswith(body)
    assert body
    assert reply.receipt.outcome == "failed"
    assert r.experts["fair"].requests == []
    assert r.in_flight() == IDLE


async def test_a_pinned_expert_is_never_replaced(rig):
    r = rig(good=failing("good"))
    with pytest.raises(ExpertUnavailableError):
        await r.engine.answer(ask(pinned="good"))
    assert r.experts["fair"].requests == []
    assert r.in_flight() == IDLE


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_a_rejection_that_is_the_caller_s_fault_is_handed_on(rig, status):
    error = ExpertRejectedError("good", f"answered HTTP {status}", status)
    r = rig(good=failing("good", error))
    with pytest.raises(ExpertRejectedError) as raised:
        await r.engine.answer(ask())
    assert raised.value is error
    assert r.experts["fair"].requests == []
    assert r.in_flight() == IDLE


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 529, 599])
async def test_a_rejection_that_is_not_the_caller_s_fault_is_failed_over(rig, status):
    error = ExpertRejectedError("good", f"answered HTTP {status}", status)
    r = rig(good=failing("good", error))
    reply = await r.engine.answer(ask())
    await drain(reply)
    assert reply.receipt.failed_over == ("good",)
    assert r.in_flight() == IDLE


async def test_failover_keeps_to_the_caller_s_experts(rig):
    r = rig(good=failing("good"))
    with pytest.raises(ExpertUnavailableError):
        await r.engine.answer(ask(deny=frozenset({"fair", "poor"})))
    assert r.experts["fair"].requests == r.experts["poor"].requests == []


async def test_what_is_wrong_with_a_request_is_said_before_any_expert_is_asked(rig):
    r = rig()
    with pytest.raises(UnknownExpertError):
        await r.engine.answer(ask(pinned="nobody"))
    with pytest.raises(InfeasibleError):
        await r.engine.answer(ask(budget=Budget(energy_j=0.5)))
    assert all(expert.requests == [] for expert in r.experts.values())


async def test_a_crash_of_an_expert_is_not_hidden_and_leaves_no_trace(rig, clock):
    r = rig(good=Script(clock, [ZeroDivisionError()]))
    with pytest.raises(ZeroDivisionError):
        await r.engine.answer(ask())
    assert r.in_flight() == IDLE


# ---- the budget left after a failed attempt


async def test_a_failed_attempt_eats_of_the_time_but_not_of_the_joules(rig, clock):
    r = rig(good=Script(clock, [0.5, SILENT]))
    budget = Budget(latency_ms=2000.0, ttft_ms=1500.0, energy_j=100.0)
    reply = await r.engine.answer(ask(budget=budget))
    assert reply.decision.budget == Budget(latency_ms=1500.0, ttft_ms=1000.0, energy_j=100.0)
    await reply.close()


async def test_each_failed_attempt_is_counted_once(rig, clock):
    full = ExpertOverloadedError("fair", "full")
    r = rig(good=Script(clock, [0.25, SILENT]), fair=Script(clock, [0.25, full]))
    reply = await r.engine.answer(ask(budget=Budget(latency_ms=2000.0)))
    assert reply.decision.expert_id == "poor"
    assert reply.decision.budget == Budget(latency_ms=1500.0)
    await reply.close()


@dataclass
class Hanging:
    """An expert that never says anything."""

    n_closed: int = 0

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        try:
            await asyncio.sleep(60)
            yield b""
        finally:
            self.n_closed += 1


@pytest.mark.parametrize("ceilings", [{"ttft_ms": 150.0}, {"latency_ms": 1500.0, "ttft_ms": 200.0}])
async def test_a_stream_that_does_not_begin_within_its_ceiling_is_anothers(rig, ceilings):
    hanging = Hanging()
    rig = rig(good=hanging)
    reply = await rig.engine.answer(ask(budget=Budget(**ceilings)))
    assert (reply.spec.id, reply.failed_over) == ("fair", ("good",))
    assert hanging.n_closed == 1
    await drain(reply)
    assert rig.in_flight() == IDLE


async def test_a_named_expert_that_does_not_begin_within_the_ceiling_is_too_late(rig):
    rig = rig(good=Hanging())
    with pytest.raises(ExpertTimeoutError, match="may take"):
        await rig.engine.answer(ask(pinned="good", budget=Budget(ttft_ms=150.0)))


async def test_where_ceilings_are_wishes_a_late_stream_is_waited_for(rig):
    rig = rig(good=Hanging())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            await rig.engine.answer(ask(policy=NEAREST, budget=Budget(ttft_ms=150.0)))


async def test_no_expert_is_tried_that_does_not_fit_in_the_time_left(rig, clock):
    # an answer takes 1.1 s
    r = rig(good=Script(clock, [0.5, SILENT]))
    with pytest.raises(ExpertTimeoutError) as raised:
        await r.engine.answer(ask(budget=Budget(latency_ms=1500.0)))
    assert raised.value is SILENT
    assert r.experts["fair"].requests == []
    assert r.in_flight() == IDLE


async def test_under_the_policy_nearest_a_late_answer_is_better_than_none(rig, clock):
    r = rig(good=Script(clock, [0.5, SILENT]))
    reply = await r.engine.answer(ask(policy=NEAREST, budget=Budget(latency_ms=1500.0)))
    assert (reply.decision.status, reply.decision.expert_id) == ("nearest", "fair")
    await reply.close()


# ---- broken off, cancelled, never begun


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_without_a_proper_end_has_failed(rig, clock, stream):
    half = STREAM.removesuffix(DONE) if stream else b'{"choices": ['
    r = rig(good=Script(clock, [half]))
    reply = await r.engine.answer(ask(stream=stream))
    error, body = await drain_to_error(reply)
    assert isinstance(error, ExpertUnavailableError)
    assert body == half
    assert reply.receipt.outcome == "failed"
    assert r.in_flight() == IDLE


async def test_a_client_that_leaves_cancels_the_answer(rig):
    r = rig()
    reply = await r.engine.answer(ask())
    pieces = reply.pieces()
    await anext(pieces)
    await anext(pieces)
    assert r.in_flight() == IDLE | {"good": 1}
    assert reply.receipt is None
    await pieces.aclose()
    assert r.experts["good"].n_closed == 1
    assert reply.receipt.outcome == "cancelled"
    assert reply.receipt.output_tokens == 1
    assert r.in_flight() == IDLE


async def test_a_reply_that_was_never_begun_can_be_closed(rig):
    r = rig()
    reply = await r.engine.answer(ask())
    assert r.in_flight() == IDLE | {"good": 1}
    await reply.close()
    assert r.experts["good"].n_closed == 1
    assert (reply.receipt.outcome, reply.receipt.output_tokens) == ("cancelled", 0)
    assert r.in_flight() == IDLE


async def test_a_client_that_leaves_before_the_first_piece_is_booked_for_its_prompt(paced):
    class Stalled:
        async def stream(self, request, max_tokens):
            await asyncio.Event().wait()
            yield b""

    paced.experts = {"good": Stalled()}
    asking = asyncio.create_task(paced.answer(ask()))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    spec = paced.router.specs["good"]
    booked = 3000.0 - paced.pacer.left(0.0)[0]
    assert booked == pytest.approx(spec.profile.energy_j(ask().prompt_tokens, 0))
    assert paced.decide(ask(pinned="good")).predicted.ttft_ms == 100.0


async def test_closing_after_the_end_changes_nothing(rig):
    r = rig()
    reply = await r.engine.answer(ask())
    await drain(reply)
    receipt = reply.receipt
    await reply.close()
    assert reply.receipt is receipt
    assert r.in_flight() == IDLE


async def test_who_leaves_after_the_end_mark_has_had_everything(rig):
    r = rig()
    reply = await r.engine.answer(ask())
    pieces = reply.pieces()
    while DONE not in await anext(pieces):
        pass
    await pieces.aclose()
    assert reply.receipt.outcome == "complete"


async def test_closing_in_the_middle_settles_once(rig):
    # a web server may close the reply while the iterator still waits to be finalised
    r = rig()
    reply = await r.engine.answer(ask())
    pieces = reply.pieces()
    await anext(pieces)
    await anext(pieces)
    await reply.close()
    receipt = reply.receipt
    assert (receipt.outcome, receipt.output_tokens) == ("cancelled", 1)
    await pieces.aclose()
    assert reply.receipt is receipt
    assert r.in_flight() == IDLE


async def test_the_empty_pieces_of_a_whole_answer_tell_how_far_it_came(rig, clock):
    # one for the role, two for tokens
    r = rig(good=Script(clock, [b"", b"", b"", 1.0, b"{}"]))
    reply = await r.engine.answer(ask(stream=False))
    pieces = reply.pieces()
    assert [await anext(pieces) for _ in range(3)] == [b""] * 3
    await pieces.aclose()
    assert (reply.receipt.outcome, reply.receipt.output_tokens) == ("cancelled", 2)
    assert reply.receipt.latency_ms == 0.0


async def test_an_expert_that_fails_while_it_is_closed_is_still_counted_out(rig, clock):
    r = rig(good=Script(clock, [STREAM[:50], STREAM[50:]], fails_to_close=True))
    begun, unbegun = [await r.engine.answer(ask(pinned="good")) for _ in range(2)]
    pieces = begun.pieces()
    await anext(pieces)
    with pytest.raises(ExpertUnavailableError):
        await pieces.aclose()
    with pytest.raises(ExpertUnavailableError):
        await unbegun.close()
    assert (begun.receipt.outcome, unbegun.receipt.outcome) == ("cancelled", "cancelled")
    assert r.in_flight() == IDLE


async def test_requests_in_flight_are_counted_each(rig):
    r = rig()
    replies = [await r.engine.answer(ask(pinned="good")) for _ in range(3)]
    assert r.in_flight() == IDLE | {"good": 3}
    for reply in replies:
        await reply.close()
    assert r.in_flight() == IDLE


async def test_a_busy_expert_is_passed_over_when_it_would_be_late(rig):
    # idle an answer takes 1.1 s, beside another one 2.2 s
    r = rig()
    first = await r.engine.answer(ask(budget=Budget(latency_ms=2000.0)))
    second = await r.engine.answer(ask(budget=Budget(latency_ms=2000.0)))
    assert (first.decision.expert_id, second.decision.expert_id) == ("good", "fair")
    await first.close()
    await second.close()


# ---- experts that come and go


async def test_an_expert_without_a_copy_is_left_out_and_the_reason_said(rig):
    r = rig()
    r.engine.presence = lambda: {"good": Presence(0, 0), "fair": Presence(1, 0)}
    reply = await r.engine.answer(ask())
    await drain(reply)
    assert reply.receipt.expert_id == "fair"
    assert reply.failed_over == ()
    assert reply.decision.why.endswith("; good: not running")
    assert r.experts["good"].requests == []


async def test_an_expert_that_is_failing_is_left_out_and_the_reason_said(rig):
    r = guarded_rig(rig, good=failing("good"))
    for _ in range(5):
        await drain(await r.engine.answer(ask()))
    reply = await r.engine.answer(ask())
    await drain(reply)
    assert (reply.receipt.expert_id, reply.failed_over) == ("fair", ())
    assert reply.decision.why.endswith("; good: failing")
    assert len(r.experts["good"].inner.requests) == 5


async def test_an_expert_that_fails_is_asked_where_nobody_else_may_answer(rig):
    r = guarded_rig(rig, good=failing("good"))
    only = {"allow": frozenset({"good"})}
    for _ in range(8):
        with pytest.raises(ExpertUnavailableError):
            await r.engine.answer(ask(**only))
        with pytest.raises(ExpertUnavailableError):
            await r.engine.answer(ask(pinned="good"))
    assert len(r.experts["good"].inner.requests) == 16
    r.experts["good"].inner.error = None
    await drain(await r.engine.answer(ask(**only)))
    reply = await r.engine.answer(ask())
    await drain(reply)
    assert reply.receipt.expert_id == "good", "it is well again"


async def test_an_expert_that_fails_is_asked_where_nobody_else_fits(rig, make_spec):
    r = guarded_rig(rig, good=failing("good"))
    slow = {name: make_spec(name, ttft_ms=9000.0) for name in ("fair", "poor")}
    r.engine.router = replace(r.engine.router, specs={**r.engine.router.specs, **slow})
    for _ in range(8):
        with pytest.raises(ExpertUnavailableError):
            await r.engine.answer(ask(budget=Budget(latency_ms=2000.0)))
    assert len(r.experts["good"].inner.requests) == 8
    with pytest.raises(InfeasibleError):
        r.engine.decide(ask(budget=Budget(latency_ms=1.0)))


async def test_an_expert_that_fails_is_asked_where_nobody_else_can_do_it(rig, make_spec):
    r = guarded_rig(rig, good=failing("good"))
    blind = {n: make_spec(n, capabilities=frozenset()) for n in ("fair", "poor")}
    r.engine.router = replace(r.engine.router, specs={**r.engine.router.specs, **blind})
    for _ in range(8):
        with pytest.raises(ExpertUnavailableError):
            await r.engine.answer(ask(needs={"tools": "tools"}))
    assert len(r.experts["good"].inner.requests) == 8


async def test_an_ejected_expert_is_tried_by_one_request(rig, clock):
    r = guarded_rig(rig, good=failing("good"))
    for _ in range(5):
        await drain(await r.engine.answer(ask()))
    clock.seconds += 40.0
    r.experts["good"].inner.error = None
    probe = await r.engine.answer(ask())
    assert probe.receipt is None
    assert probe.decision.expert_id == "good"
    await drain(probe)


async def test_who_leaves_while_waiting_for_room_holds_and_owes_nothing(rig, memory_store, clock):
    class Stalled:
        async def stream(self, request, max_tokens):
            await asyncio.Event().wait()
            yield b""

    r = guarded_rig(rig, slots=1, good=Stalled())
    r.engine.store = store = memory_store()
    asking = [asyncio.create_task(r.engine.answer(ask(pinned="good"))) for _ in range(2)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(r.engine.guards.groups["good"].line) == 1
    asking[1].cancel()
    await asyncio.wait({asking[1]})
    assert r.in_flight() == IDLE | {"good": 1}
    assert len(store.ledger.held) == 1
    asking[0].cancel()
    await asyncio.wait({asking[0]})
    assert store.spent.requests == 1
    assert r.in_flight() == IDLE


async def test_where_no_expert_has_a_copy_the_best_is_asked_all_the_same(rig):
    r = rig()
    r.engine.presence = lambda: dict.fromkeys(IDLE, Presence(0, 0))
    reply = await r.engine.answer(ask())
    await drain(reply)
    assert reply.receipt.expert_id == "good"


async def test_a_pinned_expert_is_asked_whether_or_not_it_has_a_copy(rig):
    r = rig(good=failing("good"))
    r.engine.presence = lambda: {"good": Presence(0, 0)}
    with pytest.raises(ExpertUnavailableError):
        await r.engine.answer(ask(pinned="good"))


async def test_an_absent_expert_is_no_way_around_a_budget(rig):
    r = rig()
    r.engine.presence = lambda: dict.fromkeys(("fair", "poor"), Presence(0, 0))
    with pytest.raises(InfeasibleError) as raised:
        await r.engine.answer(ask(budget=Budget(latency_ms=1.0)))
    assert raised.value.code == "budget_infeasible"


async def test_copies_share_the_requests_of_all_gateways(rig):
    # idle an answer takes 1.1 s; two elsewhere on one copy stretch a third to 3.3 s
    r = rig()
    r.engine.presence = lambda: {"good": Presence(1, 2)}
    assert r.stretch("good") == pytest.approx(3.0)
    r.engine.presence = lambda: {"good": Presence(3, 2)}
    assert r.stretch("good") == pytest.approx(1.0)
    reply = await r.engine.answer(ask())
    assert reply.booking.stretch == 1.0
    await reply.close()


async def test_what_other_gateways_ask_for_is_not_taken_for_slowness(rig, clock):
    # three in its one slot from elsewhere, so that it takes four times as long
    r = rig(good=StubExpert("good", token_s=4 * 0.13 / 6, sleep=clock.sleep))
    r.engine.presence = lambda: {"good": Presence(1, 3)}
    for _ in range(20):
        await drain(await r.engine.answer(ask()))
    r.engine.presence = lambda: {"good": Presence(1, 0)}
    assert r.stretch("good") == pytest.approx(1.0)


async def test_waiting_to_be_loaded_is_not_taken_for_slowness(rig, clock):
    r = rig(good=StubExpert("good", token_s=10.0, sleep=clock.sleep))
    r.engine.presence = lambda: {"good": Presence(1, 0, delay_ms=1000.0)}
    await drain(await r.engine.answer(ask()))
    r.engine.presence = lambda: {"good": Presence(1, 0)}
    assert r.stretch("good") == pytest.approx(1.0)


# ---- receipts


async def test_a_receipt_states_what_the_clock_and_the_expert_say(rig, clock, make_spec):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 50}}\n\n'
    steps = [0.25, STREAM.removesuffix(DONE), 0.5, usage + DONE]
    r = rig(good=Script(clock, steps))
    reply = await r.engine.answer(ask())
    await drain(reply)
    receipt, profile = reply.receipt, make_spec("good").profile
    assert (receipt.ttft_ms, receipt.latency_ms) == (250.0, 750.0)
    assert (receipt.prompt_tokens, receipt.output_tokens) == (9, 50)
    assert receipt.tokens_source == "stated"
    assert receipt.energy_j == profile.energy_j(9, 50)
    assert (receipt.energy_source, receipt.energy_scope) == ("modelled", "board")
    assert (receipt.expert_id, receipt.failed_over) == ("good", ())


async def test_a_receipt_of_an_expert_that_states_nothing_is_counted(rig):
    request = ask()
    reply = await rig().engine.answer(request)
    await drain(reply)
    assert reply.receipt.tokens_source == "counted"
    assert reply.receipt.output_tokens == 3
    assert reply.receipt.prompt_tokens == request.prompt_tokens


async def test_a_receipt_costs_what_its_tokens_cost(make_spec, make_router, clock):
    spec = make_spec("good", usd_per_mtok_in=2.0, usd_per_mtok_out=8.0)
    engine = Engine(make_router([spec], [[0.9]] * 3), {"good": StubExpert("good")}, now=clock)
    reply = await engine.answer(ask(stream=False))
    await drain(reply)
    # the stub states 5 tokens of prompt and 3 of answer
    assert reply.receipt.cost_usd == spec.cost_usd(5, 3)


async def test_the_time_of_a_receipt_begins_before_the_failed_attempt(rig, clock):
    r = rig(good=Script(clock, [0.5, SILENT]), fair=Script(clock, [0.25, STREAM]))
    reply = await r.engine.answer(ask())
    await drain(reply)
    assert (reply.receipt.ttft_ms, reply.receipt.latency_ms) == (750.0, 750.0)


# ---- measured joules


@pytest.fixture
def metered(rig, clock):
    """An engine with experts "good" and "fair" on a machine that draws twenty watts."""

    def build(**unusual):
        r = rig(**unusual)
        account = EnergyAccount("rail", now=clock)
        account.refresh = lambda: account.note_reading(MeterReading(clock(), 20.0 * clock()))
        r.engine.accounts = {"good": account, "fair": account}
        return r, account

    return build


@pytest.mark.parametrize("stream", [True, False])
async def test_a_receipt_of_an_expert_on_a_metered_machine_is_measured(metered, stream):
    r, account = metered()
    started = r.engine.now()
    reply = await r.engine.answer(ask(stream=stream))
    await drain(reply)
    joules = 20.0 * (r.engine.now() - started)
    assert reply.receipt.energy_j == pytest.approx(joules)
    assert (reply.receipt.energy_source, reply.receipt.energy_scope) == ("measured", "rail")
    assert (account.requests_j, account.waiting) == (pytest.approx(joules), 0)


async def test_an_expert_elsewhere_is_not_billed_by_the_meter_here(metered):
    r, account = metered()
    reply = await r.engine.answer(ask(pinned="poor"))
    await drain(reply)
    assert (reply.receipt.energy_source, reply.receipt.energy_scope) == ("modelled", "board")
    assert account.requests_j == 0


async def test_answers_at_once_share_what_the_machine_draws(metered):
    r, account = metered()
    replies = [await r.engine.answer(ask(pinned=name)) for name in ("good", "good", "fair")]
    for reply in replies:
        await drain(reply)
    joules = [reply.receipt.energy_j for reply in replies]
    assert {reply.receipt.energy_source for reply in replies} == {"measured"}
    assert sum(joules) == pytest.approx(account.requests_j) == pytest.approx(account.metered_j)
    assert all(share > 0 for share in joules)


async def test_a_failed_attempt_leaves_its_joules_with_the_machine(metered, clock):
    r, account = metered(good=Script(clock, [0.5, SILENT]))
    reply = await r.engine.answer(ask())
    await drain(reply)
    assert reply.receipt.expert_id == "fair"
    # ten joules went into the attempt, and onto no receipt
    assert account.requests_j == pytest.approx(reply.receipt.energy_j + 10.0)
    assert account.waiting == 0


async def test_a_cancelled_answer_is_measured_up_to_its_end(metered, clock):
    r, account = metered(good=Script(clock, [0.25, STREAM[:50], 60.0, STREAM[50:]]))
    reply = await r.engine.answer(ask())
    clock.seconds += 0.25
    await reply.close()
    assert reply.receipt.energy_j == pytest.approx(10.0)
    assert account.waiting == 0


async def test_where_the_meter_says_nothing_the_receipt_goes_by_the_profile(metered, make_spec):
    r, account = metered()
    account.refresh = None
    reply = await r.engine.answer(ask(stream=False))
    await drain(reply)
    assert reply.receipt.energy_j == make_spec("good").profile.energy_j(5, 3)
    assert (reply.receipt.energy_source, reply.receipt.energy_scope) == ("modelled", "board")


class First(Random):
    """Draws the first of what there is."""

    def random(self):
        return 0.0


@pytest.fixture
def copied(rig, clock):
    """An engine whose expert "good" is two copies, each on a machine that draws twenty watts."""

    def build(*steps):
        scripts = {str(n): Script(clock, given) for n, given in enumerate(steps, 1)}
        replicas = [Replica(name, "good", name, HostReport("ready")) for name in scripts]
        good = ReplicatedExpert(
            Group("good"), lambda: replicas, lambda r: scripts[r.replica_id], rng=First(), now=clock
        )
        accounts = {name: EnergyAccount("rail", now=clock) for name in scripts}
        for account in accounts.values():
            account.refresh = partial(twenty_watts, account, clock)
        r = rig(good=good)
        r.engine.copy_accounts = accounts
        return r, accounts

    return build


def twenty_watts(account, clock):
    account.note_reading(MeterReading(clock(), 20.0 * clock()))


async def answered(r):
    reply = await r.engine.answer(ask(pinned="good"))
    await drain(reply)
    return reply.receipt


async def test_an_answer_is_billed_by_the_machine_of_the_copy_that_gives_it(copied):
    r, accounts = copied([0.5, STREAM], [0.5, STREAM])
    receipt = await answered(r)
    assert (receipt.energy_source, receipt.energy_j) == ("measured", pytest.approx(10.0))
    assert accounts["1"].requests_j == pytest.approx(10.0)
    assert accounts["2"].requests_j == 0


async def test_an_answer_that_a_copy_elsewhere_took_over_is_not_measured(copied):
    r, accounts = copied([0.5, SILENT], [0.25, STREAM[:50], 0.25, STREAM[50:]])
    assert (await answered(r)).energy_source == "modelled"
    # on no receipt; and from its first piece on nobody else on the second machine pays for it
    assert accounts["1"].requests_j == pytest.approx(15.0)
    assert accounts["2"].requests_j == pytest.approx(5.0)
    assert [account.waiting for account in accounts.values()] == [0, 0]


async def test_a_copy_on_a_machine_without_a_meter_is_not_measured(copied):
    r, accounts = copied([0.5, STREAM], [0.5, STREAM])
    del accounts["1"]
    assert (await answered(r)).energy_source == "modelled"
    assert accounts["2"].requests_j == 0


# ---- learning


async def test_a_slow_expert_is_learned_to_be_slow_little_by_little(rig, clock):
    # three tokens are predicted to take 130 ms; these take twice as long
    r = rig(good=Script(clock, [0.26, STREAM]))
    seen = [1.0]
    for _ in range(30):
        await drain(await r.engine.answer(ask(pinned="good")))
        seen.append(r.stretch("good"))
    assert seen == sorted(seen)
    assert all(1.0 <= s <= 2.0 for s in seen)
    assert seen[1] < 1.5
    assert seen[-1] == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(("seconds", "bound"), [(1e6, 10.0), (0.0, 0.1)])
async def test_what_is_learned_is_bounded(rig, clock, seconds, bound):
    r = rig(good=Script(clock, [seconds, STREAM]))
    for _ in range(100):
        await drain(await r.engine.answer(ask(pinned="good")))
    assert r.stretch("good") == pytest.approx(bound)


async def test_an_expert_that_keeps_its_profile_is_not_slow(rig, clock):
    r = rig(good=Script(clock, [0.13, STREAM]))
    await drain(await r.engine.answer(ask(pinned="good")))
    assert r.stretch("good") == pytest.approx(1.0)


async def test_being_one_of_two_is_not_taken_for_slowness(rig, clock):
    r = rig(good=Script(clock, [STREAM[:50], 0.26, STREAM[50:]]))
    held = await r.engine.answer(ask(pinned="good"))
    beside = await r.engine.answer(ask(pinned="good"))
    await drain(beside)
    await held.close()
    assert r.stretch("good") == pytest.approx(1.0)


async def test_nothing_is_learned_from_answers_without_an_end(rig, clock):
    r = rig(good=Script(clock, [STREAM[:50], 100.0, SILENT]))
    reply = await r.engine.answer(ask(pinned="good"))
    await drain_to_error(reply)
    await (await r.engine.answer(ask(pinned="good"))).close()
    assert r.stretch("good") == 1.0


async def test_one_expert_s_slowness_says_nothing_of_another(rig, clock):
    r = rig(good=Script(clock, [10.0, STREAM]))
    await drain(await r.engine.answer(ask()))
    assert r.stretch("good") > 1.0
    assert r.stretch("fair") == 1.0


# ---- passages

ZARBON = Passage("p1", "The code of the Zarbon engine is 1873.", "engines.md")


@pytest.mark.parametrize("many", [False, True])
async def test_an_expert_that_takes_over_gets_the_passages_too(rig, many):
    """Also where the search takes so long that it runs beside the event loop."""
    bed = rig(good=failing("good"))
    filler = [Passage(f"f{n}", "x", "f.md") for n in range(10_001 if many else 0)]
    retriever = Retriever(Index.build([ZARBON, *filler]))
    bed.engine.router = replace(bed.engine.router, retriever=retriever)
    payload = {"messages": [{"role": "user", "content": "some code"}]}
    reply = await bed.engine.answer(ask(retrieve="always", payload=payload))
    await drain(reply)
    (sent,) = bed.experts["fair"].requests
    assert ZARBON.text in sent.payload["messages"][0]["content"]
    assert [c.passage_id for c in reply.decision.retrieval.citations] == ["p1"]
    # the stub does not say how long the prompt was
    assert reply.receipt.prompt_tokens == sent.prompt_tokens > ask().prompt_tokens + 50


@pytest.fixture
def paced(make_spec, make_router, clock):
    """An engine whose good expert takes 110 J and whose fair one 1.1 J, with 30 J per request."""
    experts = {name: StubExpert(name, sleep=clock.sleep) for name in ("good", "fair")}
    specs = [make_spec("good", watts=100.0), make_spec("fair", watts=1.0)]
    router = make_router(specs, [[0.9, 0.6]] * 3)
    pacer = Pacer([Allowance("energy_j", 3000.0, 1000.0)])
    return Engine(router, experts, now=clock, pacer=pacer)


async def ask_often(engine, clock, n, **fields):
    """Decisions of n requests, ten seconds apart."""
    decisions = []
    for _ in range(n):
        reply = await engine.answer(ask(**fields))
        await drain(reply)
        decisions.append(reply.decision)
        await clock.sleep(10.0)
    return decisions


async def test_a_scarce_period_budget_steers_to_the_expert_that_takes_less(paced, clock):
    decisions = await ask_often(paced, clock, 40)
    assert decisions[0].running == Prices()
    assert decisions[0].expert_id == "good"
    scarce = [d for d in decisions if d.running.per_joule > 0]
    assert "fair" in {d.expert_id for d in scarce}
    for decision in scarce:
        worth = {e: q - decision.running.per_joule * j for e, q, j in TAKES}
        assert decision.expert_id == max(worth, key=worth.get)


TAKES = [("good", 0.9, 110.0), ("fair", 0.6, 1.1)]


async def test_every_receipt_is_booked(paced, clock):
    reply = await paced.answer(ask())
    assert paced.pacer.left(clock()) == (3000.0,)
    await drain(reply)
    assert paced.pacer.left(clock()) == (3000.0 - reply.receipt.energy_j,)


async def test_a_decision_without_an_answer_is_no_demand(paced):
    before = paced.pacer.state()["sample"]
    assert paced.decide(ask()).running == Prices()
    assert paced.pacer.state()["sample"] == before


async def test_the_pacer_sees_worth_at_the_prices_of_the_policy(paced, clock):
    # a joule is dear enough for the fair expert, and then the budget is ample
    thrifty = Policy("thrifty", prices=Prices(per_joule=0.01))
    decisions = await ask_often(paced, clock, 40, policy=thrifty)
    assert {d.expert_id for d in decisions} == {"fair"}
    assert {d.running for d in decisions} == {Prices()}


async def test_experts_beyond_the_ceilings_are_no_options(paced, clock):
    await ask_often(paced, clock, 1, budget=Budget(energy_j=2.0))
    ((quality, _, _),) = paced.pacer.state()["sample"]
    assert quality == [0.6]


@pytest.mark.parametrize("may_decline", [True, False])
async def test_only_a_period_that_may_decline_refuses_what_is_not_worth_its_price(
    paced, clock, may_decline
):
    tiny = Allowance("energy_j", 1e-3, 1000.0, name="day", may_decline=may_decline)
    paced.pacer = Pacer([tiny])
    await ask_often(paced, clock, 8)
    await clock.sleep(20.0)
    running = paced.pacer.prices(clock())["energy_j"]
    assert 0.6 < running * 1.1  # even the cheap expert is not worth its joules
    if not may_decline:
        (last,) = await ask_often(paced, clock, 1)
        assert last.expert_id == "fair"
        return
    seen = len(paced.pacer.state()["sample"])
    with pytest.raises(InfeasibleError, match="'day'") as error:
        await paced.answer(ask())
    assert error.value.code == "period_declined"
    assert error.value.param == "periods.day.energy_j"
    with pytest.raises(InfeasibleError, match="'day'"):
        paced.decide(ask())
    # what is refused is demand all the same, and that there is no answer is one of its options
    sample = paced.pacer.state()["sample"]
    assert len(sample) == seen + 1
    assert sample[-1][0][-1] == 0.0
    assert sample[-1][1][-1] == [0.0]


async def test_with_ample_budget_a_period_declines_nothing(paced, clock):
    paced.pacer = Pacer([Allowance("energy_j", 1e9, 1000.0, name="day", may_decline=True)])
    # the policy's own price makes every answer worth less than nothing
    dear = Policy("dear", prices=Prices(per_joule=10.0))
    decisions = await ask_often(paced, clock, 20, policy=dear)
    assert {d.running for d in decisions} == {Prices()}


# ---- steps


async def test_what_is_done_for_a_request_is_noted_with_its_times(rig, clock):
    r = rig(good=failing("good"))
    steps = Steps()
    reply = await r.engine.answer(ask(steps=steps))
    await drain(reply)
    assert [(step.name, step.of, step.error) for step in steps.done] == [
        ("prepare", "", ""),
        ("decide", "", ""),
        ("dispatch", "good", "ExpertUnavailableError"),
        ("decide", "", ""),
        ("dispatch", "fair", ""),
        ("stream", "fair", ""),
        ("settle", "fair", ""),
    ]
    streamed = steps.done[-2]
    assert streamed.ended_s - streamed.started_s == pytest.approx(5 * 0.13 / 6)
    assert {"embed", "category", "quality", "select"} <= reply.decision.steps_ms.keys()
