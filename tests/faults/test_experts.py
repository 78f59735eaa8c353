"""Experts that die, hang, lie and refuse under load: what callers see, and what is booked."""

import asyncio
import time
from random import Random

import pytest

from harness.client import Leaving
from harness.expert import FakeExpert
from harness.gateway import LARGE, SMALL
from harness.load import background, plain, poisson
from harness.script import Script
from harness.stage import Stage, ends, eventually, stage

SOON_S = 0.5
"""How much later than its deadline something may come on a busy machine."""


@pytest.fixture
async def two(tmp_path):
    async with stage(tmp_path) as standing:
        yield standing


async def test_f01_an_expert_killed_before_its_first_byte_is_replaced_once(two: Stage):
    slow = plain(Script(tokens=4, ttft_s=0.2))
    async with background(two.caller, draw=slow) as seen:
        await asyncio.sleep(0.7)
        await two.large.die()
        await asyncio.sleep(1.0)
        await two.large.start()
        await asyncio.sleep(0.3)
    assert ends(seen).keys() <= {"done", "whole"}
    hit = [entry for entry in two.large.log if entry.end == "killed"]
    assert hit, "somebody was hit"
    for entry in hit:
        assert [e.expert for e in two.attempts(entry.tag)] == [LARGE, SMALL]
    await two.checked()


async def test_f02_an_expert_that_fails_at_once_is_soon_asked_no_more(two: Stage):
    two.large.script = Script(status=500)
    seen = await poisson(two.caller, 20.0, 2.0, Random(2), plain(Script(tokens=4, ttft_s=0.02)))
    assert ends(seen).keys() <= {"done", "whole"}
    assert len(seen) > 20
    # five in a row, and who was under way with the fifth
    assert 1 <= len(two.large.log) <= 8
    await two.checked()


@pytest.mark.parametrize("stream", [True, False])
async def test_f03_an_expert_that_never_answers_is_given_up_in_time(tmp_path, stream):
    async with stage(tmp_path, expert={"answer_timeout_s": 2.0}) as two:
        await hung_up_on(two, stream)


async def hung_up_on(two: Stage, stream: bool) -> None:
    async with background(two.caller) as seen:
        hung = await two.caller.ask("hung", Script(ttft_s=60.0), stream, model=SMALL)
    deadline_s = 1.0 if stream else 2.0
    assert (hung.status, hung.code) == (504, "upstream_timeout")
    assert deadline_s <= hung.took_s < deadline_s + SOON_S
    (attempt,) = two.attempts("hung")
    await eventually(lambda: attempt.end == "gone", "the end of the connection", 1.0)
    assert ends(seen).keys() <= {"done", "whole"}
    history = await two.checked()
    (hold,) = history.holds["hung"]
    # what it did nobody knows
    assert (hold.status, hold.booked) == ("estimated", hold.hold)


@pytest.mark.parametrize("k", [0, 5])
async def test_f04_a_stream_that_stalls_ends_in_an_error_event(two: Stage, k):
    async with background(two.caller) as seen:
        script = Script(tokens=20, after=k, end="stall")
        stalled = await two.caller.ask("stalled", script, True, model=SMALL)
    assert (stalled.end, len(stalled.numbers)) == ("error", k)
    assert stalled.code == "upstream_timeout"
    assert stalled.took_s < 0.5 + SOON_S
    assert ends(seen).keys() <= {"done", "whole"}
    history = await two.checked()
    (hold,) = history.holds["stalled"]
    assert hold.status == "estimated"


async def broken(two: Stage, end: str, n_tokens: int = 50) -> list:
    """A stream for every place that it can break at, all at once."""
    asked = [
        two.caller.ask(f"k{k}", Script(n_tokens, pace_s=0.002, after=k, end=end), True)
        for k in range(1, n_tokens + 1)
    ]
    async with background(two.caller) as seen:
        cut = await asyncio.gather(*asked)
    assert ends(seen).keys() <= {"done", "whole"}
    return cut


@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_f06_a_stream_that_breaks_after_any_token_is_no_success(two: Stage, end):
    cut = await broken(two, end)
    assert ends(cut) == {"error expert_unavailable": 50}
    history = await two.checked()
    for k, seen in enumerate(cut, 1):
        first, *again = two.attempts(seen.tag)
        # nobody is asked again, unless a reset took with it whatever had been sent
        assert end == "rst" or not again
        for second in again:
            assert (second.expert, len(again)) == (({LARGE, SMALL} - {first.expert}).pop(), 1)
            assert seen.first_s is None or seen.first_s > second.at_s
        assert len(seen.numbers) <= k
        # of a kept connection that was closed just then, nobody knows whether it had asked
        held = [hold.status for hold in history.holds[seen.tag]]
        assert set(held) == {"estimated"}
        assert 1 + len(again) <= len(held) <= 2
    # what a broken connection has not delivered yet is lost, and that is no more than a few
    assert sum(len(seen.numbers) for seen in cut) > 0.8 * sum(range(51))


