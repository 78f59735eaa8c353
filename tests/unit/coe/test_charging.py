"""Hard limits in the engine: held before an expert is asked, ended once, with what was taken."""

import asyncio
import json
from dataclasses import replace

import pytest

from coe.bound import bound
from coe.core import Message, Policy, Request
from coe.engine import Engine
from coe.errors.callers import BudgetExhaustedError
from coe.errors.experts import (
    ExpertLostError,
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.errors.gateway import LedgerUnavailableError
from coe.experts.standing import StandingExpert
from coe.experts.stub import StubExpert
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.limits import Account, Limit, Payer
from coe.mode import Mode
from coe.stock import Declination
from coe.tab import Tab

NAMES = ("good", "fair", "poor")
ONE = Amounts(requests=1)


def ask(stream=True, policy="reject", max_tokens=50, **fields):
    given = Policy("p", on_infeasible=policy)
    return Request(
        (Message("user", "some code"),), given, stream=stream, max_tokens=max_tokens, **fields
    )


def house(**ceilings):
    return Limit("house", "global", 3600, **ceilings)


def taken(receipt):
    """What one receipt without parts says that was taken."""
    tokens = receipt.prompt_tokens + receipt.output_tokens
    return Amounts.of(receipt.energy_j, receipt.cost_usd, tokens)


def total(*amounts):
    found = NOTHING
    for one in amounts:
        found = found.plus(one)
    return found


@pytest.fixture
def charged(make_spec, make_router, in_mode, memory_store, clock):
    """An engine over experts of which "good" is dearest, under these limits."""

    def build(*limits, mode=None, **unusual):
        experts = {name: StubExpert(name) for name in NAMES} | unusual
        specs = [
            make_spec(name, watts=watts, usd_per_mtok_out=watts)
            for name, watts in zip(NAMES, (100.0, 50.0, 10.0), strict=True)
        ]
        router = make_router(specs, [[0.9, 0.6, 0.3]] * 3)
        if mode is not None:
            router = in_mode(router, mode)
        return Engine(router, experts, now=clock, store=memory_store(*limits)), experts

    return build


async def drain(reply):
    return b"".join([piece async for piece in reply.pieces()])


class Hang:
    """A pause without an end; ``all_asked`` is set once so many wait in it."""

    def __init__(self, n_waiting=1):
        self.n_waiting, self.all_asked = n_waiting, asyncio.Event()

    async def sleep(self, _seconds):
        self.n_waiting -= 1
        if self.n_waiting == 0:
            self.all_asked.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_charged_as_its_receipt_says(charged, stream):
    engine, _ = charged()
    reply = await engine.answer(ask(stream))
    assert len(engine.store.ledger.held) == 1
    await drain(reply)
    assert engine.store.spent == taken(reply.receipt).plus(ONE)
    assert engine.store.spent.beyond(*engine.store.holds.values()) == NOTHING
    # a stream of a stub states no usage, a document of it does
    assert bool(engine.store.estimated) == stream


async def test_without_a_store_nothing_is_charged(charged):
    engine, _ = charged()
    engine.store = None
    reply = await engine.answer(ask())
    await drain(reply)
    assert (reply.tab, reply.booking.hold) == (None, None)


async def test_who_goes_away_in_mid_answer_pays_for_what_was_written(charged):
    engine, _ = charged()
    reply = await engine.answer(ask())
    pieces = reply.pieces()
    for _ in range(3):
        await anext(pieces)
    await pieces.aclose()
    assert (reply.receipt.outcome, reply.receipt.output_tokens) == ("cancelled", 2)
    assert engine.store.spent == taken(reply.receipt).plus(ONE)


async def test_an_answer_that_nobody_reads_is_charged_once(charged):
    engine, _ = charged()
    reply = await engine.answer(ask())
    await reply.close()
    await reply.close()
    assert engine.store.spent == taken(reply.receipt).plus(ONE)


async def test_who_goes_away_before_the_first_piece_pays_for_the_prompt(charged):
    hang = Hang()
    engine, _ = charged(good=StubExpert("good", token_s=1.0, sleep=hang.sleep))
    answering = asyncio.create_task(engine.answer(ask()))
    await hang.all_asked.wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    tokens = ask().prompt_tokens
    profile = engine.router.specs["good"].profile
    assert engine.store.spent == Amounts.of(profile.energy_j(tokens, 0), 0.0, tokens, 1)


async def test_who_goes_away_while_it_is_held_pays_nothing(charged):
    engine, experts = charged()
    answering = asyncio.create_task(engine.answer(ask()))
    await asyncio.sleep(0)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert not engine.store.holds
    assert not experts["good"].requests


async def test_an_expert_that_fails_in_mid_answer_is_charged_as_far_as_it_came(charged):
    failing = StubExpert("good", error=ExpertUnavailableError("good", "gone"), error_after=3)
    engine, _ = charged(good=failing)
    reply = await engine.answer(ask())
    with pytest.raises(ExpertUnavailableError):
        await drain(reply)
    assert (reply.receipt.outcome, reply.receipt.output_tokens) == ("failed", 2)
    assert engine.store.spent == taken(reply.receipt).plus(ONE)


@pytest.mark.parametrize(
    "error",
    [
        ExpertUnavailableError("good", "not started"),
        ExpertRejectedError("good", "no", 503),
        ExpertUntrustedError("good", "does not prove who it is", "upstream_tls"),
        ExpertUntrustedError("good", "is not connected to", "upstream_blocked"),
        ExpertUntrustedError("good", "points elsewhere", "upstream_redirect"),
    ],
)
async def test_who_takes_over_is_charged_and_the_request_counts_once(charged, error):
    engine, _ = charged(good=StubExpert("good", error=error))
    reply = await engine.answer(ask())
    await drain(reply)
    assert reply.receipt.expert_id == "fair"
    (_, first), (_, second) = engine.store.ended
    assert (first, second) == (ONE, taken(reply.receipt))


@pytest.mark.parametrize(
    "error",
    [
        ExpertTimeoutError("good", "silent for 60 s"),
        ExpertLostError("good", "broke off"),
        ExpertUntrustedError("good", "sent a page"),
    ],
)
async def test_what_an_expert_did_of_which_nothing_was_heard_is_not_given_back(charged, error):
    engine, _ = charged(good=StubExpert("good", error=error))
    reply = await engine.answer(ask())
    await drain(reply)
    (silent, first), (_, second) = engine.store.ended
    assert first == engine.store.holds[silent]
    assert silent in engine.store.estimated
    assert second == taken(reply.receipt)


async def test_what_who_took_over_did_before_it_broke_off_is_not_given_back(charged):
    broken = {name: StubExpert(name, error=ExpertLostError(name, "broke off")) for name in NAMES}
    engine, _ = charged(**broken)
    with pytest.raises(ExpertLostError):
        await engine.answer(ask())
    assert [took for _, took in engine.store.ended] == list(engine.store.holds.values())
    assert engine.store.spent.requests == 1


async def test_a_crash_of_an_expert_leaves_no_hold(charged):
    engine, _ = charged(good=StubExpert("good", error=ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        await engine.answer(ask())
    assert engine.store.spent == next(iter(engine.store.holds.values()))


# ---- refusals


def hold_of(engine, name, **fields):
    """What one answer of an expert may take, the request included."""
    request = ask(**fields)
    return bound(engine.router.specs[name], request, request.max_tokens).plus(ONE)


async def test_where_the_dearest_does_not_fit_a_cheaper_one_answers_and_says_why(charged):
    engine, experts = charged()
    room = hold_of(engine, "fair").energy_uj
    engine, experts = charged(house(energy_uj=room))
    reply = await engine.answer(ask())
    await drain(reply)
    assert reply.receipt.expert_id == "fair"
    assert reply.decision.why.startswith("good: beyond what hard limits leave; ")
    assert reply.receipt.failed_over == ()
    assert not experts["good"].requests
    assert engine.store.spent == taken(reply.receipt).plus(ONE)


async def test_why_tells_who_failed_from_who_was_too_dear(charged):
    room = hold_of(charged()[0], "fair").energy_uj
    broken = StubExpert("fair", error=ExpertUnavailableError("fair", "not started"))
    engine, _ = charged(house(energy_uj=room), fair=broken)
    reply = await engine.answer(ask())
    assert reply.decision.why.startswith(
        "fair did not answer; good: beyond what hard limits leave; "
    )
    await drain(reply)
    assert reply.receipt.failed_over == ("fair",)


async def test_where_nobody_fits_the_first_refusal_stands(charged):
    engine, experts = charged(house(energy_uj=10))
    with pytest.raises(BudgetExhaustedError) as refused:
        await engine.answer(ask())
    assert refused.value.param == "limits.house.energy_uj"
    assert not any(expert.requests for expert in experts.values())
    assert not engine.store.holds


async def test_a_pinned_expert_is_not_replaced(charged):
    engine, _ = charged(house(energy_uj=hold_of(charged()[0], "fair").energy_uj))
    with pytest.raises(BudgetExhaustedError):
        await engine.answer(ask(pinned="good"))


async def test_whoever_answers_it_is_one_request(charged):
    engine, _ = charged(house(requests=2))
    n_decisions = 0
    deciding = engine.router.new_id

    def new_id():
        nonlocal n_decisions
        n_decisions += 1
        return deciding()

    engine.router = replace(engine.router, new_id=new_id)
    for _ in range(2):
        await drain(await engine.answer(ask()))
    with pytest.raises(BudgetExhaustedError) as refused:
        await engine.answer(ask())
    assert refused.value.param == "limits.house.requests"
    assert n_decisions == 3
    assert engine.store.spent.requests == 2


async def test_without_the_ledger_nobody_is_asked(charged):
    engine, experts = charged()
    engine.store.unavailable = True
    with pytest.raises(LedgerUnavailableError):
        await engine.answer(ask())
    assert not any(expert.requests for expert in experts.values())


async def test_answers_in_flight_count_with_all_that_they_may_take(charged):
    """Ten at once against room for five: exactly five are answered."""
    tokens = hold_of(charged()[0], "poor", pinned="poor").tokens
    engine, experts = charged(house(tokens=5 * tokens))
    given = await asyncio.gather(
        *(engine.answer(ask(pinned="poor")) for _ in range(10)), return_exceptions=True
    )
    refused = [one for one in given if isinstance(one, BudgetExhaustedError)]
    assert len(refused) == len(experts["poor"].requests) == 5
    for reply in given:
        if reply not in refused:
            await drain(reply)
    # what they did not take is free again
    await drain(await engine.answer(ask(pinned="poor")))
    assert engine.store.spent.requests == 6


async def test_every_tenant_pays_for_its_own(charged):
    limit = Limit("tenants", "tenant", 3600, requests=1)
    engine, _ = charged(limit)
    for tenant in ("alice", "bob", ""):
        await drain(await engine.answer(ask(tenant=tenant)))
        with pytest.raises(BudgetExhaustedError):
            await engine.answer(ask(tenant=tenant))
    accounts = {Account("tenants", tenant, 0, 3_600_000) for tenant in ("alice", "bob", "")}
    assert engine.store.ledger.accounts.keys() == accounts


async def test_an_answer_that_stands_ready_is_a_request_and_nothing_else(charged, make_spec):
    engine, experts = charged(house(requests=5, tokens=0, energy_uj=0))
    specs = {**engine.router.specs, "nobody": make_spec("nobody", watts=0.0)}
    engine.router = replace(engine.router, specs=specs, stocks={"nobody": Declination("No.")})
    engine.experts = {**experts, "nobody": StandingExpert("nobody")}
    reply = await engine.answer(ask(stream=False, pinned="nobody"))
    assert json.loads(await drain(reply))["choices"][0]["message"]["content"] == "No."
    assert engine.store.spent == ONE


# ---- several experts


def vote(*names):
    return Mode("vote", (names,))


async def test_every_member_is_charged_and_the_request_once(charged):
    engine, _ = charged(mode=Mode("rank", (NAMES,)))
    reply = await engine.answer(ask(stream=False))
    await drain(reply)
    parts = [taken(part) for part in reply.receipt.parts]
    assert len(parts) == 3
    assert engine.store.spent == total(ONE, *parts)


async def test_who_is_not_waited_for_is_charged_as_far_as_it_came(charged):
    hang = Hang()
    slow = StubExpert("poor", token_s=1.0, sleep=hang.sleep)

    async def once_asked(_seconds):
        await hang.all_asked.wait()

    quick = {n: StubExpert(n, token_s=1.0, sleep=once_asked) for n in ("good", "fair")}
    engine, _ = charged(mode=vote(*NAMES), poor=slow, **quick)
    reply = await engine.answer(ask(stream=False))
    await drain(reply)
    assert reply.receipt.agreement.cancelled == ("poor",)
    parts = {part.expert_id: taken(part) for part in reply.receipt.parts}
    assert parts["poor"].tokens == ask().prompt_tokens
    assert engine.store.spent == total(ONE, *parts.values())


async def test_an_ensemble_that_is_given_up_ends_every_hold(charged):
    hang = Hang(3)
    slow = {name: StubExpert(name, token_s=1.0, sleep=hang.sleep) for name in NAMES}
    engine, _ = charged(mode=vote(*NAMES), **slow)
    answering = asyncio.create_task(engine.answer(ask(stream=False)))
    await hang.all_asked.wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert engine.store.spent.requests == 1
    assert engine.store.spent.tokens == 3 * ask().prompt_tokens


async def test_a_member_beyond_the_limits_is_left_out(charged):
    room = total(*(hold_of(charged()[0], name) for name in ("fair", "poor"))).energy_uj
    engine, experts = charged(house(energy_uj=room), mode=Mode("rank", (NAMES,)))
    reply = await engine.answer(ask(stream=False))
    await drain(reply)
    assert {part.expert_id for part in reply.receipt.parts} == {"fair", "poor"}
    assert reply.receipt.failed_over == ()
    assert not experts["good"].requests
    assert engine.store.spent == total(ONE, *map(taken, reply.receipt.parts))


async def test_where_no_member_fits_another_decision_is_looked_for(charged):
    room = hold_of(charged()[0], "poor").energy_uj
    engine, _ = charged(house(energy_uj=room), mode=vote("good", "fair"))
    reply = await engine.answer(ask(stream=False))
    await drain(reply)
    assert reply.receipt.expert_id == "poor"
    assert "good, fair: beyond what hard limits leave" in reply.decision.why
    assert engine.store.spent == taken(reply.receipt).plus(ONE)


async def test_a_cascade_stops_where_its_next_stage_does_not_fit(charged):
    room = hold_of(charged()[0], "poor").energy_uj
    cascade = Mode("cascade", (("poor",), ("good",)), 1.0)
    engine, experts = charged(house(energy_uj=room), mode=cascade)
    reply = await engine.answer(ask(stream=False))
    await drain(reply)
    assert reply.receipt.expert_id == "poor"
    assert not experts["good"].requests
    assert engine.store.spent == total(ONE, *map(taken, reply.receipt.parts))


async def test_a_cascade_that_goes_on_is_charged_for_both_stages(charged):
    cascade = Mode("cascade", (("poor",), ("good",)), 1.0)
    engine, _ = charged(mode=cascade)
    reply = await engine.answer(ask(stream=False))
    await drain(reply)
    assert [part.expert_id for part in reply.receipt.parts] == ["poor", "good"]
    assert engine.store.spent == total(ONE, *map(taken, reply.receipt.parts))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fusion_without_room_for_its_writer_delivers_the_best_answer(charged, stream):
    hold = hold_of(charged()[0], "poor").plus(hold_of(charged()[0], "fair"))
    fusion = Mode("fuse", (("poor", "fair"), ("good",)))
    engine, experts = charged(house(energy_uj=hold.energy_uj), mode=fusion)
    reply = await engine.answer(ask(stream))
    await drain(reply)
    assert reply.receipt.expert_id == "fair"
    assert not experts["good"].requests
    assert engine.store.spent == total(ONE, *map(taken, reply.receipt.parts))


@pytest.mark.parametrize(
    "ends", [("release", "release"), ("settle", "release"), ("release", "settle")]
)
async def test_a_request_counts_though_who_was_held_for_first_is_not_asked(charged, ends):
    """A member that waits for room when the others have answered already."""
    engine, _ = charged()
    spec, receipt = engine.router.specs["good"], await settled(engine)
    before = engine.store.spent.requests
    tab = Tab(engine.store, Payer(), "two")
    holds = [await tab.hold(spec, ask(), 5) for _ in range(2)]
    for hold, end in zip(holds, ends, strict=True):
        hold.settle(receipt) if end == "settle" else hold.release()
    assert engine.store.spent.requests - before == 1
    assert not engine.store.ledger.held


async def test_a_request_does_not_count_where_all_that_was_held_is_given_back(charged):
    engine, _ = charged()
    tab = Tab(engine.store, Payer(), "two")
    holds = [await tab.hold(engine.router.specs["good"], ask(), 5) for _ in range(2)]
    for hold in reversed(holds):
        hold.release()
    assert (engine.store.spent, tab.counted) == (NOTHING, False)
    assert not engine.store.ledger.held


async def settled(engine):
    """The receipt of an answer."""
    reply = await engine.answer(ask())
    await drain(reply)
    return reply.receipt


async def test_an_answer_that_cannot_be_booked_takes_all_that_was_held(charged, monkeypatch):
    engine, _ = charged()
    reply = await engine.answer(ask())
    (most,) = engine.store.holds.values()
    monkeypatch.setattr(Amounts, "of", None)
    with pytest.raises(TypeError):
        await drain(reply)
    await reply.close()
    assert engine.store.spent == most
