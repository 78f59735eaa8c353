"""How streams end on the wire, what slow and fickle clients cost, and what keeps the loop busy."""

import asyncio
import gc
import json
import os
import socket
import ssl
import struct
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import httpx
import openai
import pytest
import trustme

from coe.answer import chunk
from coe.budgets import load_policies
from coe.config import DATA, load_config
from coe.engine import Engine
from coe.errors.experts import ExpertUnavailableError
from coe.experts.stub import StubExpert
from coe.router import Router
from coe.services.fleet import Fleet
from coe.services.gateway import Gateway
from coe.services.runtime import Runtime
from coe.services.sockets.server import listening, server

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
LAST_CHUNK = b"0\r\n\r\n"


class Broken(StubExpert):
    """Fails after its first piece in a way that nobody foresaw."""

    async def stream(self, request, max_tokens):
        yield chunk("x", self.expert_id, {"role": "assistant", "content": "a"}, None)
        await asyncio.sleep(0.01)
        raise ZeroDivisionError


@dataclass
class Endless:
    """Writes as fast as it is listened to, until it is closed."""

    expert_id: str
    pause_s: float = 0.0
    n_pieces: int = 0
    n_open: int = 0
    piece: bytes = field(default=b"")

    async def stream(self, request, max_tokens):
        self.piece = chunk("x", self.expert_id, {"content": "a" * 4000}, None)
        self.n_open += 1
        try:
            while True:
                self.n_pieces += 1
                yield self.piece
                await asyncio.sleep(self.pause_s)
        finally:
            self.n_open -= 1


@dataclass
class Live:
    """A gateway in this event loop."""

    port: int
    gateway: Gateway
    server: object

    def body(self, **more):
        messages = [{"role": "user", "content": "Hello"}]
        return {"model": SMALL, "messages": messages, **more}

    async def connect(self, stream=True, receive_bytes=None, n=1, tls=None, **more):
        """A connection on which an answer is asked for, or ``n``."""
        plain = socket.socket()
        if receive_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        plain.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(plain, ("127.0.0.1", self.port))
        body = json.dumps(self.body(stream=stream, **more)).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        asked = (head.encode() + body) * n
        if tls is None:
            await loop.sock_sendall(plain, asked)
            return plain
        plain.setblocking(True)

        def ask():
            proven = tls.wrap_socket(plain, server_hostname="127.0.0.1")
            proven.sendall(asked)
            return proven

        return await asyncio.to_thread(ask)

    async def said(self, connection):
        """All that comes until the other side closes."""
        loop, pieces = asyncio.get_running_loop(), []
        with connection, suppress(ConnectionResetError):
            while piece := await loop.sock_recv(connection, 65536):
                pieces.append(piece)
        return b"".join(pieces)

    @property
    def buffered(self):
        """Bytes that wait in the gateway to be sent."""
        connections = self.server.server_state.connections
        return sum(one.transport.get_write_buffer_size() for one in connections)


async def eventually(condition, what):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, what
        await asyncio.sleep(0.02)


@asynccontextmanager
async def live(expert, options=None, **section):
    config = load_config(DATA / "coe.yaml")
    config = config.model_copy(update={"gateway": config.gateway.model_copy(update=section)})
    experts = {SMALL: expert, LARGE: StubExpert(LARGE)}
    router = Router.load(config.artefact, list(config.specs.values()))
    specs = {n: replace(s, context_tokens=10**7) for n, s in config.specs.items()}
    router = replace(router, specs=specs)
    fleet = Fleet(specs=specs, experts=experts, hosts={})
    runtime = Runtime(config, load_policies(config.budgets), Engine(router, experts), fleet)
    gateway = Gateway(runtime)
    running = server(gateway.app(), **(options or {}))
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        task = asyncio.create_task(running.serve(sockets=[listener]))
        await eventually(lambda: running.started, "the start of the server")
        try:
            yield Live(port, gateway, running)
        finally:
            running.should_exit = running.force_exit = True
            await task


# ---- three endings


async def test_a_stream_that_is_whole_says_so():
    async with live(StubExpert(SMALL)) as gateway:
        connection = await gateway.connect()
        answer = b""
        while not answer.endswith(LAST_CHUNK):
            answer += await asyncio.get_running_loop().sock_recv(connection, 65536)
        connection.close()
    assert b"data: [DONE]\n\n" in answer
    assert b"x-accel-buffering: no\r\n" in answer
    assert b"x-request-id: req-" in answer
    events = [json.loads(line[6:]) for line in answer.split(b"\n") if line.startswith(b"data: {")]
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert b'"usage"' not in answer