async def test_f06_a_killed_expert_breaks_streams_wherever_they_are(two: Stage):
    script = Script(tokens=60, pace_s=0.02)
    asked = []
    for n in range(50):
        asked.append(asyncio.create_task(two.caller.ask(f"s{n}", script, True, model=SMALL)))
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    await two.small.die()
    cut = await asyncio.gather(*asked)
    assert ends(cut) == {"error expert_unavailable": 50}
    assert len({len(seen.numbers) for seen in cut}) > 10
    history = await two.checked()
    for seen in cut:
        (entry,), (hold,) = two.attempts(seen.tag), history.holds[seen.tag]
        assert hold.status == "estimated"
        assert len(seen.numbers) <= entry.written


async def test_f08_when_all_experts_fail_it_is_said_at_once_and_over_at_once(two: Stage):
    two.small.script = two.large.script = Script(status=500)
    async with background(two.caller, draw=plain(Script(tokens=4))) as seen:
        await eventually(
            lambda: sum(one.end == "refused" for one in two.caller.seen) > 5, "refusals"
        )
        two.small.script = two.large.script = Script()
        healed_s = time.monotonic()
        await asyncio.sleep(0.8)
    refused = [one for one in seen if one.end == "refused"]
    assert {one.status for one in refused} <= {502, 503}
    assert max(one.took_s for one in refused) < SOON_S
    assert [one for one in seen if one.sent_s > healed_s + 0.5 and one.end == "refused"] == []
    await two.checked()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_f10_who_refuses_is_replaced_and_who_is_named_is_believed(two: Stage, status):
    two.large.script = Script(status=status)
    seen = await poisson(two.caller, 20.0, 0.7, Random(status), plain(Script(tokens=4)))
    assert ends(seen).keys() <= {"done", "whole"}
    assert all(len(two.attempts(one.tag)) <= 2 for one in seen)
    named = await two.caller.ask("named", Script(), model=LARGE)
    assert named.end == "refused"
    assert named.status == (429 if status == 429 else 502)
    assert len(two.attempts("named")) == 1
    await two.checked()


LATER = ["1", "0", "-1", "3.5", "1000000000", "abc", "", "Fri, 31 Dec 9999 23:59:59 GMT"]
LATER += ["Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 32 Foo 2026 99:99:99 GMT"]


