"""Experts that leave `coe.yaml` while answers still count on them: nobody notices."""

import asyncio
from dataclasses import dataclass

import pytest

from coe.guard.group import Group
from harness.client import Seen
from harness.copies import copied, tell
from harness.gateway import LARGE, SMALL, Threaded
from harness.script import Script
from harness.stage import Stage, ends, eventually, stage

OTHER = {SMALL: LARGE, LARGE: SMALL}
TOGETHER = {"combine": "always"}
PATIENT = {"first_token_timeout_s": 5.0}


def inside(two: Stage) -> Threaded:
    assert isinstance(two.gateway, Threaded)
    return two.gateway


async def n_tasks() -> int:
    """Of the loop that this runs on, with its own."""
    return len(asyncio.all_tasks())


async def left_out(two: Stage, name: str) -> None:
    """Returns when an expert is in the configuration no more."""
    two.setup.leave_out(name)
    outcome = await inside(two).reloaded()
    assert outcome.status in ("swapped", "unchanged"), outcome
    assert name not in inside(two).runtime.fleet.experts


@dataclass(frozen=True)
class Before:
    """What guards experts, and how many tasks there are, before anybody asks."""

    groups: dict[str, Group]
    n_tasks: int

    @classmethod
    async def of(cls, two: Stage) -> "Before":
        gateway = inside(two)
        groups = dict(gateway.runtime.engine.guards.groups)
        return cls(groups, await gateway.within(n_tasks()))


async def nothing_left(two: Stage, before: Before) -> None:
    """Nobody is in flight or waits any more, by any count; and what is running is what was."""
    gateway = inside(two)
    await two.checked(copies=True)
    loads = gateway.runtime.engine._loads
    assert {name: load.n_in_flight for name, load in loads.items()} == dict.fromkeys(loads, 0)
    for group in before.groups.values():
        assert len(group.line) == 0
        assert {member.n_in_flight for member in group.members.values()} <= {0}
    two.caller.close()
    async with asyncio.timeout(5.0):
        while await gateway.within(n_tasks()) > before.n_tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def asked_by(two: Stage, tag: str, n: int) -> list:
    """The first so many attempts for a request."""
    await eventually(lambda: len(two.attempts(tag)) >= n, f"attempt {n} for {tag}")
    return two.attempts(tag)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cascade_goes_on_to_an_expert_that_has_been_left_out(tmp_path, stream):
    async with stage(tmp_path, policy=TOGETHER, expert=PATIENT) as two:
        before = await Before.of(two)
        # who is asked first fails, so that the second stage is needed whatever an answer is worth
        two.large.script = Script(status=500)
        script, coe = Script(ttft_s=1.0), {"mode": "cascade", "tenant": "c"}
        asked = asyncio.create_task(two.caller.ask("c", script, stream, coe=coe))
        (first,) = await asked_by(two, "c", 1)
        assert first.expert == LARGE
        await left_out(two, SMALL)
        assert first.end == "open"
        seen = await asked
        assert (seen.end, len(seen.numbers)) == ("done" if stream else "whole", 8), seen
        assert [entry.expert for entry in two.attempts("c")] == [LARGE, SMALL]
        gone = await two.caller.ask("gone", Script(), model=SMALL)
        assert (gone.status, gone.code) == (404, "model_not_found")
        await nothing_left(two, before)


@pytest.mark.parametrize("busy", [SMALL, LARGE])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_vote_waits_for_room_at_an_expert_that_has_been_left_out(tmp_path, busy, stream):
    expert = PATIENT | {"slots": 1, "limit": "adaptive"}
    async with stage(tmp_path, policy=TOGETHER, expert=expert) as two:
        before = await Before.of(two)
        long = asyncio.create_task(two.caller.ask("long", Script(ttft_s=1.4), True, model=busy))
        await asked_by(two, "long", 1)
        coe = {"mode": "vote", "tenant": "v"}
        asked = asyncio.create_task(two.caller.ask("v", Script(ttft_s=0.8), stream, coe=coe))
        (first,) = await asked_by(two, "v", 1)
        assert first.expert == OTHER[busy]
        await eventually(lambda: len(before.groups[busy].line) == 1, "a member that waits")
        await left_out(two, busy)
        assert first.end == "open"
        seen = await asked
        assert (seen.end, len(seen.numbers)) == ("done" if stream else "whole", 8), seen
        assert (await long).end == "done"
        await nothing_left(two, before)


async def hedging(stand: Stage) -> None:
    """Returns when a stream that has not begun after a good second is asked for twice."""
    usual = Script(ttft_s=1.2)

    async def one(n: int) -> Seen:
        # a busy machine connects some at a time; all have asked before anybody is answered
        await asyncio.sleep(0.008 * n)
        return await stand.caller.ask(f"k{n}", usual, True, model=LARGE)

    assert ends(await asyncio.gather(*map(one, range(60)))) == {"done": 60}
    (hedges,) = inside(stand).runtime.engine.guards.hedges.values()
    assert (hedges.delay_s or 0.0) > 1.1


@pytest.mark.parametrize("pending", ["none is asked", "both are asked"])
async def test_a_hedge_outlives_the_copies_that_it_counts_on(tmp_path, pending):
    """The supervisor says that copies have gone while a second request is due, or has been made."""
    async with copied(tmp_path, 2, hedge=True) as (stand, supervisor):
        before = await Before.of(stand)
        await hedging(stand)
        asked = asyncio.create_task(stand.caller.ask("late", Script(ttft_s=3.0), True, model=LARGE))
        first = (await asked_by(stand, "late", 1))[0]
        if pending == "both are asked":
            await asked_by(stand, "late", 2)
        # the one that was asked stays, or nobody
        stay = [x for x in (stand.small, stand.large) if x.name == first.expert]
        tell(supervisor, stay if pending == "none is asked" else [])
        presence = inside(stand).runtime.fleet.presence
        n_copies = len(stay) if pending == "none is asked" else 0
        await eventually(lambda: presence()[LARGE].n_copies == n_copies, "the news", 1.5)
        good = stand.setup.config.read_text()
        stand.setup.leave_out(LARGE)
        assert (await inside(stand).reloaded()).status == "refused"
        # another engine serves from here on
        stand.setup.put(good.replace("usd_per_mtok_in: 1.0", "usd_per_mtok_in: 1.5"))
        await inside(stand).reloaded()
        assert inside(stand).runtime.fleet.specs[SMALL].usd_per_mtok_in == 1.5
        assert first.end == "open"
        seen = await asked
        assert (seen.end, len(seen.numbers)) == ("done", 8), seen
        tries = [(e.expert, e.at_s, e.end, e.ended_s) for e in stand.attempts("late")]
        assert len(tries) == (1 if pending == "none is asked" else 2), tries
        await nothing_left(stand, before)
