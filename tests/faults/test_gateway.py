"""Gateways that are ended, killed, starved of disk and read slowly: what they lose of it."""

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.client import Leaving
from harness.gateway import SMALL, Process
from harness.load import background, plain
from harness.script import Script
from harness.stage import Stage, ends, eventually, stage
from harness.watching import sample

QUICK = plain(Script(tokens=3))
PRLIMIT = shutil.which("prlimit")


def own(gateway) -> Process:
    assert isinstance(gateway, Process)
    return gateway


# of the gateway's waits for experts, whose process is that of all callers, too
PATIENT = {"first_token_timeout_s": 10.0, "idle_timeout_s": 10.0}


async def streams(two: Stage, n: int, script: Script, name: str = "s") -> list[asyncio.Task]:
    """So many streams on their way, all of which have begun."""
    asked = [
        asyncio.create_task(two.caller.ask(f"{name}{k}", script, True, model=SMALL))
        for k in range(n)
    ]
    begun = [seen for seen in two.caller.seen if seen.tag.startswith(name)]
    await asyncio.sleep(0)
    await eventually(
        lambda: (
            sum(seen.first_s is not None for seen in two.caller.seen if seen.tag.startswith(name))
            == n
        ),
        f"the beginning of {n} streams, {len(begun)} asked",
        30.0,
    )
    return asked


async def test_f17_a_gateway_that_is_ended_loses_no_stream_that_can_end(tmp_path):
    gateway = {"drain_accept_s": 0.5, "drain_answers_s": 2.0}
    async with stage(tmp_path, own_process=True, gateway=gateway, expert=PATIENT) as two:
        short = await streams(two, 50, Script(40, pace_s=0.03), "short")
        long = await streams(two, 50, Script(64, pace_s=0.25), "long")
        ended_s = time.monotonic()
        own(two.gateway).signal(signal.SIGTERM)
        seen_short, seen_long = await asyncio.gather(*short), await asyncio.gather(*long)
        assert await own(two.gateway).ended(15.0) == 0
        assert ends(seen_short) == {"done": 50}
        assert ends(seen_long) == {"error shutting_down": 50}
        assert min(seen.ended_s for seen in seen_long) - ended_s > 2.0
        history = await two.checked()
        assert all(
            told.status == "estimated" for seen in seen_long for told in history.holds[seen.tag]
        )


async def test_f17_a_second_signal_ends_the_wait(tmp_path):
    async with stage(tmp_path, own_process=True, gateway={"drain_accept_s": 2.0}) as two:
        asked = await streams(two, 20, Script(64, pace_s=0.25))
        own(two.gateway).signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        own(two.gateway).signal(signal.SIGTERM)
        before_s = time.monotonic()
        await own(two.gateway).ended(10.0)
        assert time.monotonic() - before_s < 3.0
        assert ends(await asyncio.gather(*asked)).keys() <= {"error shutting_down", "broken"}
        await two.checked()


async def test_f18_a_gateway_killed_amid_streams_forgets_none_of_them(tmp_path):
    async with stage(tmp_path, own_process=True, expert=PATIENT) as two:
        asked = await streams(two, 200, Script(60, pace_s=0.1))
        await own(two.gateway).kill()
        cut = await asyncio.gather(*asked)
        assert ends(cut) == {"broken": 200}
        two.caller.close()
        before = two.setup.book()
        await own(two.gateway).start()
        # leases are over after two seconds
        again = await two.caller.ask("again", Script())
        assert again.end == "whole"
        await two.settled()
        after = two.setup.book()
        assert after.rows[: len(before.rows)] == before.rows
        # who was asked nobody knows any more: every one is booked whole, and once
        history = await two.checked()
        for seen in cut:
            (hold,) = history.holds[seen.tag]
            assert (hold.status, hold.booked) == ("expired", hold.hold)
        spent = sum(h.booked[2] for seen in cut for h in history.holds[seen.tag])
        assert spent >= sum(e.prompt_tokens + e.written for e in two.attested if e.tag[0] == "s")