async def test_a_stream_whose_expert_fails_ends_with_an_error_event():
    error = ExpertUnavailableError(SMALL, "broke off")
    async with live(StubExpert(SMALL, error=error, error_after=2)) as gateway:
        connection = await gateway.connect()
        answer = b""
        while not answer.endswith(LAST_CHUNK):
            answer += await asyncio.get_running_loop().sock_recv(connection, 65536)
        connection.close()
        assert b"[DONE]" not in answer
        assert b'"code": "expert_unavailable"' in answer
        asking = openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="unused", max_retries=0
        )
        async with asking:
            with pytest.raises(openai.APIError, match="broke off"):
                async for _ in await asking.chat.completions.create(**gateway.body(stream=True)):
                    pass


async def test_a_stream_whose_gateway_fails_is_visibly_broken():
    async with live(Broken(SMALL)) as gateway:
        answer = await gateway.said(await gateway.connect())
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"role": "assistant"' in answer
        assert b"[DONE]" not in answer
        assert b'"error"' not in answer
        assert not answer.endswith(LAST_CHUNK)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post("/v1/chat/completions", json=gateway.body(stream=True))


# ---- clients that read slowly, or leave


async def test_whoever_reads_slowly_slows_the_expert_and_is_cut_off_in_time():
    expert = Endless(SMALL)
    async with live(expert, answer_timeout_s=2.0) as gateway:
        connection = await gateway.connect(receive_bytes=4096)
        await asyncio.sleep(0.8)
        n_pieces = expert.n_pieces
        await asyncio.sleep(0.2)
        assert expert.n_pieces == n_pieces, "nobody is listened to who is not read"
        assert 0 < gateway.buffered <= 128 * 1024
        await eventually(lambda: not expert.n_open, "the end of an answer that nobody reads")
        await eventually(lambda: not gateway.server.server_state.connections, "its connection")
        answer = await gateway.said(connection)
        assert not answer.endswith(LAST_CHUNK)
        assert gateway.gateway.door.crowd.n == 0


async def paused(gateway, expert, **more):
    """A connection whose answer waits for its reader, who reads nothing."""
    connection, n_pieces = await gateway.connect(receive_bytes=4096, **more), -1
    while not gateway.buffered or expert.n_pieces > n_pieces:
        n_pieces = expert.n_pieces
        await asyncio.sleep(0.2)
    return connection


async def let_go(gateway, expert):
    await eventually(lambda: not expert.n_open, "the end of an answer that nobody waits for")
    await eventually(lambda: not gateway.server.server_state.connections, "its connection")
    assert gateway.gateway.door.crowd.n == 0


async def test_whoever_says_no_more_is_let_go_though_it_has_not_read():
    """A peer that is gone with its window shut looks no different."""
    expert = Endless(SMALL)
    async with live(expert) as gateway:
        with await paused(gateway, expert) as connection:
            connection.shutdown(socket.SHUT_WR)
            await let_go(gateway, expert)


async def test_whoever_says_no_more_is_let_go_behind_tls_too():
    """TLS keeps the end of the connection to itself as long as something waits to be sent."""
    authority, expert = trustme.CA(), Endless(SMALL)
    proof, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(proof)
    authority.configure_trust(trust)
    options = {"ssl_context_factory": lambda config, usual: proof}
    async with live(expert, options) as gateway:
        with await paused(gateway, expert, tls=trust) as connection:
            assert gateway.buffered <= 256 * 1024
            connection.shutdown(socket.SHUT_WR)
            await let_go(gateway, expert)


@pytest.mark.parametrize("linger", [False, True])
async def test_whoever_has_sent_another_request_is_let_go_as_well(linger):
    """Nothing is read of a connection on which a second request waits for the first one's end."""
    expert = Endless(SMALL)
    async with live(expert) as gateway:
        with await paused(gateway, expert, n=2) as connection:
            if linger:  # closing resets the connection
                no_time = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)
                connection.close()
            else:
                connection.shutdown(socket.SHUT_WR)
            await let_go(gateway, expert)


