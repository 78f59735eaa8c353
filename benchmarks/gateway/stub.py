"""An expert that answers at once, on bare sockets: the yardstick for what a gateway adds.

``python stub.py PORT``. Any POST is answered with 64 tokens: as a document, or as an event stream
where the body asks for one. A body with ``pace-MS`` in its ``user`` gets an event every MS
milliseconds, so that every event is read by itself; without it they come all at once.
"""

import asyncio
import json
import re
import sys

import uvloop

N_TOKENS = 64
_MODEL = "stub"
_TOKENS = [f" token{n}" for n in range(N_TOKENS)]
_STREAMED = re.compile(rb'"stream": ?true')
_PACE = re.compile(rb"pace-(\d+)")
_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d+)\r\n", re.IGNORECASE)


def _document() -> bytes:
    message = {"role": "assistant", "content": "".join(_TOKENS)}
    usage = {"prompt_tokens": 20, "completion_tokens": N_TOKENS, "total_tokens": 20 + N_TOKENS}
    return json.dumps(
        {
            "id": "chatcmpl-stub",
            "object": "chat.completion",
            "created": 1,
            "model": _MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }
    ).encode()


def _event(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    document = {
        "id": "chatcmpl-stub",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": _MODEL,
        "choices": [choice],
    }
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _events() -> list[bytes]:
    first = _event({"role": "assistant", "content": ""})
    rest = [_event({"content": token}) for token in _TOKENS]
    end = _event({}, "stop") + b"data: [DONE]\n\n"
    return [_chunk(piece) for piece in (first, *rest, end)]


DOCUMENT = _document()
_WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
    + str(len(DOCUMENT)).encode()
    + b"\r\n\r\n"
    + DOCUMENT
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENTS = _events()
_END = b"0\r\n\r\n"
_BURST = _STREAM_HEAD + b"".join(_EVENTS) + _END
_OTHER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n"
_MODELS = _OTHER + b'{"object": "list", "data": [ ]}'


class Stub(asyncio.Protocol):
    """One connection; requests are answered in their order, one at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As asyncio says."""
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """As asyncio says."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """As asyncio says: answer once the whole body is there."""
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(self._received, 0, head_end + 2)
        if length is None and b"chunked" in self._received[:head_end]:
            if not self._received.endswith(_END):
                return
        elif len(self._received) < head_end + 4 + (int(length[1]) if length else 0):
            return
        body, self._received = self._received, b""
        assert self._transport is not None
        if not body.startswith(b"POST"):
            self._transport.write(_MODELS)
        elif _STREAMED.search(body) is None:
            self._transport.write(_WHOLE)
        elif (pace := _PACE.search(body)) is None:
            self._transport.write(_BURST)
        else:
            self._transport.write(_STREAM_HEAD)
            self._next(0, int(pace[1]) / 1000)

    def _next(self, n: int, interval_s: float) -> None:
        if self._transport is None:
            return
        if n == len(_EVENTS):
            self._transport.write(_END)
            return
        self._transport.write(_EVENTS[n])
        asyncio.get_running_loop().call_later(interval_s, self._next, n + 1, interval_s)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
