"""Load on a real gateway: so many requests, streams, refusals, faults, and what came of them.

Every scenario takes how long it lasts, and gives figures with a verdict. Verdicts go by counts, by
CPU time and by ratios; milliseconds of a shared machine are only reported.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from coe.access.keys import digest_of, minted
from coe.services.access.keyfile import KeyFile, KeyRecord
from harness.checker import violations
from harness.client import STAYS, Caller, Leaving, Seen
from harness.gateway import SMALL, Process
from harness.load import plain, poisson
from harness.script import Script
from harness.stage import Stage, ends, stage
from harness.watching import Sample, command_on_core, on_core, slope_mb_per_h, watched

Figures = dict[str, Any]

_OK = ("done", "whole")
# an answer that comes later than this is none
_IN_TIME_S = 2.0
_EXPERT = {"answer_tokens": 1000, "idle_timeout_s": 10.0, "first_token_timeout_s": 10.0}
PEPPER = "a pepper of the tests, which is long enough"
# what an expert can take is not what is measured, but for an outage
_EXPERT |= {"answer_timeout_s": 120.0, "limit": "none"}


@asynccontextmanager
async def gateway_alone(folder: Path, warm: str = "", **more: Any) -> AsyncIterator[Stage]:
    """A gateway on a core of its own, everything else on the other.

    Parameters
    ----------
    warm : key with which its first requests are made; empty: none.
    """
    more = {
        "expert": _EXPERT,
        "store": {"lease_s": 60},
        "run": {"command": command_on_core(0)},
    } | more
    with on_core(1):
        async with stage(folder, own_process=True, **more) as standing:
            first = Caller(standing.gateway.port, "warm", warm)
            await asyncio.gather(*(first.ask(str(n), Script()) for n in range(20)))
            first.close()
            standing.caller.seen += first.seen
            tail = asyncio.create_task(_tailing(standing))
            try:
                yield standing
            finally:
                tail.cancel()
                await asyncio.gather(tail, return_exceptions=True)


def pid_of(standing: Stage) -> int:
    """The gateway's process."""
    assert isinstance(standing.gateway, Process)
    return standing.gateway.pid


def quantiles_ms(seen: Sequence[Seen]) -> dict[str, float]:
    """How long answers took, from when they were due."""
    took_ms = [one.took_s * 1e3 for one in seen if one.end in _OK]
    if not took_ms:
        return {}
    p50, p99 = np.percentile(took_ms, [50, 99])
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def cpu_ms(samples: Sequence[Sample], n: int) -> float:
    """CPU time of a process for each of ``n`` requests."""
    return round((samples[-1].cpu_s - samples[0].cpu_s) * 1e3 / max(1, n), 3)


async def steady(folder: Path, seconds: float, per_s: float = 100.0) -> Figures:
    """Requests at random times: no errors, none lost; what the gateway adds and takes."""
    script = Script(tokens=200, ttft_s=0.02)
    found: Figures = {"per_s": per_s, "seconds": seconds}
    async with gateway_alone(folder) as standing:
        direct = Caller(standing.small.port)
        seen = await poisson(direct, per_s, min(seconds, 30.0), Random(1), plain(script, 0.0), "d")
        direct.close()
        found["direct"] = quantiles_ms(seen)
        standing.small.log.clear()
        for name, model in (("named", SMALL), ("routed", "auto")):
            async with watched(pid_of(standing)) as samples:
                seen = await poisson(
                    standing.caller,
                    per_s,
                    seconds,
                    Random(2),
                    plain(script, 0.0),
                    name,
                    model=model,
                )
            found[name] = quantiles_ms(seen) | {
                "requests": len(seen),
                "ends": ends(seen),
                "cpu_ms_per_request": cpu_ms(samples, len(seen)),
                "rss_mb": round(samples[-1].rss_mb, 1),
            }
        found["violations"] = await broken(standing)
    found["ok"] = not found["violations"] and all(
        found[name]["ends"] == {"whole": found[name]["requests"]} for name in ("named", "routed")
    )
    return found


async def streams(
    folder: Path, seconds: float, n_streams: int = 200, tokens_per_s: float = 10.0
) -> Figures:
    """Streams side by side: every token once and in its order, each with its own check sum."""
    each_s = min(60.0, seconds)
    n_tokens, pace_s = round(each_s * tokens_per_s), 1.0 / tokens_per_s
    script = Script(tokens=n_tokens, pace_s=pace_s)
    async with gateway_alone(folder) as standing:
        seen: list[Seen] = []
        async with watched(pid_of(standing)) as samples:
            ends_s, dice = time.monotonic() + seconds, Random(3)

            async def one(n: int) -> None:
                await asyncio.sleep(dice.random() * pace_s)
                while time.monotonic() < ends_s - each_s / 2:
                    seen.append(await standing.caller.ask(f"s{n}", script, True, model=SMALL))

            await asyncio.gather(*map(one, range(n_streams)))
        gaps_ms = np.array([gap for one in seen for gap in one.gaps_s[1:]]) * 1e3
        wrong = await broken(standing)
        n_whole = sum(len(one.numbers) == n_tokens and one.in_order for one in seen)
    late_ms = gaps_ms - pace_s * 1e3
    return {
        "streams": len(seen),
        "at_once": n_streams,
        "tokens": int(sum(len(one.numbers) for one in seen)),
        "ends": ends(seen),
        "lost_twice_or_out_of_order": len(seen) - n_whole,
        "late_p99_ms": round(float(np.percentile(late_ms, 99)), 2),
        "rss_grown_mb": round(max(s.rss_mb for s in samples) - samples[0].rss_mb, 1),
        "cpu_ms_per_token": cpu_ms(samples, sum(len(one.numbers) for one in seen)),
        "violations": wrong,
        "ok": not wrong and n_whole == len(seen) and ends(seen) == {"done": len(seen)},
    }


