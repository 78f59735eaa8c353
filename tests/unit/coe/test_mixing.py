"""An answer that several experts write together: passed on, booked, failed over. Nobody sleeps."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from coe.bound import bound
from coe.core import Message, Request
from coe.energy import EnergyAccount
from coe.engine import Engine
from coe.errors.callers import RequestError
from coe.errors.experts import (
    ExpertError,
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUnavailableError,
)
from coe.experts.continuation import Token
from coe.experts.stub import StubContinuation, StubExpert
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.limits import Limit
from coe.load import Presence
from coe.meter import MeterReading
from coe.optimizer.pacing import Allowance, Pacer

END, A, B = Token(0, b""), Token(1, b"a"), Token(2, b"b")


@dataclass
class Writer(StubExpert):
    """An expert that is sure of every token, alone and with others.

    Parameters
    ----------
    places : what it says, token by token.
    fault : raised where it would expect the token after ``fault_after``.
    pause : awaited before it expects a token.
    """

    places: tuple[Token, ...] = (A, A, END)
    prompt_tokens: int = 5
    fault: ExpertError | None = None
    fault_after: int = 0
    pause: Callable | None = None
    view: StubContinuation = field(init=False)

    def __post_init__(self):
        expecting = [{token: 0.0} for token in self.places]
        self.view = StubContinuation(
            expecting,
            prompt_tokens=self.prompt_tokens,
            error=self.fault,
            error_after=self.fault_after,
        )

    async def continuation(self, request):
        if self.pause is not None:
            await self.pause()
        return self.view


def ask(stream=False, **fields):
    payload = {"messages": [{"role": "user", "content": "some code"}], **fields.pop("payload", {})}
    fields = {"mode": "mixture", "stream": stream, "payload": payload} | fields
    return Request((Message("user", "some code"),), **fields)


@dataclass
class Rig:
    engine: Engine
    experts: dict

    async def deliver(self, **request):
        """The body that is delivered, and the receipt."""
        reply = await self.engine.answer(ask(**request))
        return b"".join([piece async for piece in reply.pieces()]), reply.receipt

    def idle(self):
        """Whether nobody is counted as being asked any more, or thought slow.

        Who answers alone, in no time at all, is taken to be a little faster now.
        """
        asked = [ask(pinned=name, mode=None) for name in self.experts]
        return all(self.engine.decide(one).predicted.ttft_ms <= 100.0 for one in asked)


@pytest.fixture
def rig(make_spec, make_router, clock):
    """Experts a, b and c, best first; all but c can write together."""

    def build(*unusual, **fields):
        experts = {name: Writer(name) for name in ("a", "b")} | {"c": StubExpert("c", ["c", "c"])}
        experts |= {expert.expert_id: expert for expert in unusual}
        shared = {name: "v" if isinstance(one, Writer) else None for name, one in experts.items()}
        specs = [
            make_spec(name, vocabulary=said, usd_per_mtok_out=1e6) for name, said in shared.items()
        ]
        router = make_router(specs, [[0.9, 0.8, 0.7, 0.6][: len(specs)]] * 3)
        return Rig(Engine(router, experts, now=clock, **fields), experts)

    return build


def text(body):
    return json.loads(body)["choices"][0]["message"]["content"]


def events(body):
    return [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: {")]


async def to_error(reply):
    """The error in which the pieces end, and the bytes before it."""
    body = b""
    try:
        async for piece in reply.pieces():
            body += piece
    except ExpertError as error:
        return error, body
    raise AssertionError("the pieces came to a good end")


# ---- what is delivered, and what is booked


async def test_members_write_one_answer_and_each_has_its_part(rig):
    r = rig(Writer("b", prompt_tokens=9))
    body, receipt = await r.deliver()
    assert (text(body), json.loads(body)["model"]) == ("aa", "a ~ b")
    assert (receipt.expert_id, receipt.outcome, receipt.agreement) == ("a ~ b", "complete", None)
    a, b = receipt.parts
    assert (a.expert_id, a.prompt_tokens, a.output_tokens) == ("a", 5, 3)
    assert (b.expert_id, b.prompt_tokens, b.output_tokens) == ("b", 9, 3)
    assert {a.tokens_source, b.tokens_source, receipt.tokens_source} == {"stated"}
    assert (receipt.prompt_tokens, receipt.output_tokens) == (14, 6)
    assert receipt.cost_usd == a.cost_usd + b.cost_usd == 6.0
    profile = r.engine.router.specs["b"].profile
    assert b.energy_j == profile.energy_j(9, 3)
    assert receipt.energy_j == a.energy_j + b.energy_j
    assert r.idle()


async def test_a_stream_comes_token_by_token_with_the_same_receipt(rig):
    r = rig()
    reply = await r.engine.answer(ask(stream=True))
    seen = []
    async for piece in reply.pieces():
        seen.append((piece, r.experts["b"].view.n_asked))
    assert reply.receipt.parts[1].output_tokens == 3
    said = [(e["choices"][0]["delta"].get("content"), n) for p, n in seen for e in events(p)]
    # the role and the first token, the second, the end, the usage
    assert said == [("", 1), ("a", 1), ("a", 2), ("", 3), (None, 3)]
    assert {e["model"] for e in events(b"".join(p for p, _ in seen))} == {"a ~ b"}


async def test_time_is_that_of_the_whole_and_teaches_nothing_of_a_member(rig, clock):
    async def slowly():
        await clock.sleep(50.0)

    r = rig(Writer("b", pause=slowly))
    _, receipt = await r.deliver()
    assert {part.ttft_ms for part in receipt.parts} == {receipt.ttft_ms} == {50_000.0}
    assert r.idle()


async def test_the_cap_of_the_decision_holds(rig):
    body, receipt = await rig().deliver(max_tokens=1)
    assert text(body) == "a"
    assert [part.output_tokens for part in receipt.parts] == [1, 1]


async def test_every_member_claims_on_the_account_of_its_machine(rig, clock):
    async def working():
        await clock.sleep(1.0)

    account = EnergyAccount("board", now=clock)
    account.note_reading(MeterReading(0.0, 0.0))
    r = rig(Writer("b", pause=working), accounts={"a": account, "b": account})
    reply = await r.engine.answer(ask())
    account.note_reading(MeterReading(clock(), 60.0))
    async for _ in reply.pieces():
        pass
    a, b = reply.receipt.parts
    assert (a.energy_source, a.energy_scope) == ("measured", "board")
    assert (a.energy_j, b.energy_j) == (30.0, 30.0)
    assert (reply.receipt.energy_j, reply.receipt.energy_source) == (60.0, "measured")
    assert account.waiting == 0


async def test_a_budget_over_time_pays_for_every_member(rig, clock):
    pacer = Pacer([Allowance("energy_j", 3000.0, 1000.0)])
    _, receipt = await rig(pacer=pacer).deliver()
    assert receipt.energy_j > 0
    assert pacer.left(clock()) == (pytest.approx(3000.0 - receipt.energy_j),)


# ---- who leaves


@pytest.mark.parametrize("stream", [True, False])
async def test_who_leaves_pays_for_what_was_made_by_then(rig, stream):
    r = rig()
    reply = await r.engine.answer(ask(stream=stream))
    pieces = reply.pieces()
    for _ in range(2):
        await anext(pieces)
    await pieces.aclose()
    assert reply.receipt.outcome == "cancelled"
    made = r.experts["a"].view.n_asked
    assert 0 < made < 3
    assert [(p.outcome, p.output_tokens) for p in reply.receipt.parts] == [("cancelled", made)] * 2
    assert r.idle()
    await reply.close()


async def test_who_leaves_after_the_end_has_had_everything(rig):
    r = rig()
    reply = await r.engine.answer(ask(stream=True))
    pieces = reply.pieces()
    async for piece in pieces:
        if b"[DONE]" in piece:
            break
    await pieces.aclose()
    assert [p.outcome for p in (reply.receipt, *reply.receipt.parts)] == ["complete"] * 3


async def test_an_answer_that_nobody_reads_is_given_up(rig):
    r = rig()
    reply = await r.engine.answer(ask(stream=True))
    await reply.close()
    await reply.close()
    assert (reply.receipt.outcome, reply.receipt.parts[0].output_tokens) == ("cancelled", 1)
    assert r.idle()


async def test_who_leaves_before_the_first_token_pays_for_the_prompts(rig, clock):
    asked = asyncio.Event()

    async def forever():
        asked.set()
        await asyncio.Event().wait()

    pacer = Pacer([Allowance("energy_j", 3000.0, 1000.0)])
    r = rig(Writer("b", pause=forever), pacer=pacer)
    task = asyncio.create_task(r.engine.answer(ask()))
    await asked.wait()
    assert not r.idle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    prompt_j = r.engine.router.specs["a"].profile.energy_j(ask().prompt_tokens, 0)
    assert pacer.left(clock()) == (pytest.approx(3000.0 - 2 * prompt_j),)
    assert r.idle()


# ---- who fails


async def test_the_others_write_on_without_one_that_fails_before_the_first_token(rig):
    failing = Writer("b", fault=ExpertTimeoutError("b", "silent"))
    r = rig(failing, Writer("d"))
    body, receipt = await r.deliver()
    assert (text(body), json.loads(body)["model"]) == ("aa", "a ~ d")
    assert receipt.failed_over == ("b",)
    assert [part.expert_id for part in receipt.parts] == ["a", "d"]
    assert r.idle()


async def test_where_no_other_can_write_with_it_the_best_answers_alone(rig):
    r = rig(Writer("a", fault=ExpertUnavailableError("a", "not started")))
    body, receipt = await r.deliver()
    assert json.loads(body)["model"] == "b"
    assert (receipt.expert_id, receipt.failed_over, receipt.parts) == ("b", ("a",), ())
    assert r.idle()


async def test_where_all_fail_the_first_error_is_told(rig):
    faults = {name: ExpertUnavailableError(name, "not started") for name in "ab"}
    members = [Writer(name, error=fault, fault=fault) for name, fault in faults.items()]
    r = rig(*members)
    with pytest.raises(ExpertUnavailableError):
        await r.engine.answer(ask(allow=frozenset("ab")))
    assert r.idle()


async def test_who_cannot_say_what_it_expects_is_a_member_that_fails(rig):
    r = rig()
    r.engine.experts = r.experts | {"b": StubExpert("b")}
    _, receipt = await r.deliver()
    assert (receipt.expert_id, receipt.failed_over) == ("a", ("b",))
    assert r.idle()


async def test_what_every_expert_would_refuse_is_not_asked_again(rig):
    r = rig(Writer("b", fault=ExpertRejectedError("b", "HTTP 400", 400, b"too long")))
    with pytest.raises(ExpertRejectedError):
        await r.engine.answer(ask())
    assert r.idle()


async def test_a_field_that_is_wrong_is_the_caller_s_error(rig):
    r = rig()
    with pytest.raises(RequestError) as refused:
        await r.engine.answer(ask(payload={"temperature": "hot"}))
    assert refused.value.param == "temperature"
    assert r.idle()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_failure_in_mid_answer_ends_it_and_says_whose_it_was(rig, stream):
    r = rig(Writer("b", fault=ExpertTimeoutError("b", "silent"), fault_after=2))
    reply = await r.engine.answer(ask(stream=stream))
    error, body = await to_error(reply)
    assert error.expert_id == "b"
    assert reply.receipt.outcome == "failed"
    assert {part.expert_id: part.outcome for part in reply.receipt.parts} == {
        "a": "cancelled",
        "b": "failed",
    }
    assert [part.output_tokens for part in reply.receipt.parts] == [2, 2]
    assert "".join(e["choices"][0]["delta"]["content"] for e in events(body)) == "aa" * stream
    assert r.idle()


async def test_a_crash_leaves_nobody_counted(rig):
    r = rig()
    reply = await r.engine.answer(ask())
    r.experts["b"].view.expecting = ()
    with pytest.raises(IndexError):
        async for _ in reply.pieces():
            pass
    assert {part.outcome for part in reply.receipt.parts} == {"failed"}
    early = rig()
    early.experts["b"].view.expecting = ()
    with pytest.raises(IndexError):
        await early.engine.answer(ask())
    assert r.idle()
    assert early.idle()


async def test_an_absent_member_leaves_the_best_of_the_others(rig):
    r = rig(presence=lambda: {"b": Presence(0, 0)})
    body, receipt = await r.deliver()
    assert (json.loads(body)["model"], receipt.failed_over) == ("a", ())


# ---- under hard limits


def charged(receipt):
    """What the parts of a receipt say, and one request."""
    parts = receipt.parts or (receipt,)
    found = Amounts(requests=1)
    for part in parts:
        tokens = part.prompt_tokens + part.output_tokens
        found = found.plus(Amounts.of(part.energy_j, part.cost_usd, tokens))
    return found


def room_for(engine, name):
    return bound(engine.router.specs[name], ask(), 20).tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_every_member_is_charged_and_the_request_once(rig, memory_store, stream):
    r = rig(store=memory_store())
    _, receipt = await r.deliver(stream=stream, max_tokens=20)
    assert len(receipt.parts) == len(r.engine.store.holds) == 2
    assert r.engine.store.spent == charged(receipt)


async def test_where_one_member_does_not_fit_nobody_writes_and_nothing_is_kept(rig, memory_store):
    r = rig()
    tokens = room_for(r.engine, "a") + room_for(r.engine, "b") - 1
    r.engine.store = store = memory_store(Limit("house", "global", 3600, tokens=tokens))
    reply = await r.engine.answer(ask(max_tokens=20))
    assert store.ended == [(next(iter(store.holds)), NOTHING)]
    assert reply.decision.why.startswith("b: beyond what hard limits leave; ")
    body = b"".join([piece async for piece in reply.pieces()])
    assert json.loads(body)["choices"]
    assert store.spent == charged(reply.receipt)


async def test_who_goes_away_while_a_mixture_is_held_pays_nothing(rig, memory_store):
    r = rig(store=memory_store())
    answering = asyncio.create_task(r.engine.answer(ask(max_tokens=20)))
    for _ in range(2):
        await asyncio.sleep(0)
    assert len(r.engine.store.holds) == 1, "the other one is not held yet"
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert r.engine.store.spent == NOTHING


async def test_a_member_that_is_not_there_leaves_no_hold(rig, memory_store):
    r = rig(Writer("b", fault=ExpertUnavailableError("b", "gone")), store=memory_store())
    _, receipt = await r.deliver(max_tokens=20)
    assert receipt.failed_over == ("b",)
    assert r.engine.store.spent == charged(receipt)


async def test_a_mixture_that_breaks_off_is_charged_as_far_as_it_came(rig, memory_store):
    fault = ExpertUnavailableError("b", "gone")
    r = rig(Writer("b", fault=fault, fault_after=1), store=memory_store())
    reply = await r.engine.answer(ask(max_tokens=20))
    with pytest.raises(ExpertUnavailableError):
        [_ async for _ in reply.pieces()]
    assert [part.outcome for part in reply.receipt.parts] == ["cancelled", "failed"]
    assert r.engine.store.spent == charged(reply.receipt)