async def test_f11_no_retry_after_keeps_a_caller_waiting(two: Stage):
    for n, value in enumerate([*LATER, None]):
        fields = [["retry-after", v] for v in ([value] if value is not None else ["1", "abc"])]
        script = Script(status=503, headers=fields)
        for model in ("auto", SMALL):
            seen = await two.caller.ask(f"{model}-{n}", script, model=model)
            assert (seen.end, seen.status // 100) == ("refused", 5)
            assert seen.took_s < 2.0
    again = await eventually_answered(two)
    assert again.end == "whole"
    await two.checked()


async def eventually_answered(two: Stage, within_s: float = 15.0):
    """The first answer; refusals of before do not count."""
    deadline, n = time.monotonic() + within_s, 0
    while True:
        seen = await two.caller.ask(f"again{n}", Script())
        if seen.end == "whole" or time.monotonic() > deadline:
            return seen
        n += 1
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_f13_redirects_are_not_followed_and_no_key_is_sent(tmp_path, monkeypatch, status):
    monkeypatch.setenv("FAULTS_KEY", "sk-canary")
    trap = FakeExpert("trap")
    await trap.start()
    async with stage(tmp_path, expert={"api_key_env": "FAULTS_KEY"}) as two:
        for n, place in enumerate([f"{trap.url}/chat/completions", "http://169.254.169.254/"]):
            script = Script(status=status, headers=[["location", place]], body="")
            for stream in (True, False):
                seen = await two.caller.ask(f"r{n}{stream}", script, stream)
                assert (seen.status, seen.code) == (502, "upstream_redirect")
                assert "sk-canary" not in str(seen)
        assert {entry.authorization for entry in two.attested} == {"bearer sk-canary"} or {
            entry.authorization for entry in two.attested
        } == {"Bearer sk-canary"}
        await two.checked()
    assert trap.log == []
    await trap.die()


PHASES = {
    "before the end of its body": (Script(), True, Leaving(in_body=True)),
    "before the first byte of a stream": (Script(ttft_s=5.0), True, Leaving(after_s=0.2)),
    "before the first byte": (Script(ttft_s=5.0), False, Leaving(after_s=0.2)),
    "in the middle of a stream": (Script(40, pace_s=0.02), True, Leaving(after_tokens=7)),
    "in the middle of an answer": (Script(40, pace_s=0.02), False, Leaving(after_s=0.3)),
    "with the last token": (Script(12, pace_s=0.01), True, Leaving(after_tokens=12)),
}


@pytest.mark.parametrize("phase", PHASES)
async def test_f26_an_expert_is_stopped_when_its_caller_leaves(two: Stage, phase):
    script, stream, leaving = PHASES[phase]
    async with background(two.caller) as seen:
        gone = await asyncio.gather(
            *(two.caller.ask(f"g{n}", script, stream, leaving=leaving) for n in range(20))
        )
        await eventually(
            lambda: all(e.end != "open" for e in two.attested if e.tag[0] == "g"), "their end", 2.0
        )
    assert ends(gone) == {"left": 20}
    assert ends(seen).keys() <= {"done", "whole"}
    if leaving.in_body:
        assert [entry for entry in two.attested if entry.tag[0] == "g"] == []
    await two.checked()


async def test_f04_comments_keep_no_stream_alive(two: Stage):
    """What only beats, before its first token or after some, is as silent as what stalls."""
    async with background(two.caller) as seen:
        beats = await asyncio.gather(
            *(
                two.caller.ask(f"beat{k}", Script(20, after=k, end="beat"), True, model=SMALL)
                for k in (0, 4)
            )
        )
    assert ends(seen).keys() <= {"done", "whole"}
    for k, one in zip((0, 4), beats, strict=True):
        assert len(one.numbers) == k
        assert one.end in ("error", "refused")
        assert one.code == "upstream_timeout"
        assert one.took_s < 1.5 + SOON_S
    history = await two.checked()
    assert {hold.status for tag in ("beat0", "beat4") for hold in history.holds[tag]} == {
        "estimated"
    }


WHOLE = '{"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, '
WHOLE += '"finish_reason": "stop"}]'
LIES = {
    "a page": Script(body="<html>busy</html>"),
    "an error": Script(body='{"error": {"message": "no", "type": "x", "code": null}}'),
    "nothing": Script(body=""),
    "less than it states": Script(body=WHOLE + "}", length=4000),
    "half a document": Script(body=WHOLE),
    "compressed": Script(body=WHOLE + "}", headers=[["content-encoding", "gzip"]]),
    "much too much": Script(body='"' + "x" * 300_000 + '"'),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("stream", [True, False])
async def test_f12_what_is_no_answer_is_not_passed_on(tmp_path, lie, stream):
    async with stage(
        tmp_path, expert={"max_answer_bytes": 200_000, "answer_timeout_s": 2.0}
    ) as two:
        two.small.script = two.large.script = LIES[lie]
        seen = await two.caller.ask("lie", Script(), stream)
        assert seen.end in ("refused", "error", "broken"), seen
        assert seen.status in (200, 502) if stream else seen.status == 502
        assert len(two.attempts("lie")) <= 2
        two.small.script = two.large.script = Script()
        assert (await two.caller.ask("truth", Script(), stream)).end in ("done", "whole")
        await two.checked()


USAGES = {
    "negative": {"prompt_tokens": -5, "completion_tokens": -1},
    "huge": {"prompt_tokens": 2**60, "completion_tokens": 2**60},
    "text": {"prompt_tokens": "7", "completion_tokens": "many"},
    "zero": {"prompt_tokens": 0, "completion_tokens": 0},
    "parts of tokens": {"prompt_tokens": 1.5, "completion_tokens": 2.5},
    "not numbers": {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
    "null": {"prompt_tokens": None, "completion_tokens": None},
    "missing": None,
}


@pytest.mark.parametrize("usage", USAGES)
@pytest.mark.parametrize("stream", [True, False])
async def test_f12_a_usage_that_cannot_be_is_counted_anew(two: Stage, usage, stream):
    seen = await two.caller.ask("odd", Script(8, usage=USAGES[usage]), stream)
    assert (seen.end, len(seen.numbers)) == ("done" if stream else "whole", 8)
    await two.gateway.flushed()
    history = two.history()
    (hold,) = [told for told in history.holds["odd"] if told.status != "released"]
    assert 0 <= hold.booked[2] <= hold.hold[2]
    if usage != "zero":
        assert hold.status == "estimated"
        assert hold.booked[2] >= (8 if stream else 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_f16_an_expert_that_writes_on_is_cut_at_its_cap(two: Stage, stream):
    script = Script(300, caps=False, pace_s=0.001)
    seen = await two.caller.ask("long", script, stream, model=SMALL, max_tokens=30)
    history = await two.checked()
    (hold,) = history.holds["long"]
    if stream:
        assert (seen.end, seen.finish) == ("done", "length")
        # a chunk more at the most
        assert 30 <= len(seen.numbers) <= 30 + 64
        assert hold.booked[2] - hold.hold[2] <= 64
    # what it states cannot be, by its cap
    assert hold.status == "estimated"
