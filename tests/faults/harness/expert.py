"""An expert that does what it is told, and attests what it did."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from harness.script import Script, token, told

RESET = struct.pack("ii", 1, 0)
"""Of SO_LINGER: a connection that is closed is reset."""

_BEAT_S = 0.05
_OF_HOSTS = ("/health", "/metrics")
_LOAD = b"vllm:num_requests_running 0\n"


@dataclass(slots=True)
class Attested:
    """What an expert did for one request, as it knows itself.

    ``prompt_estimate`` is what a gateway makes of a prompt whose length nobody states.
    ``written`` tokens were handed to the network, ``generated`` ones were made; ``end`` is
    ``open`` while it is at it, ``gone`` where the caller left first.
    """

    tag: str
    expert: str
    at_s: float
    at_ms: int
    authorization: str | None
    stream: bool
    cap: int | None
    prompt_tokens: int
    prompt_estimate: int
    status: int = 200
    generated: int = 0
    written: int = 0
    stated: dict[str, object] | None = None
    end: str = "open"
    ended_s: float = 0.0


class FakeExpert:
    """A server on loopback that speaks OpenAI's chat interface over raw sockets.

    Attributes
    ----------
    script : what it does where a prompt says nothing else.
    host, note : where it listens; told of every entry that is new or about to change.
    tls : by what it proves who it is, from its next start on; ``None``: it speaks no TLS.
    log : everything it was asked, in order; entries are only ever added.
    """

    def __init__(
        self,
        name: str,
        script: Script | None = None,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        note: Callable[[Attested], None] = lambda entry: None,
    ) -> None:
        self.name, self.host, self.note = name, host, note
        self.script = script or Script()
        self.tls = tls
        self.log: list[Attested] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._life = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}/v1"

    async def start(self) -> None:
        """Listen, where it did before."""
        loop, served = asyncio.get_running_loop(), partial(self._serve, self._life)
        self._server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(_Reader(), served, loop),
            self.host,
            self.port,
            reuse_address=True,
            backlog=1024,
            ssl=self.tls,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """As a process that is killed: nobody listens, and every connection is reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._life += 1
        for entry in self.log:
            entry.end = "killed" if entry.end == "open" else entry.end
        for writer in tuple(self._open):
            reset(writer)
        await asyncio.sleep(0)

    @property
    def n_open(self) -> int:
        """Connections."""
        return len(self._open)

    async def _serve(self, life: int, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        if life != self._life:
            # it was killed while they shook hands
            reset(writer)
            return
        self._open.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, reader: _Reader, writer: asyncio.StreamWriter) -> bool:
        """Whether another request may come on this connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        secret = next((h[15:] for h in head if h.lower().startswith("authorization:")), None)
        body = json.loads(await reader.readexactly(int(fields.get("content-length", 0))) or b"{}")
        if head[0].split()[1] in _OF_HOSTS:
            writer.write(_head(200, Script(), _json(len(_LOAD))) + _LOAD)
            return False
        prompt = str((body.get("messages") or [{}])[-1].get("content", ""))
        tag, script = told(prompt, self.script)
        cap = body.get("max_tokens", body.get("max_completion_tokens"))
        stream, now_ms = bool(body.get("stream")), time.time_ns() // 1_000_000
        length, estimate = max(1, len(prompt) // 4), 8 + (len(prompt) + 3) // 4
        entry = Attested(
            tag,
            self.name,
            time.monotonic(),
            now_ms,
            secret,
            stream,
            cap,
            length,
            estimate,
            script.status,
        )
        self.log.append(entry)
        self.note(entry)
        answer = asyncio.create_task(_Answering(writer, script, entry, self.note).run())
        gone = asyncio.create_task(reader.gone.wait())
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        ended = answer.done()
        gone.cancel()
        answer.cancel()
        said = await asyncio.gather(answer, return_exceptions=True)
        if entry.end != "killed" and not (ended and said == [None]):
            entry.end = "gone"
        entry.ended_s = time.monotonic()
        self.note(entry)
        return ended and entry.end == "done" and script.length is None


class _Reader(asyncio.StreamReader):
    """A reader that says when the peer has gone, without reading what it may send first."""

    def __init__(self) -> None:
        super().__init__(limit=8 * 1024 * 1024)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: BaseException) -> None:
        super().set_exception(exc)
        self.gone.set()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@dataclass(slots=True)
class _Answering:
    writer: asyncio.StreamWriter
    script: Script
    entry: Attested
    note: Callable[[Attested], None]

    async def run(self) -> None:
        script, entry = self.script, self.entry
        if script.ttft_s:
            await asyncio.sleep(script.ttft_s)
        if script.body is not None or script.status != 200:
            await self._say(_canned(script))
            entry.end = "done"
            return
        n_tokens = script.tokens
        if script.caps and entry.cap is not None:
            n_tokens = min(n_tokens, entry.cap)
        n_before = n_tokens if script.after is None else min(script.after, n_tokens)
        if entry.stream:
            await self._stream(n_tokens, n_before)
        else:
            await self._whole(n_tokens, n_before)

    async def _stream(self, n_tokens: int, n_before: int) -> None:
        script, entry = self.script, self.entry
        kind = "content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        await self._say(_head(200, script, kind))
        if n_before or script.end in ("done", "beat", "stall"):
            await self._event(_chunk(entry, {"role": "assistant", "content": ""}))
        for n in range(n_before):
            if n and (script.pace_s or n % 100 == 0):
                await asyncio.sleep(script.pace_s)
            entry.generated += 1
            self.note(entry)
            await self._event(_chunk(entry, {"content": token(entry.tag, n)}))
            entry.written += 1
        if n_before == n_tokens and script.end == "done":
            await self._event(_chunk(entry, {}, "stop", _usage(script, entry)))
            await self._event(b"data: [DONE]\n\n")
            await self._say(b"0\r\n\r\n")
        await self._end()

    async def _whole(self, n_tokens: int, n_before: int) -> None:
        script, entry = self.script, self.entry
        for n in range(n_before):
            if n and script.pace_s:
                await asyncio.sleep(script.pace_s)
            entry.generated += 1
        self.note(entry)
        if script.end == "done":
            body = json.dumps(_document(script, entry)).encode()
            await self._say(_head(200, script, _json(len(body))) + body)
            entry.written = entry.generated
        elif n_before:
            # head and half of a body
            body = json.dumps(_document(script, entry)).encode()
            await self._say(_head(200, script, _json(len(body))) + body[: len(body) // 2])
        await self._end()

    async def _end(self) -> None:
        script, entry = self.script, self.entry
        entry.end = script.end
        if script.end == "rst":
            await asyncio.sleep(0.02)
            reset(self.writer)
        while script.end in ("stall", "beat"):
            await asyncio.sleep(_BEAT_S)
            if script.end == "beat" and entry.stream:
                await self._event(b": beat\n\n")

    async def _event(self, event: bytes) -> None:
        size = self.script.split or len(event)
        for at in range(0, len(event), size):
            part = event[at : at + size]
            await self._say(f"{len(part):x}\r\n".encode() + part + b"\r\n")

    async def _say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


def _head(status: int, script: Script, more: str) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in script.headers)
    return f"HTTP/1.1 {status} Said\r\n{more}{lines}\r\n".encode("latin-1")


def _json(n_bytes: int) -> str:
    return f"content-type: application/json\r\ncontent-length: {n_bytes}\r\n"


def _canned(script: Script) -> bytes:
    body = script.body if script.body is not None else json.dumps({"error": {"message": "no"}})
    raw = body.encode()
    length = len(raw) if script.length is None else script.length
    return _head(script.status, script, _json(length)) + raw


def _usage(script: Script, entry: Attested) -> dict[str, object] | None:
    usage = script.usage
    if usage == "true":
        n_both = entry.prompt_tokens + entry.generated
        usage = {
            "prompt_tokens": entry.prompt_tokens,
            "completion_tokens": entry.generated,
            "total_tokens": n_both,
        }
    entry.stated = usage
    return usage


def _chunk(
    entry: Attested,
    delta: dict[str, str],
    finish: str | None = None,
    usage: dict[str, object] | None = None,
) -> bytes:
    document: dict[str, object] = {
        "id": entry.tag,
        "object": "chat.completion.chunk",
        "created": 0,
        "model": entry.expert,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    if usage is not None:
        document["usage"] = usage
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _document(script: Script, entry: Attested) -> dict[str, object]:
    text = "".join(_tokens(entry))
    message = {"role": "assistant", "content": text}
    usage = _usage(script, entry)
    document: dict[str, object] = {
        "id": entry.tag,
        "object": "chat.completion",
        "created": 0,
        "model": entry.expert,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    return document if usage is None else document | {"usage": usage}


def _tokens(entry: Attested) -> Iterator[str]:
    return (token(entry.tag, n) for n in range(entry.generated))
