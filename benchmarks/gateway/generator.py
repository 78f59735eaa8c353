"""Load on raw sockets: prepared request bytes out, every answer checked, times kept.

Closed loop: as many connections as requests at once, each asks again when it is answered. Open
loop: requests come by a Poisson process whatever the server does, and their time runs from when
they were due.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from stub import N_TOKENS

_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d+)\r\n", re.IGNORECASE)
_LAST_TOKEN = f"token{N_TOKENS - 1}".encode()
_REFUSALS = (b"HTTP/1.1 429 ", b"HTTP/1.1 503 ")
_PAUSE_S = 0.05
PROMPT = "A shop sells 17 boxes with 6 pens each. How many pens is that in total?"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked: the bytes of one request."""

    request: bytes
    stream: bool

    @classmethod
    def chat(
        cls,
        port: int,
        model: str,
        stream: bool = False,
        pace_ms: int = 0,
        key: str = "",
        prompt: str = PROMPT,
    ) -> "Asked":
        """A chat of one short turn at a local port.

        Parameters
        ----------
        pace_ms : of a stream, how far apart the stub is to send its events; 0: all at once.
        key : is sent as bearer token; "": none is.
        """
        body: dict[str, object] = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": stream,
            "max_tokens": N_TOKENS,
        }
        if pace_ms:
            body["user"] = f"pace-{pace_ms}"
        content = json.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\n"
            f"host: 127.0.0.1:{port}\r\n"
            "user-agent: generator\r\naccept: */*\r\ncontent-type: application/json\r\n"
            + (f"authorization: Bearer {key}\r\n" if key else "")
            + f"content-length: {len(content)}\r\n\r\n"
        )
        return cls(head.encode() + content, stream)


@dataclass(slots=True)
class Seen:
    """What came of it: seconds of each answer, events of streams, what went wrong.

    A refusal for there being too many is no answer, and nothing wrong: whoever is refused asks
    again a little later.
    """

    spent_s: list[float] = field(default_factory=list)
    n_events: int = 0
    n_refused: int = 0
    wrong: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0


class Connection(asyncio.Protocol):
    """A connection that asks one thing at a time, and says when it was answered.

    Parameters
    ----------
    answered : is called with the connection; ``due`` is when its request was.
    """

    def __init__(self, asked: Asked, seen: Seen, answered: "Callable[[Connection], None]") -> None:
        self._asked, self._seen, self._answered = asked, seen, answered
        self._received: list[bytes] = []
        self._missing: int | None = None
        self._transport: asyncio.Transport | None = None
        self.due = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio says."""
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """As asyncio says: nobody closes a connection here while something is asked."""
        if self.due:
            self._seen.wrong.append(f"connection lost: {error}")

    def ask(self, due: float) -> None:
        """Send the request that was due then."""
        assert self._transport is not None
        if self._transport.is_closing():
            self._seen.wrong.append("the connection was closed after an answer")
            self._answered(self)
            return
        self.due = due
        self._transport.write(self._asked.request)

    def close(self) -> None:
        """Ask no more."""
        self.due = 0.0
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """As asyncio says: what of the answer has come."""
        self._received.append(data)
        if self._missing is not None and self._missing >= 0:
            self._missing -= len(data)
        elif self._missing is None:
            self._read_head()
        ended = data.endswith(b"0\r\n\r\n") if self._missing == -1 else self._missing == 0
        if ended:
            self._check(b"".join(self._received))

    def _read_head(self) -> None:
        so_far = b"".join(self._received)
        end = so_far.find(b"\r\n\r\n")
        if end < 0:
            return
        self._received = [so_far]
        length = _LENGTH.search(so_far, 0, end + 2)
        # -1: as long as its chunks say
        self._missing = -1 if length is None else int(length[1]) - (len(so_far) - end - 4)

    def _check(self, answer: bytes) -> None:
        seen = self._seen
        due, self.due = self.due, 0.0
        self._received, self._missing = [], None
        if answer.startswith(_REFUSALS):
            seen.n_refused += 1
            asyncio.get_running_loop().call_later(_PAUSE_S, self._answered, self)
            return
        seen.spent_s.append(time.perf_counter() - due)
        if not answer.startswith(b"HTTP/1.1 200 ") or _LAST_TOKEN not in answer:
            seen.wrong.append(answer[:600].decode(errors="replace"))
        if self._asked.stream:
            n_events = answer.count(b"data:")
            seen.n_events += n_events
            if n_events < N_TOKENS or b"[DONE]" not in answer:
                seen.wrong.append(f"a stream of {n_events} events")
        self._answered(self)


async def _connected(port: int, asked: Asked, seen: Seen, answered: object) -> Connection:
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(
        lambda: Connection(asked, seen, answered), "127.0.0.1", port
    )
    return made


async def closed_loop(port: int, asked: Asked, n_at_once: int, seconds: float) -> Seen:
    """What came of so many connections that each ask again and again for some seconds."""
    seen = Seen()
    stopped = asyncio.Event()
    n_open = n_at_once
    deadline = 0.0

    def answered(connection: Connection) -> None:
        nonlocal n_open
        if (now := time.perf_counter()) < deadline and not seen.wrong:
            connection.ask(now)
            return
        n_open -= 1
        if not n_open or seen.wrong:
            stopped.set()

    connections = [await _connected(port, asked, seen, answered) for _ in range(n_at_once)]
    began = time.perf_counter()
    deadline = began + seconds
    for connection in connections:
        connection.ask(time.perf_counter())
    await asyncio.wait_for(stopped.wait(), seconds + 60)
    seen.elapsed_s = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return seen


async def open_loop(
    port: int, asked: Asked, rate_per_s: float, seconds: float, rng: random.Random
) -> Seen:
    """What came of requests that are due by a Poisson process, each on an idle connection."""
    seen = Seen()
    idle: list[Connection] = []
    everyone: list[Connection] = []
    n_due, all_answered = 0, asyncio.Event()

    def answered(connection: Connection) -> None:
        nonlocal n_due
        idle.append(connection)
        n_due -= 1
        if not n_due:
            all_answered.set()

    async def ask(due: float) -> None:
        if not idle:
            everyone.append(await _connected(port, asked, seen, answered))
            everyone[-1].ask(due)
        else:
            idle.pop().ask(due)

    began = time.perf_counter()
    due, tasks = began, set[asyncio.Task[None]]()
    while (due := due + rng.expovariate(rate_per_s)) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        n_due += 1
        all_answered.clear()
        task = asyncio.create_task(ask(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if n_due:
        await asyncio.wait_for(all_answered.wait(), 60)
    seen.elapsed_s = time.perf_counter() - began
    for connection in everyone:
        connection.close()
    return seen
