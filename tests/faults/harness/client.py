"""Callers of a gateway, and what each of them saw."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.script import Script, numbered

_SLOW_BYTES, _SIP_BYTES = 16_384, 1024
# nobody who asks a gateway waits as long as this
_NEVER_S = 120.0

Ending = Literal["open", "done", "error", "broken", "silent", "whole", "refused", "left", "odd"]
"""Of a stream: the end mark, an error event, a broken body, or (which must not be) neither. Of
others: an answer, a refusal in OpenAI's shape, a connection that broke off, or something odd.
``left``: the caller went away by itself."""


@dataclass(slots=True)
class Seen:
    """What a caller saw of one request, by its own clock.

    ``numbers`` are those of the tokens that came, in their order; ``odd`` says what was no token
    of this answer.
    """

    tag: str
    stream: bool
    due_s: float
    sent_s: float = 0.0
    first_s: float | None = None
    ended_s: float = 0.0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None
    usage: dict[str, int] | None = None
    numbers: list[int] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    finish: str | None = None
    end: Ending = "open"
    odd: str = ""

    @property
    def in_order(self) -> bool:
        """Whether no token is missing between others, or came twice."""
        return self.numbers == list(range(len(self.numbers)))

    @property
    def took_s(self) -> float:
        """From when it was due, not from when it was sent."""
        return self.ended_s - self.due_s


@dataclass(frozen=True, slots=True)
class Leaving:
    """When a caller goes away: after so many tokens, after so many seconds, before its body."""

    after_tokens: int | None = None
    after_s: float | None = None
    in_body: bool = False


STAYS = Leaving()


class Caller:
    """Asks one gateway, on connections that are used again.

    Parameters
    ----------
    name : what its tags begin with; a tag that is used again gets a number.
    key : what it shows; empty: nothing.

    Attributes
    ----------
    seen : everything that was asked, in order.
    """

    def __init__(self, port: int, name: str = "", key: str = "") -> None:
        self.seen: list[Seen] = []
        self._port, self._name = port, name
        self._shown = f"authorization: Bearer {key}\r\n" if key else ""
        self._used: Counter[str] = Counter()
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(
        self,
        tag: str,
        script: Script,
        stream: bool = False,
        model: str = "auto",
        due_s: float | None = None,
        leaving: Leaving = STAYS,
        slowly_bps: float = 0.0,
        **more: Any,
    ) -> Seen:
        """One request to its end; what came of it is also in `seen`.

        Parameters
        ----------
        due_s : when it should have been sent, by the clock of the loop; now by default.
        slowly_bps : the caller reads no more bytes than that in a second.
        more : of the body; ``coe.tenant`` is the tag.
        """
        now_s, self._used[tag] = time.monotonic(), self._used[tag] + 1
        n_used = self._used[tag]
        tag = self._name + (tag if n_used == 1 else f"{tag}.{n_used}")
        seen = Seen(tag, stream, now_s if due_s is None else due_s, now_s)
        self.seen.append(seen)
        body = {"messages": [{"role": "user", "content": script.prompt(tag)}], "model": model}
        body |= {"stream": stream, "coe": {"tenant": tag}} | more
        work = asyncio.create_task(self._exchange(seen, body, leaving, slowly_bps))
        try:
            async with asyncio.timeout(_NEVER_S if leaving.after_s is None else leaving.after_s):
                await work
        except TimeoutError:
            assert leaving.after_s is not None, f"never ended: {seen}"
            seen.end = "left"
        except (ConnectionError, asyncio.IncompleteReadError, OSError) as error:
            seen.end, seen.odd = "broken", repr(error)
        seen.ended_s = time.monotonic()
        return seen

    def close(self) -> None:
        """Let go of the connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _exchange(
        self, seen: Seen, body: dict[str, Any], leaving: Leaving, slowly_bps: float
    ) -> None:
        raw = json.dumps(body).encode()
        reader, writer = await self._connection(slow=slowly_bps > 0.0)
        again = False
        try:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\n{self._shown}"
            head += f"content-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
            if leaving.in_body:
                writer.write(head.encode() + raw[: len(raw) // 2])
                await writer.drain()
                seen.end = "left"
                return
            writer.write(head.encode() + raw)
            await writer.drain()
            again = await self._receive(seen, reader, leaving, slowly_bps)
        finally:
            if again:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def _connection(
        self, slow: bool = False
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A kept one, or a new one; who reads slowly has little room for what it has not read."""
        if slow:
            own = socket.socket()
            own.setblocking(False)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BYTES)
            await asyncio.get_running_loop().sock_connect(own, ("127.0.0.1", self._port))
            return await asyncio.open_connection(sock=own, limit=_SLOW_BYTES)
        while self._idle:
            reader, writer = self._idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _receive(
        self, seen: Seen, reader: asyncio.StreamReader, leaving: Leaving, slowly_bps: float
    ) -> bool:
        """Whether another request may be sent on this connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        seen.status = int(head[0].split()[1])
        seen.headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        seen.first_s = time.monotonic()
        if "text/event-stream" in seen.headers.get("content-type", ""):
            await self._events(seen, reader, leaving, slowly_bps)
        else:
            self._document(seen, await reader.readexactly(int(seen.headers["content-length"])))
        keeps = seen.headers.get("connection") != "close"
        return keeps and seen.end in ("done", "error", "silent", "whole", "refused")

    def _document(self, seen: Seen, raw: bytes) -> None:
        try:
            document = json.loads(raw)
            if seen.status == 200:
                choice = document["choices"][0]
                seen.numbers = numbered(seen.tag, choice["message"]["content"])
                seen.usage, seen.finish = document.get("usage"), choice["finish_reason"]
                seen.end = "whole"
            else:
                seen.code = document["error"]["code"]
                assert document["error"].keys() >= {"message", "type", "param", "code"}
                seen.end = "refused"
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            seen.end, seen.odd = "odd", repr(error)

    async def _events(
        self, seen: Seen, reader: asyncio.StreamReader, leaving: Leaving, slowly_bps: float
    ) -> None:
        rest, last_s = b"", time.monotonic()
        while (size := int((await reader.readline()).strip() or b"-1", 16)) != 0:
            if size < 0:
                raise ConnectionError("the body broke off")
            block = await _taken(reader, size + 2, slowly_bps)
            *events, rest = (rest + block[:-2]).split(b"\n\n")
            for event in events:
                if self._event(seen, event):
                    now_s = time.monotonic()
                    seen.gaps_s.append(now_s - last_s)
                    last_s = now_s
            if leaving.after_tokens is not None and len(seen.numbers) >= leaving.after_tokens:
                seen.end = "left"
                return
        await reader.readline()
        if seen.end == "open":
            seen.end = "silent"

    def _event(self, seen: Seen, event: bytes) -> bool:
        """Whether it was a token."""
        event = event.lstrip(b"\n")
        if not event.startswith(b"data:"):
            return False
        if event == b"data: [DONE]":
            seen.end = "done" if seen.end == "open" else "odd"
            return False
        document = json.loads(event[5:])
        if "error" in document:
            seen.end, seen.code = (
                "error" if seen.end == "open" else "odd",
                document["error"]["code"],
            )
            return False
        seen.usage = document.get("usage") or seen.usage
        for choice in document.get("choices", []):
            seen.finish = choice.get("finish_reason") or seen.finish
            try:
                found = numbered(seen.tag, choice["delta"].get("content") or "")
            except ValueError as error:
                seen.odd = str(error)
                return False
            seen.numbers += found
            return bool(found)
        return False


async def _taken(reader: asyncio.StreamReader, n_bytes: int, slowly_bps: float) -> bytes:
    """So many bytes; slowly in sips, for whoever reads a block of a minute at once is no reader."""
    if not slowly_bps:
        return await reader.readexactly(n_bytes)
    block = b""
    while len(block) < n_bytes:
        sip = await reader.readexactly(min(_SIP_BYTES, n_bytes - len(block)))
        await asyncio.sleep(len(sip) / slowly_bps)
        block += sip
    return block
