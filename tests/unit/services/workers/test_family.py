"""A worker that begins late knows what the others were told; one that hangs is replaced."""

import asyncio
import json
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from coe.config import DATA, Config, load_config
from coe.services.enduring import Enduring
from coe.services.host.watched import Watch
from coe.services.workers import family as family_module
from coe.services.workers.desk import Desk
from coe.services.workers.family import Family, Seat
from coe.services.workers.line import Line

CONFIG = load_config(DATA / "coe.yaml")
REFUSED = {"status": "refused", "config": "abc", "message": "wrong", "left": []}


@asynccontextmanager
async def taken(family, seat, verbs):
    """The worker's end of the line of a seat that it took."""
    ours, theirs = socket.socketpair()
    seat.line = await Line.on(ours, family._verbs(seat, Desk(family._office)))
    line = await Line.on(theirs, verbs)
    listening = [asyncio.create_task(end.run()) for end in (seat.line, line)]
    try:
        yield line
    finally:
        if seat.watching is not None:
            seat.watching.cancel()
        line.writer.close()
        await asyncio.gather(*listening)


def family_of(n_workers):
    seats = [Seat(index) for index in range(n_workers)]
    return Family(CONFIG, None, (), seats, AsyncExitStack(), lambda line: None)


def noting(heard, outcome=REFUSED):
    async def reload():
        heard.append(["reload"])
        return outcome

    return {
        "switch": lambda *words: heard.append(["switch", *words]),
        "refused": lambda said: heard.append(["refused", said["message"]]),
        "reload": reload,
        "pacer": lambda: None,
    }


async def test_what_was_told_while_a_worker_got_ready_is_told_it_then():
    family, first, late = family_of(2), [], []
    async with (
        taken(family, family.seats[0], noting(first)) as one,
        taken(family, family.seats[1], noting(late)) as other,
    ):
        await one.ask("hello")
        one.tell("ready")
        await other.ask("hello")
        one.tell("switch", "small", "ban")
        assert await one.ask("reload") == REFUSED
        assert late == []
        other.tell("ready")
        await other.ask("hello")
        await asyncio.sleep(0)
        assert late == [["switch", "small", "ban"], ["reload"]]


async def test_whoever_was_ready_before_reads_nothing_twice():
    family, heard = family_of(1), []
    async with taken(family, family.seats[0], noting(heard)) as line:
        await line.ask("hello")
        line.tell("ready")
        await line.ask("hello")
        assert heard == []


async def test_what_one_worker_refuses_the_others_hear_of():
    family, first, second = family_of(2), [], []
    async with (
        taken(family, family.seats[0], noting(first)) as one,
        taken(family, family.seats[1], noting(second)) as other,
    ):
        for line in (one, other):
            line.tell("ready")
            await line.ask("hello")
        await other.ask("reload")
        assert (first, second) == ([["reload"]], [["refused", "wrong"]])


async def test_one_that_hangs_keeps_nobody_from_reading():
    family, heard, said = family_of(2), [], []
    family.reads_s, family.say = 0.05, said.append

    async def hang():
        await asyncio.Event().wait()

    async with (
        taken(family, family.seats[0], {**noting([]), "reload": hang}) as one,
        taken(family, family.seats[1], noting(heard)) as other,
    ):
        for line in (one, other):
            line.tell("ready")
            await line.ask("hello")
        assert await other.ask("reload") == REFUSED
        assert (heard, len(said)) == ([["reload"]], 1)
        for task in one._answering:
            task.cancel()


async def test_a_worker_is_told_under_what_the_family_began():
    family = family_of(1)
    async with taken(family, family.seats[0], {}) as line:
        said = (await line.ask("hello"))["config"]
    assert Config.model_validate(json.loads(json.dumps(said))) == CONFIG


# takes its place, and says nothing more; the second as often as it is asked
SILENT = """
import socket, sys
line = socket.socket(fileno=int(sys.argv[sys.argv.index("--line") + 1]))
line.sendall(b'["ready", null]\\n')
while line.recv(4096):
    pass
"""
ANSWERING = """
import json, socket, sys
line = socket.socket(fileno=int(sys.argv[sys.argv.index("--line") + 1]))
line.sendall(b'["ready", null]\\n')
for n, asked in enumerate(line.makefile()):
    if n == 10:
        sys.exit(7)
    line.sendall(json.dumps(["answer", json.loads(asked)[1], "said", None]).encode() + b"\\n")
"""


