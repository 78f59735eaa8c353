"""Requests over connections that are kept: real sockets, bytes as servers send them."""

import asyncio
import socket
from contextlib import aclosing, suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.http.address import Origin, address_of
from coe.http.connection import Connection
from coe.http.errors import (
    BrokenOffError,
    GoneError,
    HttpError,
    LateError,
    NoHttpError,
    UnreachedError,
)
from coe.http.pool import Pool

SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: 1\r\nX-A: 2\r\n\r\nHello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nHel\r\n2\r\nlo\r\n0\r\nx-after: 1\r\n\r\n"
)
TO_THE_END = b"HTTP/1.0 200 OK\r\n\r\nHello"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + SIZED
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"


async def until(happened):
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Server:
    """Sends ``answer`` for every request, and closes after ``last`` of them on a connection."""

    def __init__(self):
        self.answer, self.last, self.closes_after_s = SIZED, 1000, 0.0
        self.heads, self.bodies, self.n_connections, self.n_closed = [], [], 0, 0

    async def serve(self, reader, writer):
        self.n_connections += 1
        try:
            for _ in range(self.last):
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                sizes = [line for line in head.split(b"\r\n") if b"content-length" in line]
                n_bytes = int(sizes[0].split(b":")[1]) if sizes else 0
                self.bodies.append(await reader.readexactly(n_bytes))
                writer.write(self.answer)
            await asyncio.sleep(self.closes_after_s)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.n_closed += 1
        finally:
            writer.close()


@pytest.fixture
async def server():
    served = Server()
    async with await asyncio.start_server(served.serve, "127.0.0.1", 0) as opened:
        served.url = f"http://127.0.0.1:{opened.sockets[0].getsockname()[1]}/v1"
        yield served


@pytest.fixture
async def pool():
    async with Pool(kept_s=0.3) as opened:
        yield opened


async def asked(pool, url, content=b"{}", keep=True, **fields):
    response = await pool.request(url, content, fields, 1.0, keep)
    try:
        return response, b"".join([piece async for piece in pieces_of(response)])
    finally:
        response.close()


async def pieces_of(response):
    while piece := await response.read():
        yield piece


@pytest.mark.parametrize("answer", [SIZED, CHUNKED, EARLY])
async def test_one_connection_answers_one_request_after_the_other(server, pool, answer):
    server.answer = answer
    for n in range(3):
        response, body = await asked(pool, server.url, b"%d" % n, authorization="Bearer k")
        assert (response.status, body) == (200, b"Hello")
    assert server.n_connections == 1
    assert server.bodies == [b"0", b"1", b"2"]
    assert server.heads[2].startswith(b"POST /v1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"authorization: Bearer k\r\n" in server.heads[2]


async def test_fields_are_found_by_their_names_in_lower_case(server, pool):
    response, _ = await asked(pool, server.url)
    assert response.every(b"x-a") == ["1", "2"]
    assert response.first(b"x-a") == "1"
    assert response.first(b"x-b", "none") == "none"


async def test_a_field_after_the_body_is_not_of_its_head(server, pool):
    server.answer = CHUNKED
    response, _ = await asked(pool, server.url)
    assert response.every(b"x-after") == []


async def test_without_content_it_is_read(server, pool):
    assert (await asked(pool, server.url + "/models", None))[1] == b"Hello"
    assert server.heads[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"content-length" not in server.heads[0]


async def test_an_answer_may_be_empty(server, pool):
    server.answer = NOTHING
    for _ in range(2):
        response, body = await asked(pool, server.url)
        assert (response.status, body) == (204, b"")
    assert server.n_connections == 1


async def test_a_body_may_go_on_to_the_end_of_its_connection(server, pool):
    server.answer, server.last = TO_THE_END, 1
    for n in range(2):
        assert (await asked(pool, server.url))[1] == b"Hello"
        assert server.n_connections == n + 1


@pytest.mark.parametrize(
    "answer",
    [
        SIZED + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
        SIZED + b"surplus",
        SIZED.replace(b"x-a: 1", b"connection: close"),
    ],
)
async def test_what_follows_an_answer_answers_nobody(server, pool, answer):
    server.answer = answer
    for n in range(3):
        assert (await asked(pool, server.url))[1] == b"Hello"
        assert server.n_connections == n + 1


async def test_a_connection_is_used_once_where_that_is_wished(server, pool):
    for n in range(2):
        assert (await asked(pool, server.url, keep=False))[1] == b"Hello"
        assert server.n_connections == n + 1
    assert b"connection: close\r\n" in server.heads[0]


async def test_a_connection_that_has_ended_meanwhile_is_not_used_again(server):
    """Its end has come, and nobody has read it: the loop was busy."""
    server.last, server.closes_after_s = 1, 0.05
    async with Pool(kept_s=60.0) as pool:
        await asked(pool, server.url)
        await asyncio.sleep(0.15)
        (kept,) = pool._idle.values()
        assert kept == []
        assert (await asked(pool, server.url))[1] == b"Hello"


async def test_the_end_of_a_connection_is_seen_before_asyncio_has_told_it(server):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    with theirs:
        _, connection = await loop.create_connection(
            lambda: Connection(lambda one: None, lambda one: None), sock=ours
        )
        assert connection.stands
        theirs.send(b"x")
        assert not connection.stands
        connection.drop()
        assert not connection.stands
        await asyncio.sleep(0)


async def test_a_connection_that_nobody_uses_is_closed(server, pool):
    await asked(pool, server.url)
    await asyncio.sleep(0.8)
    assert server.n_closed == 1
    assert not pool._open


async def test_requests_at_once_have_connections_of_their_own(server, pool):
    found = await asyncio.gather(*(asked(pool, server.url) for _ in range(5)))
    assert [body for _, body in found] == [b"Hello"] * 5
    assert server.n_connections == 5
    await asked(pool, server.url)
    assert server.n_connections == 5


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", GoneError),
        (b"HTTP/1.1 200 OK\r\ncontent-le", GoneError),
        (b"SSH-2.0-OpenSSH_9.6\r\n", NoHttpError),
        (b"HTTP/1.1 200 OK\r\n" + b"x-a: " + b"a" * 200_000, NoHttpError),
        (SIZED[:-1], BrokenOffError),
        (CHUNKED[:-3], BrokenOffError),
        (CHUNKED.replace(b"2\r\nlo", b"z\r\nlo"), NoHttpError),
        (SIZED.replace(b"x-a: 1", b"content-length: 7"), NoHttpError),
        (SIZED.replace(b"x-a: 1", b"transfer-encoding: chunked"), NoHttpError),
    ],
)
async def test_what_is_no_answer_is_an_error(server, pool, answer, error):
    server.answer, server.last = answer, 1
    with pytest.raises(error):
        await asked(pool, server.url)
    assert not any(pool._idle.values())


