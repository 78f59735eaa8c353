"""What servers do that harm, and what callers do at the wrong moment, on both event loops."""

import asyncio
import gc
import socket
import ssl
import threading
import tracemalloc
from contextlib import asynccontextmanager, suppress

import pytest
import trustme
import uvloop

from coe.http.connection import Connection
from coe.http.errors import GoneError, HttpError, NoHttpError, UnreachedError
from coe.http.pool import Pool
from coe.http.response import Response

SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHello"
NOTHING = b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n"
TRAILED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nHi\r\n0\r\nx: "


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield lambda coroutine: runner.run(asyncio.wait_for(coroutine, 20))


@pytest.fixture(scope="module")
def tls():
    """Of a server, and of who believes it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@asynccontextmanager
async def serving(answered, tls=None):
    """The address of a server that does ``answered`` with every connection."""

    async def serve(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answered(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    opened = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls, limit=1024)
    async with opened:
        scheme, port = "http" if tls is None else "https", opened.sockets[0].getsockname()[1]
        yield f"{scheme}://127.0.0.1:{port}"


def sending(answer):
    async def answered(reader, writer):
        writer.write(answer)
        await writer.drain()
        await reader.read(1)

    return answered


async def asked(pool, url, content=b"{}", keep=True):
    response = await pool.request(url, content, {}, 1.0, keep)
    try:
        body = b""
        while piece := await response.read():
            body += piece
        return body
    finally:
        response.close()


def test_a_status_that_is_none_is_no_answer(run):
    async def ask():
        async with serving(sending(NOTHING)) as url, Pool() as pool:
            with pytest.raises(NoHttpError):
                await asyncio.wait_for(asked(pool, url), 2)

    run(ask())


def test_fields_after_a_body_have_an_end(run):
    async def endless(reader, writer):
        writer.write(TRAILED)
        for _ in range(128):
            writer.write(b"a" * 65536)
            await writer.drain()

    async def ask():
        async with serving(endless) as url, Pool() as pool:
            tracemalloc.start()
            try:
                with pytest.raises(NoHttpError):
                    await asked(pool, url)
                assert tracemalloc.get_traced_memory()[1] < 4_000_000
            finally:
                tracemalloc.stop()

    run(ask())


def answers_apart(listening, second, read, sent):
    """Answers, then sends ``second`` to nobody, or its end; then answers on a new connection."""
    for last in (False, True):
        taken, _ = listening.accept()
        with taken:
            taken.recv(4096)
            taken.sendall(SIZED)
            read.wait()
            if not last and second is not None:
                taken.sendall(second)
        sent.set()


@pytest.mark.parametrize("second", [SIZED.replace(b"Hello", b"WRONG"), None], ids=["more", "end"])
def test_what_came_while_the_loop_was_busy_answers_nobody(run, second):
    async def ask():
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(5)
            read, sent = threading.Event(), threading.Event()
            answering = threading.Thread(target=answers_apart, args=(listening, second, read, sent))
            answering.start()
            try:
                async with Pool() as pool:
                    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
                    assert await asked(pool, url) == b"Hello"
                    read.set()
                    sent.wait()
                    assert await asked(pool, url) == b"Hello"
            finally:
                answering.join()

    run(ask())


@pytest.mark.parametrize("n_turns", range(6))
def test_a_connection_that_is_closing_is_asked_nothing(run, n_turns):
    async def once(reader, writer):
        writer.write(SIZED)
        await writer.drain()
        writer.write_eof()

    async def ask():
        async with serving(once) as url, Pool() as pool:
            for _ in range(2):
                assert await asked(pool, url) == b"Hello"
                await asyncio.sleep(0.01)
                for _ in range(n_turns):
                    await asyncio.sleep(0)

    run(ask())


async def test_where_the_connection_ends_before_it_is_asked_nothing_was_sent():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(lambda one: None, lambda one: None), sock=ours
        )
        connection.drop()
        with pytest.raises(UnreachedError):
            await connection.ask([b"x"], True).head()
        await asyncio.sleep(0)


@pytest.mark.parametrize("secure", [False, True])
def test_an_answer_before_all_was_sent_is_the_last_of_its_connection(run, tls, secure):
    async def early(reader, writer):
        writer.write(SIZED)
        await writer.drain()
        await left.wait()

    left = asyncio.Event()

    async def ask():
        server, client = tls if secure else (None, None)
        async with serving(early, server) as url, Pool(tls=client) as pool:
            assert await asked(pool, url, b"a" * 20_000_000) == b"Hello"
            assert not any(pool._idle.values())
            left.set()

    run(ask())


class Buffered(asyncio.Transport):
    """A transport of which ``n`` bytes wait for a socket that takes no more."""

    def __init__(self, n):
        super().__init__()
        self.n, self.closed = n, False

    def get_write_buffer_size(self):
        return self.n

    def writelines(self, parts):
        pass

    def is_closing(self):
        return self.closed

    def abort(self):
        self.closed = True


@pytest.mark.parametrize(("n_below", "kept"), [(0, True), (1, False)])
async def test_what_waits_below_tls_was_not_sent(n_below, kept):
    free = []
    connection = Connection(free.append, lambda one: None)
    above = Buffered(0)
    connection.connection_made(Buffered(n_below))
    connection.secured(above)
    response = connection.ask([b"x"], True)
    await asyncio.sleep(0)
    connection.data_received(SIZED)
    assert await response.read() == b"Hello"
    assert (free, above.closed) == (([connection], False) if kept else ([], True))


@pytest.mark.parametrize("secure", [False, True])
def test_connections_that_close_as_soon_as_they_stand_are_not_kept_in_mind(run, tls, secure):
    async def ask():
        server, client = tls if secure else (None, None)
        opened = await asyncio.start_server(
            lambda reader, writer: writer.transport.abort(), "127.0.0.1", 0, ssl=server
        )
        async with opened, Pool(tls=client) as pool:
            port = opened.sockets[0].getsockname()[1]
            url = f"{'https' if secure else 'http'}://127.0.0.1:{port}"
            for _ in range(50):
                with pytest.raises((GoneError, UnreachedError)):
                    await asked(pool, url)
            await asyncio.sleep(0.02)
            assert not pool._open

    run(ask())


@pytest.mark.filterwarnings("error::ResourceWarning")
@pytest.mark.parametrize("secure", [False, True])
def test_who_leaves_at_the_nth_turn_leaves_nothing_behind(run, tls, secure):
    async def ask():
        server, client = tls if secure else (None, None)
        # a server whose handshake is broken off says so
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        async with serving(sending(SIZED), server) as url, Pool(tls=client) as pool:
            n_left = 0
            for n_turns in range(50):
                asking = asyncio.create_task(asked(pool, url, keep=False))
                for _ in range(n_turns):
                    await asyncio.sleep(0)
                asking.cancel()
                try:
                    assert await asking == b"Hello"
                except asyncio.CancelledError:
                    n_left += 1
                # another's connection may have the number of the one given up
                assert await asked(pool, url, keep=False) == b"Hello"
            assert n_left > 5
            await asyncio.sleep(0.05)
            assert not pool._open
        gc.collect()

    run(ask())


@pytest.mark.parametrize("host", ["a..b", "a" * 64, ".a"])
def test_a_name_that_is_none_leads_nowhere(run, host):
    async def ask():
        async with Pool() as pool:
            with pytest.raises(UnreachedError):
                await asked(pool, f"http://{host}/v1")

    run(ask())


@pytest.mark.parametrize("answer", [SIZED, SIZED[:-2], b"", b"junk\r\n"])
def test_an_answer_is_freed_without_the_garbage_collector(run, answer):
    async def once(reader, writer):
        writer.write(answer)
        await writer.drain()
        writer.write_eof()

    async def ask():
        async with serving(once) as url, Pool() as pool:
            with suppress(HttpError):
                await asked(pool, url)
            await asyncio.sleep(0.05)

    gc.collect()
    gc.disable()
    try:
        run(ask())
        assert not [one for one in gc.get_objects() if isinstance(one, Response | Connection)]
    finally:
        gc.enable()


class Tap:
    def pause(self):
        pass

    def resume(self):
        pass

    def drop(self):
        pass


async def test_an_answer_that_has_failed_does_not_go_on():
    """As where the time for it is over, and the server sends faster than it is read."""
    response = Response(Tap())
    response.begin(200, [])
    response.feed(b"a")
    response.fail(GoneError("too long"))
    response.feed(b"b")
    assert await response.read() == b"a"
    with pytest.raises(GoneError, match="too long"):
        await response.read()
    response.feed(b"c")
    with pytest.raises(HttpError):
        await response.read()


async def test_what_cannot_be_sent_is_not_shown():
    async with Pool() as pool:
        with pytest.raises(ValueError, match="8859-1") as raised:
            await pool.request("http://a", None, {"authorization": "Bearer s\u0436"}, 1.0)
    assert "Bearer" not in repr(raised.value)
    assert raised.value.__suppress_context__
