"""Several experts, one answer: who is asked, what is delivered, what is booked. Nobody sleeps."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.answer import chunk, pieces_of
from coe.combine import log_odds, posterior, vote
from coe.core import Budget, Message, Request
from coe.engine import Engine
from coe.errors.experts import ExpertRejectedError, ExpertUnavailableError
from coe.escalation import Escalations
from coe.experts.stub import StubExpert
from coe.load import Presence
from coe.mode import Mode
from coe.optimizer.pacing import Allowance, Pacer
from coe.routers.confidence import Confidence
from coe.routers.habit import Habit

NAMES = ("a", "b", "c", "d")
QUALITY = (0.9, 0.8, 0.7, 0.6)
VOTE = Mode("vote", (NAMES,))


async def turns(n):
    """A pause of ``n`` rounds of the event loop."""
    for _ in range(round(n)):
        await asyncio.sleep(0)


def says(name, text, rounds=1, **fields):
    """An expert that answers in three pieces of a word each; ``rounds`` of the loop a piece."""
    words = [text, *[""] * 2]
    return StubExpert(name, words, token_s=rounds, sleep=turns, **fields)


def fails(name, after=0, error=None):
    error = error or ExpertUnavailableError(name, "not started")
    return says(name, "4", error=error, error_after=after)


def ask(stream=False, **fields):
    payload = {"messages": [{"role": "user", "content": "some code"}], **fields.pop("payload", {})}
    return Request((Message("user", "some code"),), stream=stream, payload=payload, **fields)


@dataclass
class Held:
    """An expert that says one word and then waits for ever."""

    expert_id: str
    n_closed: int = 0
    n_asked: int = 0
    words: int = 1

    async def stream(self, request, max_tokens) -> AsyncIterator[bytes]:
        self.n_asked += 1
        try:
            if self.words:
                yield chunk("held", self.expert_id, {"role": "assistant", "content": ""}, None)
            for _ in range(self.words):
                yield chunk("held", self.expert_id, {"content": "4"}, None)
            await asyncio.Event().wait()
        finally:
            self.n_closed += 1


@dataclass
class Rig:
    engine: Engine
    experts: dict = field(default_factory=dict)

    async def answer(self, **request):
        return await self.engine.answer(ask(**request))

    async def deliver(self, **request):
        """The text that is delivered, and the receipt."""
        reply = await self.answer(**request)
        body = b"".join([piece async for piece in reply.pieces()])
        if request.get("stream"):
            return body, reply.receipt
        return json.loads(body)["choices"][0]["message"]["content"], reply.receipt

    def idle(self):
        """Whether nobody is counted as being asked any more: that would double the time.

        Those who answered in no time at all are taken to be a little faster now.
        """
        return all(
            self.engine.decide(ask(pinned=name)).predicted.ttft_ms <= 100.0 for name in self.experts
        )


@pytest.fixture
def rig(make_spec, make_router, in_mode, clock):
    def build(mode, *experts, **fields):
        experts = {expert.expert_id: expert for expert in experts}
        specs = [make_spec(name) for name in experts]
        router = make_router(specs, [QUALITY[: len(specs)]] * 3)
        return Rig(Engine(in_mode(router, mode), experts, now=clock, **fields), experts)

    return build


# ---- votes


@pytest.mark.parametrize("members", [*itertools.permutations(NAMES[:3])])
async def test_the_order_of_members_decides_nothing(rig, members):
    r = rig(Mode("vote", (members,)), says("a", "5"), says("b", "4"), says("c", "4"))
    text, receipt = await r.deliver()
    assert (text, receipt.expert_id) == ("4", "b")
    assert receipt.agreement.agreeing == ("b", "c")
    assert {part.expert_id for part in receipt.parts} == {*members}


async def test_the_receipt_sums_up_the_parts(rig, make_spec):
    r = rig(VOTE, *(says(name, text) for name, text in zip(NAMES, "5445", strict=True)))
    _, receipt = await r.deliver()
    assert receipt.outcome == "complete"
    assert len(receipt.parts) == 4
    for axis in ("energy_j", "cost_usd", "prompt_tokens", "output_tokens"):
        assert getattr(receipt, axis) == sum(getattr(part, axis) for part in receipt.parts)
    assert {part.decision_id for part in receipt.parts} == {receipt.decision_id}
    assert (receipt.energy_source, receipt.energy_scope) == ("modelled", "board")
    assert receipt.tokens_source == "counted"
    assert r.idle()


async def test_a_vote_of_one_is_that_one_s_answer(rig):
    alone = await rig(Mode.single("a"), says("a", "4")).deliver(stream=True)
    voted = await rig(Mode("vote", (("a",),)), says("a", "4")).deliver(stream=True)
    assert voted[0] == alone[0]
    (part,) = voted[1].parts
    assert replace(part, decision_id=alone[1].decision_id) == alone[1]


async def test_members_are_asked_for_streams_that_state_their_usage(rig):
    r = rig(Mode("vote", (("a", "b"),)), says("a", "4"), says("b", "4"))
    options = {"stream_options": {"chunk": 1}, "temperature": 0.5}
    await r.deliver(payload=options, max_tokens=2)
    for expert in r.experts.values():
        (sent,) = expert.requests
        assert sent.stream
        assert sent.payload["stream"] is True
        assert sent.payload["stream_options"] == {"chunk": 1, "include_usage": True}
        assert sent.payload["temperature"] == 0.5
        assert expert.caps == [2]


async def test_what_can_change_nothing_is_cancelled_and_booked_as_far_as_it_came(rig, make_spec):
    slow = Held("c", words=3)
    r = rig(Mode("vote", (("a", "b", "c"),)), says("a", "4", 9), says("b", "4", 9), slow)
    _, receipt = await r.deliver()
    assert receipt.agreement.cancelled == ("c",)
    parts = {part.expert_id: part for part in receipt.parts}
    assert [parts[name].outcome for name in "abc"] == ["complete", "complete", "cancelled"]
    assert parts["c"].output_tokens == 3
    assert parts["c"].energy_j == make_spec("c").profile.energy_j(parts["c"].prompt_tokens, 3)
    assert slow.n_closed == 1
    assert r.idle()


async def test_who_has_not_begun_is_booked_for_the_prompt(rig):
    slow = Held("c", words=0)
    r = rig(Mode("vote", (("a", "b", "c"),)), says("a", "4"), says("b", "4"), slow)
    _, receipt = await r.deliver()
    (part,) = (part for part in receipt.parts if part.expert_id == "c")
    assert (part.outcome, part.output_tokens) == ("cancelled", 0)
    assert part.energy_j > 0
    assert slow.n_closed == 1
    assert r.idle()


def played(mode, texts):
    """What a mode delivers when nobody is cancelled: the slow way."""
    weights = log_odds(QUALITY)
    for n in itertools.accumulate(len(stage) for stage in mode.stages):
        counted = vote(texts[:n], weights[:n])
        sure = posterior(texts[:n], weights[:n])[counted.winner]
        if n == len(texts) or (mode.kind == "cascade" and sure >= mode.threshold):
            return texts[counted.winner], n
    raise AssertionError("a last stage is the last")


@given(
    st.lists(st.tuples(st.sampled_from("456"), st.integers(1, 20)), min_size=4, max_size=4),
    st.sampled_from([(4,), (1, 3), (2, 2), (3, 1), (1, 2, 1)]),
    st.sampled_from([0.6, 0.8, 0.9, 0.99]),
)
def test_no_order_of_arrival_changes_the_verdict(rig_of, cast, sizes, threshold):
    """Who is slow may be cancelled, but only where that changes nothing."""
    ends = [*itertools.accumulate(sizes)]
    stages = tuple(NAMES[end - size : end] for size, end in zip(sizes, ends, strict=True))
    mode = Mode("cascade" if len(sizes) > 1 else "vote", stages, threshold)
    experts = (says(name, *said) for name, said in zip(NAMES, cast, strict=True))

    async def deliver():
        r = rig_of(mode, *experts)
        text, receipt = await r.deliver()
        assert r.idle()
        return text, receipt

    text, receipt = asyncio.run(deliver())
    parts = {part.expert_id: part.outcome for part in receipt.parts}
    assert (text, len(parts)) == played(mode, [said for said, _ in cast])
    cancelled = {name for name, outcome in parts.items() if outcome == "cancelled"}
    assert cancelled == {*receipt.agreement.cancelled}


@pytest.fixture(scope="session")
def rig_of(make_spec, make_router, in_mode):
    """As `rig`, for many examples: time stands still."""

    def build(mode, *experts):
        specs = [make_spec(expert.expert_id) for expert in experts]
        router = in_mode(make_router(specs, [QUALITY] * 3), mode)
        experts = {expert.expert_id: expert for expert in experts}
        return Rig(Engine(router, experts, now=lambda: 0.0), experts)

    return build


async def test_an_answer_without_the_form_asked_for_has_no_vote(rig):
    r = rig(Mode("vote", (("a", "b"),)), says("a", "5"), says("b", '{"answer": 4}'))
    text, _ = await r.deliver(payload={"response_format": {"type": "json_object"}})
    assert json.loads(text) == {"answer": 4}


async def test_the_surest_waits_for_everyone(rig):
    r = rig(Mode("rank", (("a", "b", "c"),)), says("a", "5"), says("b", "4"), says("c", "4"))
    text, receipt = await r.deliver()
    assert text == "4"
    assert receipt.agreement.cancelled == ()


# ---- cascades

CASCADE = Mode("cascade", (("a",), ("b", "c")), 0.95)


async def test_a_cascade_stops_where_it_is_sure(rig):
    sure = Mode("cascade", CASCADE.stages, 0.85)
    r = rig(sure, says("a", "5"), says("b", "4"), says("c", "4"))
    text, receipt = await r.deliver()
    assert text == "5"
    assert (receipt.agreement.n_stages, receipt.agreement.escalation) == (1, "none")
    assert receipt.agreement.confidence == pytest.approx(0.9)
    assert r.experts["b"].requests == []


async def test_a_cascade_goes_on_where_it_is_not_and_its_first_answer_keeps_its_vote(rig):
    r = rig(CASCADE, says("a", "5"), says("b", "4"), says("c", "5"))
    text, receipt = await r.deliver()
    assert (text, receipt.expert_id) == ("5", "a")
    assert receipt.agreement.agreeing == ("a", "c")
    assert (receipt.agreement.n_stages, receipt.agreement.escalation) == (2, "asked")


async def test_a_stage_of_a_cascade_ends_early_only_if_it_stays_sure(rig):
    lazy = Held("c")
    mode = Mode("cascade", (("a", "b", "c"), ("d",)), 0.8)
    r = rig(mode, says("a", "4"), says("b", "4"), lazy, says("d", "4"))
    _, receipt = await r.deliver()
    assert receipt.agreement.cancelled == ("c",)
    assert receipt.agreement.n_stages == 1
    # at this threshold the third might make it go on, so it is waited for
    unsure = Mode("cascade", mode.stages, 0.97)
    r = rig(unsure, says("a", "4"), says("b", "4"), says("c", "5", 20), says("d", "4"))
    _, receipt = await r.deliver()
    assert receipt.agreement.n_stages == 2


async def test_without_escalations_left_the_first_stage_is_delivered(rig, clock):
    r = rig(CASCADE, says("a", "5"), says("b", "4"), says("c", "4"))
    r.engine.escalations = Escalations(1.0, 1, clock)
    found = [await r.deliver(tenant=tenant) for tenant in ("x", "x", "y")]
    assert [text for text, _ in found] == ["4", "5", "4"]
    said = [receipt.agreement.escalation for _, receipt in found]
    assert said == ["asked", "declined", "asked"]
    await clock.sleep(60.0)
    assert (await r.deliver(tenant="x"))[0] == "4"


async def test_where_the_first_stage_failed_going_on_costs_no_escalation(rig, clock):
    r = rig(CASCADE, fails("a"), says("b", "4"), says("c", "4"))
    r.engine.escalations = Escalations(1.0, 1, clock)
    for _ in range(3):
        text, receipt = await r.deliver()
        assert text == "4"
        assert receipt.failed_over == ("a",)


async def test_a_stage_that_would_be_late_is_not_asked(rig, clock):
    # an answer is predicted to take 1,100 ms
    for elapsed_s, n_stages, why in ((0.5, 2, "asked"), (1.5, 1, "late")):
        first = StubExpert("a", ["5"], token_s=elapsed_s / 4, sleep=clock.sleep)
        r = rig(CASCADE, first, says("b", "4"), says("c", "4"))
        _, receipt = await r.deliver(budget=Budget(latency_ms=2000.0))
        assert (receipt.agreement.n_stages, receipt.agreement.escalation) == (n_stages, why)


# ---- who fails


@pytest.mark.parametrize("after", [0, 2])
async def test_who_fails_is_left_out(rig, after):
    r = rig(Mode("vote", (("a", "b"),)), fails("a", after), says("b", "5", 5))
    text, receipt = await r.deliver()
    assert (text, receipt.expert_id, receipt.outcome) == ("5", "b", "complete")
    assert receipt.failed_over == (() if after else ("a",))
    outcomes = {part.expert_id: part.outcome for part in receipt.parts}
    assert outcomes == ({"a": "failed", "b": "complete"} if after else {"b": "complete"})
    assert r.idle()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("after", [0, 2])
async def test_where_all_fail_the_next_decision_takes_over(rig, stream, after):
    r = rig(Mode("vote", (("a", "b"),)), fails("a", after), fails("b", after), says("c", "5"))
    reply = await r.answer(stream=stream)
    async for _ in reply.pieces():
        pass
    assert reply.receipt.expert_id == "c"
    assert reply.receipt.failed_over == ("a", "b")
    assert reply.decision.why.startswith("a, b did not answer; ")
    assert r.idle()


async def test_where_nobody_is_left_the_first_error_is_raised(rig):
    errors = {name: ExpertUnavailableError(name, f"{name} is down") for name in "ab"}
    r = rig(Mode("vote", (("a", "b"),)), *(fails(n, error=e) for n, e in errors.items()))
    with pytest.raises(ExpertUnavailableError) as raised:
        await r.answer()
    assert raised.value is errors["a"]
    assert r.idle()


async def test_what_every_expert_refuses_is_the_caller_s_to_know(rig):
    refused = [ExpertRejectedError(name, "answered HTTP 400", 400) for name in "ab"]
    r = rig(
        Mode("vote", (("a", "b"),)), *(fails(e.expert_id, error=e) for e in refused), says("c", "4")
    )
    with pytest.raises(ExpertRejectedError):
        await r.answer()
    assert r.experts["c"].requests == []


async def test_a_crash_is_not_hidden_and_leaves_nobody_asked(rig):
    @dataclass
    class Crashing:
        expert_id: str

        async def stream(self, request, max_tokens):
            await turns(3)
            yield [][0]

    slow = Held("b")
    r = rig(Mode("vote", (("a", "b"),)), Crashing("a"), slow)
    with pytest.raises(IndexError):
        await r.answer()
    assert slow.n_closed == 1
    assert r.idle()


async def test_an_expert_whose_copies_are_gone_is_no_member_s_loss(rig):
    r = rig(Mode("vote", (("a", "b"),)), says("a", "4"), says("b", "4"))
    r.engine.presence = lambda: {"a": Presence(1, 3)}
    reply = await r.answer()
    await reply.close()
    stretch = {member.expert_id: member.reply.booking.stretch for member in reply.panel.members}
    assert stretch == {"a": 4.0, "b": 1.0}


# ---- clients that leave


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_while_nothing_is_decided_cancels_everyone(rig, stream):
    held = [Held(name) for name in "abc"]
    r = rig(Mode("vote", (("a", "b", "c"),)), *held)
    asking = asyncio.create_task(r.answer(stream=stream))
    await turns(5)
    assert [expert.n_asked for expert in held] == [1, 1, 1]
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [expert.n_closed for expert in held] == [1, 1, 1]
    assert r.idle()


async def test_a_reply_that_nobody_fetches_is_cancelled_though_its_members_are_done(rig):
    r = rig(Mode("vote", (("a", "b"),)), says("a", "4"), says("b", "4"))
    reply = await r.answer()
    await reply.close()
    assert reply.receipt.outcome == "cancelled"
    assert {part.outcome for part in reply.receipt.parts} <= {"complete", "cancelled"}


async def test_who_leaves_after_the_end_has_had_everything(rig):
    r = rig(Mode("vote", (("a", "b"),)), says("a", "4"), says("b", "4"))
    reply = await r.answer(stream=True)
    pieces = reply.pieces()
    await anext(pieces)
    await pieces.aclose()
    assert reply.receipt.outcome == "complete"


# ---- streams


async def test_a_stream_is_the_elected_events_byte_for_byte(rig):
    r = rig(Mode("vote", (("a", "b"),)), says("a", "4", 5), says("b", "4", 9))
    body, receipt = await r.deliver(stream=True)
    assert body == b"".join(pieces_of("chatcmpl-stub-1", receipt.expert_id, ["4", "", ""]))


@pytest.mark.parametrize("wanted", [True, False])
async def test_usage_is_in_a_stream_only_if_the_caller_asked(rig, wanted):
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 9}}\n\n'

    @dataclass
    class Stating:
        expert_id: str

        async def stream(self, request, max_tokens):
            *said, end = pieces_of("x", self.expert_id, ["4"])
            for piece in (*said, usage, end):
                yield piece

    r = rig(Mode("vote", (("a",),)), Stating("a"))
    payload = {"stream_options": {"include_usage": True}} if wanted else {}
    body, receipt = await r.deliver(stream=True, payload=payload)
    assert (usage in body) is wanted
    assert body.replace(usage, b"") == b"".join(pieces_of("x", "a", ["4"]))
    assert (receipt.output_tokens, receipt.tokens_source) == (9, "stated")
    whole = json.loads(b"".join([p async for p in (await r.answer()).pieces()]))
    assert whole["usage"]["completion_tokens"] == 9


@pytest.mark.parametrize("stream", [True, False])
async def test_where_all_fail_whoever_is_left_answers(rig, stream):
    r = rig(Mode("vote", (("a", "b"),)), fails("a", 3), fails("b", 4), says("c", "5"))
    said, receipt = await r.deliver(stream=stream)
    assert (b"5" if stream else "5") in said
    assert (receipt.expert_id, receipt.failed_over) == ("c", ("a", "b"))
    assert r.idle()


# ---- fusion

FUSE = Mode("fuse", (("a", "b"), ("c",)))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_fusion_is_written_from_the_answers(rig, stream):
    r = rig(FUSE, says("a", "four it is"), says("b", "five it is"), says("c", "4.5"))
    said, receipt = await r.deliver(stream=stream)
    assert (b"4.5" if stream else "4.5") in said
    assert (receipt.expert_id, receipt.outcome) == ("c", "complete")
    (sent,) = r.experts["c"].requests
    quoted, question = sent.payload["messages"]
    assert quoted["content"].index("four it is") < quoted["content"].index("five it is")
    assert question["content"] == "some code"
    assert receipt.agreement.n_stages == 2
    assert [part.expert_id for part in receipt.parts] == ["a", "b", "c"]
    assert r.idle()


async def test_what_is_written_is_passed_on_as_it_comes(rig):
    writer = Held("c", words=2)
    r = rig(FUSE, says("a", "4"), says("b", "4"), writer)
    reply = await r.answer(stream=True)
    pieces = reply.pieces()
    heard = [await anext(pieces) for _ in range(3)]
    assert heard[1] == chunk("held", "c", {"content": "4"}, None)
    await pieces.aclose()
    assert (reply.receipt.outcome, reply.receipt.expert_id) == ("cancelled", "c")
    assert reply.receipt.parts[-1].output_tokens == 2
    assert writer.n_closed == 1
    assert r.idle()


@pytest.mark.parametrize(("stream", "after"), [(True, 0), (False, 0), (False, 3)])
async def test_where_the_writer_fails_the_best_answer_is_delivered(rig, stream, after):
    r = rig(FUSE, says("a", "4"), says("b", "5"), fails("c", after))
    said, receipt = await r.deliver(stream=stream)
    assert (b'"4"' if stream else "4") in said
    assert (receipt.expert_id, receipt.outcome) == ("a", "complete")


async def test_a_writer_that_breaks_off_in_a_stream_is_not_replaced(rig):
    r = rig(FUSE, says("a", "4"), says("b", "5"), fails("c", after=2))
    reply = await r.answer(stream=True)
    with pytest.raises(ExpertUnavailableError):
        [piece async for piece in reply.pieces()]
    assert reply.receipt.outcome == "failed"


@dataclass
class Tearing:
    """A writer whose server cuts the stream where it likes, here within a line."""

    expert_id: str
    pieces: tuple[bytes, ...]
    error: Exception | None = None
    n_asked: int = 0

    async def stream(self, request, max_tokens):
        self.n_asked += 1
        for piece in self.pieces:
            yield piece
        if self.error is not None:
            raise self.error


async def test_a_writer_that_breaks_off_within_its_first_line_is_asked_once(rig):
    torn = Tearing("c", (b'data: {"choi',), ExpertUnavailableError("c", "gone"))
    r = rig(FUSE, says("a", "4"), says("b", "5"), torn)
    body, receipt = await r.deliver(stream=True)
    assert torn.n_asked == 1
    assert b'"4"' in body
    assert receipt.failed_over == ("c",)
    assert r.idle()


async def test_what_is_written_is_passed_on_to_the_last_byte(rig):
    whole = b"".join(pieces_of("x", "c", ["4"])).rstrip()
    r = rig(FUSE, says("a", "4"), says("b", "5"), Tearing("c", (whole[:9], whole[9:])))
    body, receipt = await r.deliver(stream=True)
    assert (body, receipt.outcome) == (whole, "complete")


async def test_where_no_answer_came_the_writer_answers_by_itself(rig):
    r = rig(FUSE, fails("a"), fails("b"), says("c", "4"))
    text, receipt = await r.deliver()
    assert (text, receipt.failed_over) == ("4", ("a", "b"))
    assert len(r.experts["c"].requests[0].payload["messages"]) == 1


async def test_answers_are_cut_to_the_writer_s_context(rig, make_spec):
    long = "x " * 3000 + "the end"
    r = rig(FUSE, says("a", long), says("b", long), says("c", "4"))
    text, _ = await r.deliver(max_tokens=100)
    assert text == "4"
    (sent,) = r.experts["c"].requests
    assert sent.prompt_tokens + 100 <= make_spec("c").context_tokens
    assert sent.payload["messages"][0]["content"].count("the end") == 2


async def test_without_room_for_answers_the_best_is_delivered(rig, make_spec):
    r = rig(FUSE, says("a", "4"), says("b", "4"), says("c", "5"))
    room = make_spec("c").context_tokens - ask().prompt_tokens
    text, _ = await r.deliver(max_tokens=room - 10)
    assert text == "4"
    assert r.experts["c"].requests == []


# ---- budgets over time


async def test_every_part_is_booked_once(rig, clock):
    pacer = Pacer([Allowance("energy_j", 3000.0, 1000.0)])
    r = rig(
        Mode("vote", (("a", "b", "c"),)), says("a", "4"), says("b", "4"), Held("c"), pacer=pacer
    )
    _, receipt = await r.deliver()
    assert pacer.left(clock()) == (pytest.approx(3000.0 - receipt.energy_j),)
    assert len(pacer.state()["sample"]) == 1


# ---- how sure experts are of their own words


@dataclass
class Telling:
    """An expert that says how likely its tokens were, whoever asks for it."""

    expert_id: str
    text: str
    logprob: float
    asked: list = field(default_factory=list)

    async def stream(self, request, max_tokens) -> AsyncIterator[bytes]:
        self.asked.append(request.payload.get("logprobs", False))
        for piece in pieces_of("x", self.expert_id, [self.text], "stop", (3, 2)):
            if self.asked[-1] and self.text.encode() in piece:
                event = json.loads(piece[6:])
                told = {"content": [{"token": self.text, "logprob": self.logprob}]}
                event["choices"][0]["logprobs"] = told
                piece = b"data: " + json.dumps(event).encode() + b"\n\n"
            yield piece


UNSURE = Confidence(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), 0.0)


@pytest.fixture
def telling(rig):
    """Two experts in a mode, of whom ``a`` is as sure as is said, and usually at -0.5."""

    def build(mode, logprob, tells=True, habits=("a",)):
        experts = Telling("a", "4", logprob), Telling("b", "5", -0.5)
        known = {name: Habit(-0.5, 0.25) for name in habits}
        made = rig(mode, *experts, confidence=UNSURE, habits=known)
        specs = {n: replace(s, logprobs=tells) for n, s in made.engine.router.specs.items()}
        made.engine.router = replace(made.engine.router, specs=specs)
        return made

    return build


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("logprob", "n_stages"), [(-0.25, 1), (-0.75, 2)])
async def test_a_cascade_goes_on_where_the_first_expert_is_less_sure_than_usual(
    telling, logprob, n_stages, stream
):
    made = telling(Mode("cascade", (("a",), ("b",)), 0.5), logprob)
    said, receipt = await made.deliver(stream=stream)
    assert receipt.agreement.n_stages == n_stages
    assert made.experts["a"].asked == [True]
    assert "logprob" not in (said.decode() if stream else said)
    if stream:
        assert b'"content": "4"' in said


async def test_they_are_kept_from_whole_answers_too(telling):
    reply = await telling(Mode("cascade", (("a",), ("b",)), 0.5), -0.25).answer()
    body = b"".join([piece async for piece in reply.pieces()])
    assert b"logprob" not in body


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        (Mode("vote", (("a", "b"),)), {}),
        (Mode("rank", (("a", "b"),)), {"tells": False}),
        (Mode("rank", (("a", "b"),)), {"habits": ()}),
    ],
)
async def test_nobody_is_asked_who_cannot_tell_or_where_it_is_of_no_use(telling, mode, more):
    made = telling(mode, -0.25, **more)
    await made.deliver()
    assert [expert.asked for expert in made.experts.values()] == [[False], [False]]


async def test_of_a_rank_all_with_a_habit_are_asked(telling):
    made = telling(Mode("rank", (("a", "b"),)), -1.0, habits=("a", "b"))
    said, receipt = await made.deliver()
    assert (said, receipt.expert_id) == ("5", "b")
    assert [expert.asked for expert in made.experts.values()] == [[True], [True]]