async def test_whoever_changes_the_protocol_answers_nothing(server, pool):
    server.answer = b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nHello"
    response, body = await asked(pool, server.url)
    assert (response.status, body) == (101, b"")
    assert not any(pool._idle.values())


async def test_who_leaves_closes_the_connection(server, pool):
    server.answer = b""
    asking = asyncio.create_task(asked(pool, server.url))
    await until(lambda: server.bodies)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: server.n_closed)
    assert not pool._open


async def test_an_answer_before_all_was_sent_is_the_last_of_its_connection(pool):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SIZED)
        await writer.drain()
        left.set_result(await reader.read(1) == b"")
        writer.close()

    left = asyncio.get_running_loop().create_future()
    async with await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1024) as opened:
        url = f"http://127.0.0.1:{opened.sockets[0].getsockname()[1]}"
        # the connection may break before the answer is read
        with suppress(HttpError):
            assert (await asked(pool, url, b"a" * 20_000_000))[1] == b"Hello"
        assert not any(pool._idle.values())
        await left


async def test_where_nobody_is_there_is_no_connection(pool):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(UnreachedError, match="ConnectionRefusedError"):
        await asked(pool, url)


async def test_a_connection_has_to_stand_in_time():
    async def never(host, port):
        await asyncio.sleep(60)

    async with Pool(resolve=never) as pool:
        with pytest.raises(LateError):
            await pool.request("http://a.example", None, {}, 0.05)


