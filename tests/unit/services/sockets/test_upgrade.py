"""Whoever asks for something else than HTTP is refused, and the operator is advised of nothing."""

import asyncio

from starlette.applications import Starlette

from coe.services.sockets.server import listening, server

UPGRADE = (
    b"GET / HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


async def test_nobody_is_advised_to_install_what_would_change_nothing(caplog):
    with listening("127.0.0.1", 0) as listener:
        running = server(Starlette())
        serving = asyncio.create_task(running.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(UPGRADE)
        assert (await reader.readline()).startswith(b"HTTP/1.1 404")
        writer.close()
        running.should_exit = True
        await serving
    assert caplog.records == []