@contextmanager
def full_disk(folder: Path, kib: int):
    """A file system of so many KiB at ``folder``, of which all is taken at first."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    made = subprocess.run(["mount", *options], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_f21_a_full_disk_refuses_what_is_new_and_keeps_what_runs(tmp_path):
    disk = tmp_path / "disk"
    with full_disk(disk, 1024):
        store = {"path": str(disk / "ledger.sqlite"), "lease_s": 60}
        async with stage(tmp_path, own_process=True, store=store) as two:
            running = await streams(two, 20, Script(30, pace_s=0.1))
            fill(disk / "junk")
            refused = [await two.caller.ask(f"full{n}", Script(2)) for n in range(30)]
            said = ends(refused)
            assert said["refused budget_store_unavailable"] >= 20, said
            assert {seen.status for seen in refused[-10:]} == {503}
            assert max(seen.took_s for seen in refused) < 2.0
            assert ends(await asyncio.gather(*running)) == {"done": 20}
            (disk / "junk").unlink()
            await answered(two)
            await eventually(lambda: nothing_held(two, disk / "ledger.sqlite"), "all to be kept")
            assert await own(two.gateway).stop() == 0
            shutil.copy(disk / "ledger.sqlite", two.setup.journal)
            await two.checked()


def nothing_held(two: Stage, path: Path) -> bool:
    from harness.dump import dumped

    return not any(any(held) for held, _ in dumped(path, two.setup.limits).balances.values())


def fill(path: Path) -> None:
    """Take all that is left of a disk."""
    with path.open("wb", buffering=0) as junk:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    junk.write(b"x" * size)
            except OSError:
                continue


async def answered(two: Stage, within_s: float = 15.0) -> None:
    """Returns when a request is answered."""
    deadline = time.monotonic() + within_s
    while (await two.caller.ask("ready", Script(1))).end != "whole":
        assert time.monotonic() < deadline, ends(two.caller.seen)
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("output", "reader"), [("stdout", "closed"), ("stdout", "stopped"), ("stderr", "closed")]
)
async def test_f22_nobody_reads_what_a_gateway_says(tmp_path, output, reader):
    """What it writes to is a pipe whose reader has gone, or never reads."""
    out, into = os.pipe()
    # a page: some lines of the log
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    logging = {"format": "json", "level": "debug"}
    run = {output: into, "port": free_port()}
    try:
        async with stage(tmp_path, own_process=True, logging=logging, run=run) as two:
            if reader == "closed":
                os.close(out)
            async with background(two.caller, 40.0, QUICK) as seen:
                await asyncio.sleep(1.0)
            assert ends(seen).keys() <= {"done", "whole"}
            assert await own(two.gateway).stop() == 0
            await two.checked()
    finally:
        os.close(into)
        if reader == "stopped":
            os.close(out)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_f24_without_file_descriptors_who_is_in_stays_in(tmp_path):
    if PRLIMIT is None:
        pytest.skip("there is no prlimit")
    run = {"command": [PRLIMIT, "--nofile=160"]}
    async with stage(tmp_path, own_process=True, run=run) as two:
        running = await streams(two, 20, Script(40, pace_s=0.1))
        port = two.gateway.port
        crowd = await asyncio.gather(*(idle(port) for _ in range(200)))
        before = sample(own(two.gateway).pid)
        await asyncio.sleep(1.0)
        after = sample(own(two.gateway).pid)
        assert after.n_fds <= 160
        # it does not go round in circles for want of one
        assert after.cpu_s - before.cpu_s < 0.7
        assert ends(await asyncio.gather(*running)) == {"done": 20}
        for writer in crowd:
            if writer is not None:
                writer.close()
        await answered(two)
        await two.checked()


async def idle(port: int) -> asyncio.StreamWriter | None:
    """A connection that asks nothing; ``None`` where it was not let in."""
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return None
    return writer


async def test_f28_files_that_change_all_the_time_fail_nobody(tmp_path):
    async with stage(tmp_path, own_process=True) as two:
        good = two.setup.config.read_text()
        kinds = [
            good.replace("usd_per_mtok_in: 1.0", "usd_per_mtok_in: 1.5"),
            "experts: [",
            good.replace("slots: 256", "slots: 200"),
            good.replace("kind: http", "kind: nonsense"),
            good,
        ]
        async with background(two.caller, 50.0, QUICK) as seen:
            for text in kinds:
                two.setup.put(text)
                own(two.gateway).signal(signal.SIGHUP)
                await asyncio.sleep(0.7)
        assert ends(seen).keys() <= {"done", "whole"}
        names = {one.headers["x-coe-config"] for one in seen}
        assert len(names) == 3
        await two.checked()


async def test_f27_a_slow_reader_fills_no_memory(tmp_path):
    expert = {"answer_timeout_s": 30.0, "answer_tokens": 90_000, "context_tokens": 99_000}
    async with stage(tmp_path, own_process=True, expert=expert) as two:
        await two.caller.ask("warm", Script(64), True, model=SMALL)
        before_mb = sample(own(two.gateway).pid).rss_mb
        script = Script(90_000)
        async with background(two.caller, draw=QUICK) as seen:
            slow = await asyncio.gather(
                *(
                    two.caller.ask(
                        f"slow{n}",
                        script,
                        True,
                        model=SMALL,
                        leaving=Leaving(after_s=3.0),
                        slowly_bps=1024.0,
                    )
                    for n in range(2)
                )
            )
        grown_mb = sample(own(two.gateway).pid).rss_mb - before_mb
        assert ends(slow) == {"left": 2}
        assert ends(seen).keys() <= {"done", "whole"}
        entries = [entry for entry in two.attested if entry.tag.startswith("slow")]
        # of some twenty megabytes each, no more was written than the sockets between hold
        assert max(entry.written for entry in entries) < 90_000
        assert grown_mb < 5.0
        await two.checked()