async def overload(folder: Path, step_s: float, steps: Sequence[float]) -> Figures:
    """More and more requests, then twice as many as are answered: those still are."""
    draw = plain(Script(tokens=50, ttft_s=0.05), 0.0)
    gateway = {"max_in_flight": 64}
    async with gateway_alone(folder, gateway=gateway) as standing:
        rungs: list[Figures] = []
        for n, per_s in enumerate(steps):
            rungs.append(await rung(standing, per_s, step_s, draw, n))
            if rungs[-1]["good_share"] < 0.9:
                break
        knee = max(rungs, key=lambda found: found["good_per_s"])
        twice = await rung(standing, 2.0 * knee["good_per_s"], step_s, draw, 100)
        after = await rung(standing, 0.5 * knee["good_per_s"], max(2.0, step_s / 2), draw, 101)
        wrong = await broken(standing)
    kept = twice["good_per_s"] / knee["good_per_s"]
    return {
        "steps": rungs,
        "knee_per_s": knee["good_per_s"],
        "twice": twice,
        "after": after,
        "kept": round(kept, 3),
        "violations": wrong,
        "ok": not wrong and kept >= 0.9 and twice["odd"] == 0 and after["good_share"] >= 0.99,
    }


async def rung(stand: Stage, per_s: float, seconds: float, draw: Any, n: int) -> Figures:
    """One rate for a while."""
    async with watched(pid_of(stand)) as samples:
        seen = await poisson(stand.caller, per_s, seconds, Random(n), draw, f"o{n}-")
    good = [one for one in seen if one.end == "whole" and one.took_s <= _IN_TIME_S]
    refused = [(one.ended_s - one.sent_s) * 1e3 for one in seen if one.end == "refused"]
    odd = [one for one in seen if one.end not in ("whole", "refused")]
    return {
        "per_s": round(per_s, 1),
        "good_per_s": round(len(good) / seconds, 1),
        "good_share": round(len(good) / max(1, len(seen)), 4),
        "refused": len(refused),
        "refused_p99_ms": round(float(np.percentile(refused, 99)), 1) if refused else None,
        "odd": len(odd),
        "cpu_ms_per_request": cpu_ms(samples, len(seen)),
        # what a shared machine cannot disturb
        "good_per_cpu_s": round(1000.0 / max(cpu_ms(samples, len(good)), 1e-3), 1),
    } | quantiles_ms(seen)


async def outage(folder: Path, seconds: float, per_s: float = 100.0) -> Figures:
    """All experts refuse for a while: hardly more is asked of them than without retries."""
    async with gateway_alone(folder, expert=_EXPERT | {"limit": "adaptive"}) as standing:
        draw = plain(Script(tokens=8, ttft_s=0.01), 0.3)
        asked = asyncio.create_task(
            poisson(standing.caller, per_s, 3.0 * seconds, Random(5), draw, "x")
        )
        await asyncio.sleep(seconds)
        begins_s = time.monotonic()
        standing.small.script = standing.large.script = Script(status=503)
        await asyncio.sleep(seconds)
        ends_s = time.monotonic()
        standing.small.script = standing.large.script = Script()
        seen = await asked
        wrong = await broken(standing)
    during = [one for one in seen if begins_s <= one.sent_s < ends_s]
    attempts = sum(begins_s <= entry.at_s < ends_s for entry in standing.attested)
    bad_s = [one.sent_s for one in seen if one.end not in _OK and one.sent_s >= ends_s]
    healed_s = max(bad_s, default=ends_s) - ends_s
    ratio = attempts / max(1, len(during))
    return {
        "requests": len(seen),
        "during": len(during),
        "lasted_s": round(ends_s - begins_s, 2),
        "attempts_per_request": round(ratio, 3),
        "retries": attempts - len(during),
        "ends": ends(seen),
        "healed_after_s": round(healed_s, 2),
        "violations": wrong,
        "ok": not wrong and ratio <= 1.15 and healed_s <= 15.0,
    }


