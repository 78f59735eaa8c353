"""What experts that lie, break off or do not stop come to: raw bytes over a real socket."""

import asyncio
import gzip
import json
import time
from random import Random

import pytest

from coe.answer import DONE, completion, pieces_of
from coe.core import Message, Request
from coe.errors.experts import (
    ExpertError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.experts.http import HttpExpert
from coe.http.pool import Pool

TOKENS = ["Grüße", " 世界", "."]
EVENTS = list(pieces_of("c", "up", TOKENS))
BODY = b"".join(EVENTS)
WHOLE = completion("c", "up", "Hello", 3, 1, "stop")
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def head(n_bytes, *more):
    lines = [
        "HTTP/1.1 200 OK",
        f"content-length: {n_bytes}",
        "content-type: application/json",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def chunked(piece):
    return b"%x\r\n%s\r\n" % (len(piece), piece)


class Wire:
    """Sends ``parts`` to whoever asks: bytes as they are, numbers as seconds of silence."""

    def __init__(self):
        self.parts, self.heads, self.n_connections, self.ends = [], [], 0, []
        self.hang = False

    async def serve(self, reader, writer):
        self.n_connections += 1
        try:
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(asked)
                sized = dict(line.split(b": ", 1) for line in asked.lower().split(b"\r\n")[1:-2])
                await reader.readexactly(int(sized.get(b"content-length", 0)))
                for part in self.parts:
                    if isinstance(part, bytes):
                        writer.write(part)
                        await writer.drain()
                    else:
                        await asyncio.sleep(part)
                if b"connection: close" in b"".join(p for p in self.parts if isinstance(p, bytes)):
                    break
                if self.hang:
                    await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ends.append(time.monotonic())
            writer.close()


@pytest.fixture
async def wire():
    served = Wire()
    async with await asyncio.start_server(served.serve, "127.0.0.1", 0) as server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield served


@pytest.fixture
async def ask(wire):
    async with Pool() as client:

        async def asked(stream=True, max_tokens=None, **more):
            limits = {"first_token_timeout_s": 0.4, "idle_timeout_s": 0.4, "answer_timeout_s": 5.0}
            expert = HttpExpert("up", client, wire.url, **limits | more)
            request = Request((Message("user", "Hi"),), stream=stream, payload={"stream": stream})
            out = []
            try:
                async for piece in expert.stream(request, max_tokens):
                    out.append(piece)
            except ExpertError as error:
                return b"".join(out), error
            return b"".join(out), None

        yield asked


async def test_a_stream_cut_anywhere_is_the_whole_one_or_an_error(wire, ask):
    """The cut looks like a proper end to HTTP: only the end mark tells."""
    for cut in range(len(BODY) + 1):
        wire.parts = [STREAM, BODY[:cut]]
        body, error = await ask()
        if error is None:
            assert body == BODY
        else:
            assert BODY.startswith(body), cut
            assert not body.endswith(DONE), cut


async def test_a_stream_in_two_parts_is_the_whole_one_wherever_it_is_parted(wire, ask):
    for cut in range(0, len(BODY), 7):
        wire.parts = [CHUNKED, chunked(BODY[:cut]) if cut else b"", 0.001]
        wire.parts += [chunked(BODY[cut:]), b"0\r\n\r\n"]
        assert await ask() == (BODY, None)
    assert wire.n_connections == 1


async def test_events_pass_before_the_next_one_is_there(wire, ask):
    wire.parts = [CHUNKED, chunked(EVENTS[0]), 1.0, chunked(BODY[len(EVENTS[0]) :]), b"0\r\n\r\n"]
    async with Pool() as client:
        request = Request((Message("user", "Hi"),), stream=True, payload={"stream": True})
        pieces = HttpExpert("up", client, wire.url).stream(request, None)
        started = time.monotonic()
        assert await anext(pieces) == EVENTS[0]
        assert time.monotonic() - started < 0.8
        await pieces.aclose()


@pytest.mark.parametrize(
    "parts",
    [
        [head(15), b"<html>no</html>"],
        [head(5, "x-a: b"), b"  \r\n "],
        [head(0)],
        [head(29), b'{"error": {"message": "hm..."}}'[:29]],
        [head(31), b'{"error": {"message": "hm..."}}'],
        [head(len(WHOLE) - 9), WHOLE[:-9]],
        [head(len(WHOLE) + 9, "connection: close"), WHOLE],
        [head(2), b"[]"],
        [head(14), b'{"choices":[]}'],
        [head(15), b'{"choices":[7]}'],
        [head(1_000_000, "connection: close"), b" " * 1_000_000],
        [head(len(gzip.compress(WHOLE)), "content-encoding: gzip"), gzip.compress(WHOLE)],
        [head(2, "x-long: " + "a" * 100_000), b"{}"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 5,5\r\nconnection: close\r\n\r\nhello"],
    ],
    ids="html blank empty cut error truncated short array none odd long gzip head 5,5".split(),
)
async def test_what_is_no_answer_does_not_begin(wire, ask, parts):
    wire.parts = parts
    body, error = await ask(stream=False, max_answer_bytes=500_000)
    assert (body, type(error), error.code) == (b"", ExpertUntrustedError, "upstream_invalid")


async def test_a_compressed_bomb_is_not_even_read(wire, ask):
    wire.parts = [head(10**9, "content-encoding: gzip"), gzip.compress(b"\0" * 10_000_000)]
    for stream in (True, False):
        body, error = await ask(stream=stream)
        assert (body, type(error)) == (b"", ExpertUntrustedError)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'data: {"error": {"message": "no memory"}}\n\n',
        b"data: [1]\n\n",
        b"\n\n",
        b"data: " + b"x" * 1_500_000,
    ],
)
async def test_a_stream_that_is_none_does_not_begin(wire, ask, body):
    wire.parts = [STREAM, body]
    passed, error = await ask()
    assert passed == b""
    assert isinstance(error, ExpertUnavailableError | ExpertUntrustedError)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json"])
async def test_a_stream_is_no_page_and_no_document(wire, ask, kind):
    wire.parts = [STREAM.replace(b"text/event-stream", kind.encode()), BODY]
    passed, error = await ask()
    assert (passed, type(error)) == (b"", ExpertUntrustedError)


async def test_an_error_in_the_middle_ends_the_stream_as_one(wire, ask):
    wire.parts = [CHUNKED, chunked(EVENTS[0]), 0.01, chunked(b'data: {"error": "x"}\n\n' + DONE)]
    passed, error = await ask()
    assert (passed, type(error)) == (EVENTS[0], ExpertUntrustedError)


async def test_heartbeats_do_not_make_a_stream_less_silent(wire, ask):
    beats = [part for _ in range(60) for part in (0.05, chunked(b": still here\n\n"))]
    for first in ([], [chunked(EVENTS[0])]):
        wire.parts = [CHUNKED, *first, *beats]
        started = time.monotonic()
        passed, error = await ask()
        assert (passed, type(error)) == (b"".join(EVENTS[: len(first)]), ExpertTimeoutError)
        assert 0.3 < time.monotonic() - started < 2.0


async def test_a_stream_has_a_longest_time_though_it_is_never_silent(wire, ask):
    wire.parts = [CHUNKED, *[part for _ in range(99) for part in (0.05, chunked(EVENTS[1]))]]
    started = time.monotonic()
    passed, error = await ask(answer_timeout_s=0.5)
    assert (type(error), error.reason) == (ExpertTimeoutError, "the answer took too long")
    assert 0.3 < time.monotonic() - started < 2.0
    assert passed.startswith(EVENTS[1] * 3)


async def test_who_reads_slowly_does_not_find_the_expert_silent(wire):
    wire.parts = [CHUNKED, chunked(EVENTS[0]), 0.01, chunked(BODY[len(EVENTS[0]) :]), b"0\r\n\r\n"]
    async with Pool() as client:
        request = Request((Message("user", "Hi"),), stream=True, payload={"stream": True})
        expert = HttpExpert("up", client, wire.url, idle_timeout_s=0.1)
        out = []
        async for piece in expert.stream(request, None):
            out.append(piece)
            await asyncio.sleep(0.3)
    assert b"".join(out) == BODY


async def test_after_the_end_mark_nobody_waits_and_the_connection_is_not_used_again(wire, ask):
    wire.parts, wire.hang = [CHUNKED, chunked(BODY)], True
    started = time.monotonic()
    assert await ask(idle_timeout_s=3.0) == (BODY, None)
    assert time.monotonic() - started < 2.0
    assert await ask(idle_timeout_s=3.0) == (BODY, None)
    assert wire.n_connections == 2


async def test_a_silent_connection_is_closed_and_not_used_again(wire, ask):
    wire.parts, wire.hang = [], True
    for _ in range(2):
        _, error = await ask()
        assert isinstance(error, ExpertTimeoutError)
    await asyncio.sleep(0.05)
    assert (wire.n_connections, len(wire.ends)) == (2, 2)


async def test_who_leaves_in_the_middle_closes_the_connection_at_once(wire):
    wire.parts, wire.hang = [CHUNKED, chunked(EVENTS[0])], True
    async with Pool() as client:
        request = Request((Message("user", "Hi"),), stream=True, payload={"stream": True})
        pieces = HttpExpert("up", client, wire.url).stream(request, None)
        await anext(pieces)
        left = time.monotonic()
        await pieces.aclose()
        await asyncio.sleep(0.1)
        assert wire.ends
        assert wire.ends[0] - left < 0.1


async def test_a_cap_that_is_not_kept_ends_the_stream(wire, ask):
    events = list(pieces_of("c", "up", [f" t{n}" for n in range(100)]))
    wire.parts = [CHUNKED, *map(chunked, events), b"0\r\n\r\n"]
    body, error = await ask(max_tokens=10)
    assert error is None
    documents = [json.loads(event[6:]) for event in body.split(b"\n\n")[:-2]]
    said = [document["choices"][0]["delta"].get("content", "") for document in documents]
    assert "".join(said) == "".join(f" t{n}" for n in range(10))
    assert documents[-1]["choices"][0]["finish_reason"] == "length"
    assert body.endswith(DONE)


async def test_nothing_of_ours_but_the_key_and_the_body_is_sent(wire, ask):
    wire.parts = [head(len(WHOLE), "set-cookie: a=b", "x-internal-node: n7"), WHOLE]
    for _ in range(2):
        assert await ask(stream=False, api_key="sk-1") == (WHOLE, None)
    names = {line.split(b":")[0].lower() for line in wire.heads[1].split(b"\r\n")[1:-2]}
    assert names == {
        b"host",
        b"content-type",
        b"content-length",
        b"accept-encoding",
        b"authorization",
        b"accept",
        b"user-agent",
    }
    assert b"accept-encoding: identity" in wire.heads[1].lower()


async def test_who_reads_slowly_slows_the_expert_down(wire):
    n_sent = 0

    async def flood(reader, writer):
        nonlocal n_sent
        writer.write(CHUNKED)
        event = chunked(EVENTS[1] * 100)
        try:
            while n_sent < 100_000_000:
                writer.write(event)
                await writer.drain()
                n_sent += len(event)
        except ConnectionError:
            writer.close()

    async with await asyncio.start_server(flood, "127.0.0.1", 0) as server, Pool() as client:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        request = Request((Message("user", "Hi"),), stream=True, payload={"stream": True})
        pieces = HttpExpert("up", client, url).stream(request, None)
        longest = 0
        for _ in range(3):
            longest = max(longest, len(await anext(pieces)))
            await asyncio.sleep(0.1)
        # what two sockets hold, and what is read ahead
        assert n_sent < 20_000_000
        assert longest < 600_000
        await pieces.aclose()


@pytest.mark.parametrize("n_events", [1, 2, len(EVENTS)])
async def test_what_came_before_a_connection_broke_passes_though_nobody_had_read_it(wire, n_events):
    """The break is known before the events are read: the loop is busy meanwhile."""
    closing = CHUNKED.replace(b"transfer", b"connection: close\r\ntransfer")
    wire.parts = [closing, chunked(EVENTS[0]), 0.05, *map(chunked, EVENTS[1:n_events])]
    async with Pool() as client:
        request = Request((Message("user", "Hi"),), stream=True, payload={"stream": True})
        pieces = HttpExpert("up", client, wire.url).stream(request, None)
        out = [await anext(pieces)]
        await asyncio.sleep(0.2)
        error = None
        try:
            async for piece in pieces:
                out.append(piece)
        except ExpertError as raised:
            error = raised
    assert b"".join(out) == b"".join(EVENTS[:n_events])
    assert (error is None) == (n_events == len(EVENTS))


@pytest.mark.parametrize("stream", [True, False])
async def test_whatever_bytes_come_they_are_an_answer_or_an_error_of_the_expert(wire, ask, stream):
    rng = Random(7)
    sound = (
        CHUNKED + b"".join(map(chunked, EVENTS)) + b"0\r\n\r\n"
        if stream
        else head(len(WHOLE)) + WHOLE
    )
    junk = [
        b"\0",
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"ffffffff\r\n",
        b"-1\r\n",
    ]
    for _ in range(150):
        spoilt = bytearray(sound)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(spoilt))
            spoilt[place : place + rng.randrange(4)] = rng.choice([*junk, rng.randbytes(2)])
        wire.parts = [bytes(spoilt), b"", b"connection: close"[: 18 * rng.randrange(2)]]
        body, error = await ask(
            stream, first_token_timeout_s=0.05, idle_timeout_s=0.05, answer_timeout_s=0.1
        )
        assert error is not None or (body.endswith(DONE) if stream else json.loads(body))


async def test_time_that_is_over_after_the_end_mark_is_no_error(wire, ask):
    wire.parts, wire.hang = [CHUNKED, 0.2, chunked(BODY)], True
    assert await ask(answer_timeout_s=0.35) == (BODY, None)
