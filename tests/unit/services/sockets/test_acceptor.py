"""Connections that are accepted: one that fails is closed, and the next is served."""

import asyncio

from coe.services.sockets.acceptor import Acceptor
from coe.services.sockets.server import listening


class Greeting(asyncio.Protocol):
    """Says one word."""

    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


async def said_to(address):
    reader, writer = await asyncio.open_connection(*address)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_a_connection_that_fails_as_nobody_foresaw_is_closed(monkeypatch):
    loop, n_failures = asyncio.get_running_loop(), 2
    opening = loop.connect_accepted_socket

    async def open_one(*given, **more):
        nonlocal n_failures
        n_failures -= 1
        return 1 / 0 if n_failures >= 0 else await opening(*given, **more)

    monkeypatch.setattr(loop, "connect_accepted_socket", open_one)
    with listening("127.0.0.1", 0) as listener:
        acceptor = Acceptor(listener, Greeting, (), 10, lambda: b"")
        async with asyncio.timeout(5.0):
            said = [await said_to(listener.getsockname()) for _ in range(3)]
        acceptor.close()
        await acceptor.wait_closed()
    assert said == [b"", b"", b"hello"]
