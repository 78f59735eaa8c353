"""A Redis that dies, stalls, forgets and refuses under load: who is answered, what is spent."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable

import pytest
import redis

from harness.fleet import Fleet, Member, fleet, in_redis
from harness.load import background, plain
from harness.proxy import ByteProxy
from harness.script import Script
from harness.stage import ends

OK = {"done", "whole"}
MUTE = "refused budget_store_unavailable"
QUICK = plain(Script(tokens=3))
# what a request waits for Redis at the most, and what a busy machine adds
PATIENCE_S, BUSY_S = 0.15, 1.0


async def answered(member: Member, within_s: float = 15.0) -> None:
    """Returns when a request is answered."""
    deadline, n = time.monotonic() + within_s, 0
    while (await member.caller.ask(f"ready{n}", Script(tokens=1))).end != "whole":
        assert time.monotonic() < deadline, ends(member.caller.seen)
        n += 1
        await asyncio.sleep(0.05)


async def under_load(
    standing: Fleet, fault: Callable[[], Awaitable[None]], before_s: float = 0.5
) -> None:
    """A fault with 20 requests a second around it, until they are answered again."""
    (member,) = standing.members
    await answered(member)
    async with background(member.caller, draw=QUICK):
        await asyncio.sleep(before_s)
        await fault()
        await answered(member)
        await asyncio.sleep(0.3)


async def test_r01_a_gateway_starts_without_redis_and_grants_its_share(tmp_path, redis_server):
    redis_server.kill()
    async with fleet(tmp_path, redis_server.port, 1, 0.1, ceilings={"requests": 100}) as standing:
        (member,) = standing.members
        said = [await member.caller.ask(f"a{n}", Script(tokens=2)) for n in range(20)]
        assert ends(said) == {"whole": 10, MUTE: 10}
        assert max(seen.took_s for seen in said) < PATIENCE_S + BUSY_S
        redis_server.start()
        await answered(member)
        await standing.checked(alone=0.1)


async def test_r01_a_redis_that_is_killed_under_load_is_told_when_it_is_back(
    tmp_path, redis_server
):
    async def fault():
        redis_server.kill()
        await asyncio.sleep(1.0)
        redis_server.start()

    async with fleet(tmp_path, redis_server.port, 1, 0.01, ceilings={"requests": 1000}) as standing:
        await under_load(standing, fault)
        assert ends(standing.seen).keys() <= {*OK, MUTE}
        await standing.checked(alone=0.01)


@pytest.mark.parametrize("how", ["stopped", "mute", "slow"])
async def test_r02_a_slow_redis_keeps_nobody_waiting(tmp_path, redis_server, how):
    async with fleet(tmp_path, redis_server.port, 1, 0.05, 0.05) as standing:
        (member,) = standing.members
        await answered(member)
        async with background(member.caller, draw=QUICK) as seen:
            if how == "stopped":
                redis_server.signal(signal.SIGSTOP)
            elif how == "mute":
                member.proxy.passing.clear()
            else:
                member.proxy.delay_s = 30.0
            await asyncio.sleep(1.5)
        worst_s = max(one.took_s for one in seen)
        redis_server.signal(signal.SIGCONT)
        member.proxy.passing.set()
        member.proxy.delay_s = 0.0
        member.proxy.cut()
        assert ends(seen).keys() <= {*OK, MUTE}
        assert worst_s < PATIENCE_S + BUSY_S
        await answered(member)
        await standing.checked(alone=0.05)


async def test_r03_a_flush_is_made_good_and_nobody_waits_long(tmp_path, redis_server):
    async def fault():
        spent = in_redis(redis_server.port)
        redis_server.command("FLUSHALL")
        flushed_s = time.monotonic()
        await answered(member)
        # two seconds of grace, and what a busy machine takes to notice
        assert time.monotonic() - flushed_s < 2.0 + 1.5
        now = in_redis(redis_server.port)
        assert all(b >= a for a, b in zip(spent[1], now[1], strict=True))

    async with fleet(tmp_path, redis_server.port) as standing:
        (member,) = standing.members
        await under_load(standing, fault)
        assert ends(standing.seen).keys() <= {*OK, MUTE}
        await standing.checked()


async def test_r04_a_flush_of_scripts_is_seen_by_nobody(tmp_path, redis_server):
    async def fault():
        for _ in range(5):
            redis_server.command("SCRIPT", "FLUSH")
            await asyncio.sleep(0.1)

    async with fleet(tmp_path, redis_server.port, timeout_s=1.0) as standing:
        (member,) = standing.members
        await answered(member)
        n_before = len(standing.seen)
        await under_load(standing, fault)
        assert ends(standing.seen[n_before:]).keys() <= OK
        await standing.checked()


@pytest.mark.parametrize("torn_bytes", [None, 0, 37])
async def test_r05_a_redis_that_restarts_is_told_what_it_lost(tmp_path, redis_server, torn_bytes):
    """Empty, with all of its log, or with a log whose last bytes are torn off."""
    options = () if torn_bytes is None else ("--appendonly", "yes")
    redis_server.kill()
    redis_server.start(*options)

    async def fault():
        redis_server.kill()
        if torn_bytes:
            (log,) = tmp_path.glob("appendonlydir/*.incr.aof")
            log.write_bytes(log.read_bytes()[:-torn_bytes])
        redis_server.start(*options)

    async with fleet(tmp_path, redis_server.port) as standing:
        await under_load(standing, fault)
        assert ends(standing.seen).keys() <= {*OK, MUTE}
        await standing.checked()


async def test_r06_a_failover_to_a_replica_that_lags_loses_nothing(tmp_path, redis_server):
    replica = type(redis_server)(tmp_path / "replica", free_port())
    replica.folder.mkdir()
    replica.start()
    link = ByteProxy(redis_server.port)
    await link.start()
    try:
        # a client that blocks would keep the link from answering
        await asyncio.to_thread(replica.command, "REPLICAOF", "127.0.0.1", str(link.port))

        async def fault():
            # what is written from here on, the replica does not hear of
            link.passing.clear()
            await asyncio.sleep(1.0)
            redis_server.kill()
            await link.stop()
            await asyncio.to_thread(replica.command, "REPLICAOF", "NO", "ONE")
            member.proxy.target = standing.redis_port = replica.port
            member.proxy.cut()

        async with fleet(tmp_path, redis_server.port) as standing:
            (member,) = standing.members
            await answered(member)
            async with background(member.caller, draw=QUICK):
                await eventually_linked(replica)
            await under_load(standing, fault)
            assert ends(standing.seen).keys() <= {*OK, MUTE}
            await standing.checked()
    finally:
        link.passing.set()
        await link.stop()
        replica.kill()


async def eventually_linked(replica, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while "master_link_status:up" not in info(await asyncio.to_thread(replica.command, "INFO")):
        assert time.monotonic() < deadline, "the replica does not follow"
        await asyncio.sleep(0.1)


def info(said) -> str:
    return " ".join(f"{k}:{v}" for k, v in said.items()) if isinstance(said, dict) else str(said)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def busy(server, ends_it: threading.Event) -> None:
    """Run a script that does not end, until it is killed."""
    with redis.Redis(port=server.port) as client:
        try:
            client.eval("while true do end", 0)
        except redis.RedisError:
            ends_it.set()


class Refusals:
    """What makes a Redis refuse, and what mends it."""

    def __init__(self, server):
        self.server, self.over = server, threading.Event()

    def oom(self):
        self.server.command("CONFIG", "SET", "maxmemory", "1")

    def not_oom(self):
        self.server.command("CONFIG", "SET", "maxmemory", "0")

    def readonly(self):
        self.server.command("REPLICAOF", "127.0.0.1", "1")

    def not_readonly(self):
        self.server.command("REPLICAOF", "NO", "ONE")

    def wrongtype(self):
        (self.key,) = self.server.command("KEYS", "coe:*:epoch")
        self.server.command("SET", self.key, "odd")

    def not_wrongtype(self):
        self.server.command("DEL", self.key)

    def busy(self):
        self.server.command("CONFIG", "SET", "busy-reply-threshold", "50")
        threading.Thread(target=busy, args=(self.server, self.over), daemon=True).start()

    def not_busy(self):
        while not self.over.wait(0.1):
            try:
                self.server.command("SCRIPT", "KILL")
            except redis.RedisError:
                continue


@pytest.mark.parametrize("how", ["oom", "readonly", "wrongtype", "busy"])
async def test_r07_a_redis_that_refuses_is_as_one_that_is_down(tmp_path, redis_server, how):
    refusals = Refusals(redis_server)

    async def fault():
        await asyncio.to_thread(getattr(refusals, how))
        n_before = len(member.caller.seen)
        await asyncio.sleep(0.7)
        during = [one for one in member.caller.seen[n_before:] if one.end != "open"]
        assert ends(during).keys() & {MUTE}
        await asyncio.to_thread(getattr(refusals, f"not_{how}"))

    async with fleet(tmp_path, redis_server.port, timeout_s=0.1) as standing:
        (member,) = standing.members
        await under_load(standing, fault)
        assert ends(standing.seen).keys() <= {*OK, MUTE}
        await standing.checked()


async def test_r10_a_gateway_that_is_cut_off_overspends_by_its_share_at_the_most(
    tmp_path, redis_server
):
    sixty = {"requests": 60}
    async with fleet(tmp_path, redis_server.port, 2, 0.1, 1.0, ceilings=sixty) as standing:
        one, two = standing.members
        await asyncio.gather(answered(one), answered(two))
        two.proxy.passing.clear()
        asked = [
            member.caller.ask(f"{n}-{k}", Script(tokens=2))
            for n, member in enumerate(standing.members)
            for k in range(80)
        ]
        said = await asyncio.gather(*asked)
        counts = [ends(said[:80]), ends(said[80:])]
        assert counts[1]["whole"] <= 6, counts
        assert "refused budget_exhausted" in counts[0], counts
        n_whole = sum(seen.end == "whole" for seen in standing.seen)
        assert n_whole <= 60 + 6
        two.proxy.passing.set()
        two.proxy.cut()
        await standing.checked(alone=0.1)
        # healed, both know that nothing is left
        await asyncio.sleep(1.2)
        again = await asyncio.gather(
            *(m.caller.ask(f"again{n}", Script()) for n, m in enumerate(standing.members))
        )
        assert {seen.end for seen in again} == {"refused"}
