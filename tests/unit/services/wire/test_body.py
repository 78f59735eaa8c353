"""Bodies: long ones are read beside the loop, one after the other."""

import asyncio
import json
import threading

from starlette.requests import Request

from coe.services.wire.body import json_of

LONG = 1024 * 1024


def request(body: bytes) -> Request:
    """One with this body, in pieces."""
    pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    left = [
        {"type": "http.request", "body": piece, "more_body": n + 1 < len(pieces)}
        for n, piece in enumerate(pieces)
    ]

    async def receive():
        return left.pop(0)

    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return Request({"type": "http", "headers": headers}, receive)


async def test_long_bodies_take_one_thread_however_many_come():
    """Each holds the interpreter: the loop waits for one of them, and not for all in turn."""
    told = [{"text": "x" * LONG, "n": n} for n in range(8)]
    bodies = [json.dumps(one).encode() for one in told]
    read = await asyncio.gather(*(json_of(request(body), 2 * LONG, 5.0) for body in bodies))
    assert read == told
    assert sum(thread.name.startswith("bodies") for thread in threading.enumerate()) == 1


async def test_a_short_body_is_read_at_once():
    body = json.dumps({"text": "x"}).encode()
    assert await json_of(request(body), LONG, 5.0) == {"text": "x"}