async def neighbours(
    folder: Path, seconds: float, n_keys: int = 64, each_s: float = 2.0
) -> Figures:
    """Keys with equal rates, of which one asks ten times as much as the others: they feel nothing.

    Parameters
    ----------
    each_s : seconds between two requests of every other key, at the mean.
    """
    rate = 120.0 / each_s
    shown = keys(folder / "keys.json", n_keys, rate)
    more = {"access": {"keys": str(folder / "keys.json")}}
    run = {"command": command_on_core(0), "environment": {"COE_KEY_PEPPER": PEPPER}}
    draw = plain(Script(tokens=20, ttft_s=0.02), 0.3)
    found: Figures = {"keys": n_keys, "requests_per_minute": rate}
    async with gateway_alone(folder, run=run, warm=shown[0], **more) as standing:
        port = standing.gateway.port
        for name, noisy in (("without", 1.0), ("with", 10.0)):
            callers = [Caller(port, f"{name}{n}-", key) for n, key in enumerate(shown)]
            rates = [(noisy if n == 0 else 1.0) / each_s for n in range(n_keys)]
            said = await asyncio.gather(
                *(
                    poisson(caller, per_s, seconds, Random(n), draw)
                    for n, (caller, per_s) in enumerate(zip(callers, rates, strict=True))
                )
            )
            others = [one for seen in said[1:] for one in seen]
            found[name] = {"noisy": ends(said[0]), "others": ends(others)} | quantiles_ms(others)
            for caller in callers:
                caller.close()
                standing.caller.seen += caller.seen
        found["violations"] = await broken(standing)
    unhurt = set(found["with"]["others"]) <= {*_OK}
    found["p99_ratio"] = round(found["with"]["p99_ms"] / found["without"]["p99_ms"], 2)
    found["ok"] = unhurt and not found["violations"]
    return found


def keys(path: Path, n: int, per_minute: float) -> list[str]:
    """So many keys with this rate each, made and kept at ``path``."""
    file, shown = KeyFile(path, PEPPER.encode()), []
    for _ in range(n):
        key_id, key = minted(secrets.token_bytes)
        digest = digest_of(file.pepper, key).hex()
        # an operator's keys may say whose a request is, and by that it is found again
        file.add(
            KeyRecord(
                id=key_id,
                digest=digest,
                role="admin",
                created_s=0.0,
                requests_per_minute=per_minute,
            )
        )
        shown.append(key)
    return shown


def mixed(dice: Random) -> tuple[Script, bool, Leaving]:
    """Four in ten streamed, one in ten left, one in twenty hit by a fault of its expert."""
    stream, fault, leaves = dice.random() < 0.4, dice.random(), dice.random() < 0.1
    script = Script(tokens=dice.randrange(5, 60), ttft_s=0.02, pace_s=0.01)
    if fault < 0.05:
        broken_ones = [
            Script(status=500),
            Script(status=429),
            Script(tokens=30, after=7, end="fin", pace_s=0.01),
            Script(tokens=30, after=7, end="rst", pace_s=0.01),
            Script(body="<html>no</html>"),
        ]
        script = dice.choice(broken_ones)
    if not leaves:
        return script, stream, STAYS
    return script, stream, dice.choice([Leaving(after_s=0.1), Leaving(after_tokens=3)])


async def soak(folder: Path, seconds: float, per_s: float = 30.0) -> Figures:
    """All sorts of requests for a long time: nothing grows, nothing is held, all adds up.

    Of the last two fifths nothing may grow: in 20 minutes that is when all that is remembered for
    a time, or up to a number, is full.
    """
    async with gateway_alone(folder) as standing:
        async with watched(pid_of(standing), max(1.0, seconds / 300.0)) as samples:
            seen = await poisson(standing.caller, per_s, seconds, Random(7), mixed, "m")
            standing.caller.close()
            # the gateway keeps connections to experts for four seconds, and looks every four
            await asyncio.sleep(min(9.0, max(1.0, seconds / 10.0)))
        wrong = await broken(standing)
        held = [held for held, _ in standing.setup.book().balances.values()]
    late = [s for s in samples if s.at_s > samples[0].at_s + 0.6 * seconds]
    grown_mb = late[-1].rss_mb - late[0].rss_mb
    fds = late[-1].n_fds - samples[0].n_fds
    return {
        "requests": len(seen),
        "ends": ends(seen),
        "rss_mb": [
            round(samples[0].rss_mb, 1),
            round(late[0].rss_mb, 1),
            round(late[-1].rss_mb, 1),
        ],
        "rss_slope_mb_per_h": round(slope_mb_per_h(late), 2),
        "rss_grown_late_mb": round(grown_mb, 2),
        "fds_grown": fds,
        "threads_grown": late[-1].n_threads - samples[0].n_threads,
        "held": [list(amounts) for amounts in held],
        "cpu_ms_per_request": cpu_ms(samples, len(seen)),
        "violations": wrong,
        "ok": not wrong and not any(map(any, held)) and grown_mb <= 4.0 and fds <= 8,
    }


async def _tailing(standing: Stage) -> None:
    """Read the journal now and then, before it drops what is old; callers wait meanwhile."""
    while True:
        await asyncio.sleep(2.0)
        standing.tail()


async def broken(standing: Stage) -> list[str]:
    """What the checker finds, of everything so far; the first of it."""
    await standing.settled()
    return [str(found) for found in violations(standing.history())][:20]