async def test_whoever_stays_and_reads_nothing_is_cut_off():
    expert = Endless(SMALL)
    async with live(expert, {"stall_timeout_s": 1.0}) as gateway:
        with await gateway.connect(receive_bytes=4096):
            await eventually(lambda: expert.n_open, "the answer")
            await let_go(gateway, expert)


async def test_whoever_reads_no_answer_is_cut_off_when_the_answer_is_over():
    """Closing waits until all was sent."""
    expert = StubExpert(SMALL, tokens=["a" * 16_000_000])
    async with live(expert, {"stall_timeout_s": 1.0}) as gateway:
        with await gateway.connect(receive_bytes=4096, stream=False):
            await eventually(lambda: gateway.buffered, "the answer")
            await eventually(lambda: not gateway.server.server_state.connections, "its connection")


def descriptors():
    return len(os.listdir("/proc/self/fd"))


async def test_clients_that_leave_at_any_moment_leave_nothing_behind():
    """400 connections, closed or reset, with part of a request sent, or part of an answer read."""
    expert = Endless(SMALL, pause_s=0.002)
    async with live(expert) as gateway:
        loop = asyncio.get_running_loop()

        async def leave(n):
            connection = await gateway.connect(stream=n % 3 != 0)
            if n % 4 == 1 and n % 3:
                await loop.sock_recv(connection, 100)
            elif n % 4 == 2:
                await asyncio.sleep(0.03)
            if n % 2:
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()

        async def dribble(n):
            with socket.socket() as connection:
                connection.setblocking(False)
                await loop.sock_connect(connection, ("127.0.0.1", gateway.port))
                await loop.sock_sendall(connection, b"POST /v1/chat/completions HTTP/1.1"[: n % 30])

        async def at_rest():
            state = gateway.server.server_state
            await eventually(lambda: not state.connections, "no connections")
            await eventually(lambda: not state.tasks and not expert.n_open, "no answers")
            gc.collect()
            return descriptors(), len(asyncio.all_tasks())

        await asyncio.gather(*(leave(n) for n in range(12)))
        before = await at_rest()
        for _ in range(10):
            await asyncio.gather(*(leave(n) for n in range(24)), *(dribble(n) for n in range(16)))
        assert await at_rest() == before
        engine = gateway.gateway.runtime.engine
        assert gateway.gateway.door.crowd.n == 0
        assert all(load.n_in_flight == 0 for load in engine._loads.values())


# ---- what keeps everybody waiting


class Beat:
    """Milliseconds of processor time that the event loop spent between two moments of rest."""

    def __init__(self):
        self.longest_ms = 0.0

    async def __call__(self):
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.002)
            now = time.thread_time()
            self.longest_ms = max(self.longest_ms, (now - last) * 1000.0)
            last = now


LONG = "write a function that sums prime numbers and explain it, " * 72_000
PART = {"type": "text", "text": "hi"}
EXPENSIVE = {
    "a text of 4 MiB": {"messages": [{"role": "user", "content": LONG[: 4 * 1024 * 1024 - 500]}]},
    "1,024 messages": {"messages": [{"role": "user", "content": LONG[:4000]}] * 1024},
    "65,536 parts": {"messages": [{"role": "user", "content": [PART] * 64}] * 1024},
    "a schema of 60 KiB": {
        "messages": [{"role": "user", "content": "hi"}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "a",
                "schema": {
                    "type": "object",
                    "properties": {
                        f"p{n}": {"type": "string", "description": "x" * 20} for n in range(900)
                    },
                },
            },
        },
    },
    "400,000 values": {"messages": [{"role": "user", "content": "hi", "x": [0] * 390_000}]},
}


@pytest.mark.parametrize("case", EXPENSIVE)
async def test_no_request_keeps_the_others_waiting_for_long(case):
    """A reader that takes the processor for 200 ms fails this; one that takes 100 does not."""
    body = json.dumps({"model": LARGE, **EXPENSIVE[case]}).encode()
    async with live(StubExpert(SMALL)) as gateway:
        request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        ) + body
        beat = Beat()
        beating = asyncio.create_task(beat())

        def ask():
            with socket.create_connection(("127.0.0.1", gateway.port), 60) as connection:
                connection.sendall(request)
                return connection.recv(65536)

        answer = await asyncio.to_thread(ask)
        await asyncio.sleep(0.01)
        beating.cancel()
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400")), answer[:300]
    assert beat.longest_ms < 100.0