async def test_the_next_address_is_tried_where_the_first_does_not_answer(server):
    """The first is there, and takes no connections: its line is full."""
    port = address_of(server.url).origin.port
    full = socket.create_server(("127.0.0.2", port), backlog=0)
    waiting = [socket.socket() for _ in range(8)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(("127.0.0.2", port))

    async def both(host, port):
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.2", port)), (*kind, ("127.0.0.1", port))]

    try:
        async with Pool(resolve=both) as pool:
            assert (await asked(pool, server.url))[1] == b"Hello"
    finally:
        for one in (full, *waiting):
            one.close()


@pytest.mark.parametrize("name", ["x-a", "authorization"])
@pytest.mark.parametrize("value", ["a\r\nx-b: 1", "a\nb", "a\rb", "a\0b"])
async def test_a_field_is_one_line(server, pool, name, value):
    with pytest.raises(ValueError, match="one line"):
        await asked(pool, server.url, **{name: value})
    assert not server.heads


async def test_a_pool_that_is_closed_lets_nobody_wait(server):
    server.answer = b""
    async with Pool() as pool:
        asking = asyncio.create_task(asked(pool, server.url))
        await until(lambda: server.bodies)
    with pytest.raises(HttpError):
        await asking


@pytest.mark.parametrize(
    ("url", "origin", "named", "path"),
    [
        ("http://a.example/v1", Origin("a.example", 80, False), "a.example", "/v1"),
        ("https://a.example:8443", Origin("a.example", 8443, True), "a.example:8443", "/"),
        ("https://A.example:443/", Origin("a.example", 443, True), "a.example", "/"),
        ("http://[::1]:80/x", Origin("::1", 80, False), "[::1]", "/x"),
        ("http://[::1]:81/x", Origin("::1", 81, False), "[::1]:81", "/x"),
        (
            "http://b\N{LATIN SMALL LETTER U WITH DIAERESIS}.de/x y%20z%",
            Origin("xn--b-eha.de", 80, False),
            "xn--b-eha.de",
            "/x%20y%20z%25",
        ),
    ],
)
def test_an_address_is_taken_apart(url, origin, named, path):
    found = address_of(url)
    assert (found.origin, found.named, found.path) == (origin, named, path)


@pytest.mark.parametrize("url", ["", "a.example", "ftp://a/", "http:///v1", "http://u:p@a/"])
def test_what_is_no_address_is_none(url):
    with pytest.raises(ValueError, match="http"):
        address_of(url)


class Transport:
    """A transport to nobody."""

    def __init__(self):
        self.closed, self.paused = False, False
        self.sent = []

    def is_closing(self):
        return self.closed

    def writelines(self, parts):
        self.sent += parts

    def get_write_buffer_size(self):
        return 0

    def get_extra_info(self, name):
        return None

    def abort(self):
        self.closed = True

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False


@given(
    st.sampled_from([SIZED, CHUNKED, EARLY, CHUNKED.replace(b"\r\n\r\n3", b"\r\nx: y\r\n\r\n3")]),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_an_answer_is_the_same_however_its_bytes_are_parted(answer, cuts):
    free = []

    async def read():
        connection = Connection(free.append, lambda one: None)
        connection.connection_made(Transport())
        response = connection.ask([b""], True)
        edges = sorted({0, len(answer), *(cut % len(answer) for cut in cuts)})
        for begin, end in pairwise(edges):
            assert not free
            connection.data_received(answer[begin:end])
        await response.head()
        async with aclosing(pieces_of(response)) as pieces:
            assert b"".join([piece async for piece in pieces]) == b"Hello"
        return connection

    assert free == [asyncio.run(read())]


async def test_who_answers_before_the_request_has_gone_is_not_asked_again():
    transport, free = Transport(), []
    connection = Connection(free.append, lambda one: None)
    connection.connection_made(transport)
    response = connection.ask([b"head ", b"body"], True)
    connection.data_received(SIZED)
    assert await response.read() == b"Hello"
    assert transport.closed
    await asyncio.sleep(0)
    assert (free, transport.sent) == ([], [])


async def test_a_request_goes_out_with_the_turn_that_it_was_made_in():
    transport = Transport()
    connection = Connection(lambda one: None, lambda one: None)
    connection.connection_made(transport)
    connection.ask([b"head ", b"body"], True)
    assert transport.sent == []
    await asyncio.sleep(0)
    assert transport.sent == [b"head ", b"body"]


async def test_who_does_not_read_has_no_more_sent_to_him():
    transport = Transport()
    connection = Connection(lambda one: None, lambda one: None)
    connection.connection_made(transport)
    response = connection.ask([b""], True)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    connection.data_received(b"a" * 100_000)
    assert not transport.paused
    connection.data_received(b"a" * 100_000)
    assert transport.paused
    assert len(await response.read()) == 200_000
    assert not transport.paused


async def test_what_came_before_a_break_is_read_before_it_is_told():
    connection = Connection(lambda one: None, lambda one: None)
    connection.connection_made(Transport())
    response = connection.ask([b""], True)
    connection.data_received(SIZED[:-2])
    connection.connection_lost(None)
    assert await response.read() == b"Hel"
    with pytest.raises(BrokenOffError):
        await response.read()


async def test_connections_are_looked_at_again_after_a_look_that_failed(server, monkeypatch):
    async with Pool(kept_s=0.02) as pool:
        await asked(pool, server.url)
        pool._sweep.cancel()
        await asyncio.sleep(0.03)
        with monkeypatch.context() as failing:
            failing.setattr(Connection, "drop", None)
            with pytest.raises(TypeError):
                pool._swept()
        pool._idle.clear()
        await asked(pool, server.url)
        await until(lambda: not any(pool._idle.values()))
