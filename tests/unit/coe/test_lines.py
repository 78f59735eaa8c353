"""Pools of connections come and go with those who use them."""

import asyncio
import gc

from coe.addresses import Reach
from coe.experts.lines import lines

REACH = Reach(loopback=True)


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
    await reader.read()
    writer.close()


async def test_an_expert_has_one_pool_as_long_as_it_is_there() -> None:
    async with lines() as wires:
        pool = wires.to("a", REACH)
        assert wires.to("a", REACH) is pool
        assert wires.to("b", REACH) is not pool
        assert wires.to("a", Reach()) is not pool
        gc.collect()
        assert len(wires._others) == 1
        del pool
        gc.collect()
        assert len(wires._others) == 0


async def test_what_is_still_connected_is_closed_with_the_lines() -> None:
    async with await asyncio.start_server(hello, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with lines() as wires:
            response = await wires.to("a", REACH).request(url, None, {}, 1.0)
            assert await response.read() == b"hi"
            response.close()
            gc.collect()
            (kept,) = wires._others.values()
            (connection,) = kept._open
        assert not connection.stands