async def ended(program):
    said = []
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as address:
        seat, command = Seat(0), (sys.executable, "-c", program)
        family = Family(CONFIG, address, command, [seat], AsyncExitStack(), said.append)
        family.pulse_s = 0.05
        return await family._once(seat), said


async def test_a_worker_that_hangs_is_killed():
    code, said = await ended(SILENT)
    assert (code, said) == ("exit code -9", ["worker 0 does not answer any more, and is killed"])


async def test_a_worker_that_answers_is_left_alone():
    assert await ended(ANSWERING) == ("exit code 7", [])


PAGE = """# HELP coe_answers_total Answers.
# TYPE coe_answers_total counter
coe_answers_total 1.0
"""
# says its page once, and ends
PAGED = f"""
import json, socket, sys
line = socket.socket(fileno=int(sys.argv[sys.argv.index("--line") + 1]))
line.sendall(b'["ready", null]\\n')
name = json.loads(next(line.makefile()))[1]
line.sendall(json.dumps(["answer", name, "said", {PAGE!r}]).encode() + b"\\n")
"""


async def test_a_worker_that_ends_while_others_are_asked_for_their_pages_counts_once(monkeypatch):
    monkeypatch.setattr(family_module, "_ASKED_S", 30.0)
    released = asyncio.Event()

    async def late():
        await released.wait()
        return PAGE

    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as address:
        family = family_of(3)
        family.address, family.command = address, (sys.executable, "-c", PAGED)
        family.pulse_s = 60.0
        ending = asyncio.create_task(family._once(family.seats[1]))
        async with (
            taken(family, family.seats[0], {}) as one,
            taken(family, family.seats[2], {"page": late}) as other,
        ):
            other.tell("ready")
            while not (family.seats[1].ready and family.seats[2].ready):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            family.seats[1].page = PAGE
            asking = asyncio.create_task(one.ask("page", PAGE))
            assert await ending == "exit code 0"
            released.set()
            assert "coe_answers_total 3.0" in await asking


READY = """
import socket, sys
line = socket.socket(fileno=int(sys.argv[sys.argv.index("--line") + 1]))
line.sendall(b'["ready", null]\\n')
sys.exit(3)
"""


@pytest.mark.parametrize(
    ("whose", "failing"), [(asyncio, "create_subprocess_exec"), (Family, "_verbs")]
)
async def test_a_worker_that_cannot_be_started_again_is_tried_again(whose, failing, monkeypatch):
    monkeypatch.setattr(family_module, "_RESTARTS", Watch(first_delay_s=0.0))
    said, n_starts = [], 0
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as address:
        seat, command = Seat(0), (sys.executable, "-c", READY)
        family = Family(CONFIG, address, command, [seat], AsyncExitStack(), said.append)
        starting = getattr(whose, failing)

        def start(*given, **more):
            nonlocal n_starts
            n_starts += 1
            if n_starts == 2:
                raise BlockingIOError("no more processes")
            if n_starts == 3:
                family.end(signal.SIGTERM)
            return starting(*given, **more)

        monkeypatch.setattr(whose, failing, start)
        async with asyncio.timeout(20.0):
            await family.run()
    assert said == [
        "worker 0 ended (exit code 3), and is started again",
        "worker 0 ended (nobody foresaw BlockingIOError), and is started again",
    ]


async def test_a_worker_that_cannot_be_talked_to_is_killed_and_gone(monkeypatch):
    monkeypatch.setattr(Family, "_verbs", lambda *given: {}["none"])
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as address:
        seat, command = Seat(0), (sys.executable, "-c", SILENT)
        family = Family(CONFIG, address, command, [seat], AsyncExitStack(), lambda line: None)
        assert await family._once(seat) == "nobody foresaw KeyError"
    assert seat.process.returncode == -9


async def test_what_a_gone_worker_held_is_booked_whatever_fails_beside(monkeypatch):
    booked = []
    monkeypatch.setattr(Desk, "close", lambda desk: booked.append(desk) or 0)
    monkeypatch.setattr(family_module, "departed", None)
    assert (await ended(READY))[0] == "exit code 3"
    assert len(booked) == 1


def test_what_nobody_foresaw_in_the_first_process_is_on_the_page():
    with Enduring("some work of a family"):
        raise ZeroDivisionError
    assert 'coe_unforeseen_total{work="some work of a family"} 1.0' in family_of(1)._own_page()
