"""The HTTP adapter against a real server on loopback that behaves well, badly, or not at all."""

import asyncio
import json
import socket
import struct

import pytest
from aiohttp import web

from coe.answer import completion, pieces_of
from coe.core import Message, Request
from coe.errors.experts import (
    ExpertLostError,
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUnavailableError,
    ExpertUntrustedError,
)
from coe.experts import http as expert_module
from coe.experts.hosted import EmbeddedExpert, HostedExpert
from coe.experts.http import HttpExpert
from coe.http.pool import Pool

EVENTS = list(pieces_of("chatcmpl-1", "up", ["Grüße", " 世界", "."]))
WHOLE = completion("chatcmpl-1", "up", "Hello", 3, 1, "stop")
MESSAGES = [{"role": "user", "content": "Hi"}]


class Server:
    """Answers as its ``mode`` says, and remembers what it was asked."""

    def __init__(self):
        self.mode, self.location = "well", ""
        self.bodies, self.headers = [], []

    async def answer(self, http):
        self.bodies.append(await http.json())
        self.headers.append(http.headers)
        if self.mode.isdecimal():
            away = {"location": self.location}
            return web.json_response({"error": "no"}, status=int(self.mode), headers=away)
        if self.mode in ("hang", "slow"):
            await asyncio.sleep({"hang": 60, "slow": 0.6}[self.mode])
        if not self.bodies[-1].get("stream"):
            return web.Response(body=WHOLE, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(http)
        for n, event in enumerate(EVENTS):
            if n == 2 and self.mode == "stall":
                await asyncio.sleep(60)
            if n == 2 and self.mode == "break":
                http.transport.abort()
                return response
            await response.write(event)
        return response


@pytest.fixture
def server():
    return Server()


@pytest.fixture
async def url(server):
    app = web.Application()
    app.router.add_post("/v1/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    await runner.cleanup()


@pytest.fixture
async def client():
    async with Pool() as opened:
        yield opened


def request(stream=True, **payload):
    body = {"messages": MESSAGES, "stream": stream, **payload}
    return Request((Message("user", "Hi"),), stream=stream, payload=body)


async def read(expert, asked, max_tokens=None):
    return b"".join([piece async for piece in expert.stream(asked, max_tokens)])


def quick(client, url, **more):
    limits = {"first_token_timeout_s": 0.3, "idle_timeout_s": 0.3, "connect_timeout_s": 1.0}
    return HttpExpert("up", client, f"{url}/v1", **limits | more)


async def test_the_bytes_are_the_servers_own(client, url):
    expert = quick(client, url)
    assert await read(expert, request()) == b"".join(EVENTS)
    assert await read(expert, request(stream=False)) == WHOLE


async def test_name_key_and_cap_are_sent(client, server, url):
    expert = quick(client, url, upstream_model="real", api_key="sk-1")
    await read(expert, request(temperature=0.5), max_tokens=7)
    assert server.bodies == [
        {"messages": MESSAGES, "stream": True, "temperature": 0.5, "model": "real", "max_tokens": 7}
    ]
    assert server.headers[0]["authorization"] == "Bearer sk-1"
    await read(expert, request(max_completion_tokens=99), max_tokens=7)
    assert server.bodies[1]["max_completion_tokens"] == 7
    assert "max_tokens" not in server.bodies[1]


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_an_http_error_is_a_rejection_with_status_and_body(client, server, url, status):
    server.mode = str(status)
    with pytest.raises(ExpertRejectedError) as raised:
        await read(quick(client, url), request())
    assert raised.value.status == status
    assert json.loads(raised.value.body) == {"error": "no"}


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_rejection_is_one_though_its_words_break_off(client, monkeypatch, hangs):
    monkeypatch.setattr(expert_module, "_WORDS_S", 0.05)

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\n")
        writer.write(b"content-length: 100\r\n\r\ntoo many")
        await writer.drain()
        if hangs:
            await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        expert = HttpExpert(
            "small", client, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        )
        with pytest.raises(ExpertRejectedError) as raised:
            await read(expert, request())
    assert (raised.value.status, raised.value.retry_after) == (429, "7")
    assert raised.value.body == b"too many"


async def test_nobody_is_followed_elsewhere(client, server, url):
    server.mode, server.location = "307", f"{url}/v1/elsewhere"
    with pytest.raises(ExpertUntrustedError) as raised:
        await read(quick(client, url), request())
    assert (raised.value.code, len(server.bodies)) == ("upstream_redirect", 1)


@pytest.mark.parametrize("mode", ["hang", "stall"])
async def test_silence_is_a_timeout(client, server, url, mode):
    server.mode = mode
    with pytest.raises(ExpertTimeoutError):
        await read(quick(client, url), request())


async def test_a_whole_answer_may_take_longer_than_a_first_token(client, server, url):
    server.mode = "slow"
    assert await read(quick(client, url), request(stream=False)) == WHOLE
    with pytest.raises(ExpertTimeoutError):
        await read(quick(client, url, answer_timeout_s=0.2, idle_timeout_s=0.2), request(False))


async def test_a_broken_connection_says_nothing_of_what_was_done(client, server, url):
    server.mode = "break"
    with pytest.raises(ExpertLostError):
        await read(quick(client, url), request())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("resets", [True, False])
async def test_who_hangs_up_when_he_was_asked_is_lost(client, stream, resets):
    async def hang_up(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if resets:
            now = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ExpertLostError):
            await read(quick(client, f"http://127.0.0.1:{port}"), request(stream))


async def test_nobody_there_is_unavailable(client):
    with pytest.raises(ExpertUnavailableError) as refused:
        await read(quick(client, "http://127.0.0.1:9"), request())
    assert not isinstance(refused.value, ExpertLostError)


async def test_something_else_than_http_is_no_answer(client):
    async def greet(reader, writer):
        writer.write(b"HELLO\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as stranger:
        port = stranger.sockets[0].getsockname()[1]
        with pytest.raises(ExpertUntrustedError):
            await read(quick(client, f"http://127.0.0.1:{port}"), request())


async def test_an_engine_that_is_not_ready_is_unavailable(client):
    with pytest.raises(ExpertUnavailableError, match="not running"):
        EmbeddedExpert(HostedExpert("e", client, lambda: None)).stream(request(), None)


async def test_an_embedded_whole_answer_is_streamed_inside_and_put_together(client, server, url):
    expert = EmbeddedExpert(HostedExpert("e", client, lambda: url, keep_alive=False))
    pieces = [p async for p in expert.stream(request(stream=False, n_predict=99), 5)]
    document = json.loads(pieces[-1])
    assert document["choices"][0]["message"]["content"] == "Grüße 世界."
    assert set(pieces[:-1]) == {b""}
    assert server.bodies[0]["stream"] is True
    assert "n_predict" not in server.bodies[0]


async def test_an_embedded_whole_answer_that_breaks_off_is_no_answer(client, server, url):
    server.mode = "break"
    expert = EmbeddedExpert(HostedExpert("e", client, lambda: url, keep_alive=False))
    with pytest.raises(ExpertUnavailableError):
        await read(expert, request(stream=False))
