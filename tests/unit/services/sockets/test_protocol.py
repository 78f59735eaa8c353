"""What comes in on a connection: heads in pieces, what comes behind them, and who leaves."""

import asyncio
import socket
import sys

import pytest

from coe.services.sockets.protocol import MOST_UNSENT_BYTES
from coe.services.sockets.server import server

HOST = b"host: a\r\n"
GET = b"GET /%d HTTP/1.1\r\n" + HOST + b"\r\n"
TO_BE_CHUNKED = b"POST /0 HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is sent."""

    def __init__(self):
        ours, self.peer = socket.socketpair()
        super().__init__({"socket": ours})
        self.sent, self.closing = b"", False

    def write(self, data):
        self.sent += data

    def writelines(self, data):
        self.sent += b"".join(data)

    def is_closing(self):
        return self.closing

    def close(self):
        self.closing = True

    abort = close

    def set_write_buffer_limits(self, high=None, low=None):
        self.most_unsent = high

    def get_write_buffer_size(self):
        return 0

    def pause_reading(self):
        pass

    resume_reading = pause_reading


class Timers:
    """The event loop, but for its timers: they run when they are told to."""

    def __init__(self):
        self.waiting = {}
        self._loop = asyncio.get_running_loop()

    def call_later(self, delay_s, callback):
        handle = self._loop.call_later(3600, callback)
        self.waiting[handle] = (delay_s, callback)
        return handle

    def run(self):
        """As if an hour had passed."""
        for handle, (_, callback) in tuple(self.waiting.items()):
            if not handle.cancelled():
                handle.cancel()
                callback()

    def __getattr__(self, name):
        return getattr(self._loop, name)


class Gateway:
    """An application that waits before and amid its answers, on one connection."""

    def __init__(self):
        self.seen, self.bodies, self.gone, self.unread = [], [], [], []
        self.reads = True
        self.begins, self.goes_on = asyncio.Event(), asyncio.Event()
        self.begins.set()
        self.goes_on.set()
        running = server(self.app, unread=self._note, interface="asgi3")
        running.config.load()
        self.timers, self.wire = Timers(), Wire()
        self.http = running.config.http_protocol_class(
            config=running.config,
            server_state=running.server_state,
            app_state={},
            _loop=self.timers,
        )
        self.http.connection_made(self.wire)

    async def app(self, scope, receive, send):
        body, more = b"", self.reads
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.append(scope["path"])
                return
            body, more = body + message["body"], message["more_body"]
        self.seen.append((scope["path"], scope["headers"]))
        self.bodies.append(body)
        await self.begins.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        leaving = asyncio.create_task(receive())
        going = asyncio.create_task(self.goes_on.wait())
        await asyncio.wait([leaving, going], return_when=asyncio.FIRST_COMPLETED)
        going.cancel()
        leaving.cancel()
        if not self.goes_on.is_set():
            self.gone.append(scope["path"])
            return
        await send({"type": "http.response.body", "body": b"last"})

    def _note(self, status, code):
        self.unread.append((status, code))

    async def hear(self, *pieces):
        """Have these come, one after the other."""
        for piece in pieces:
            self.http.data_received(piece)
            await self.rest()

    async def rest(self):
        """Have everything be done that can be."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def go_on(self):
        """Let every answer go on."""
        self.begins.set()
        self.goes_on.set()
        await self.rest()

    @property
    def answers(self):
        """What was sent, without the heads' fields."""
        return [
            part.partition(b"\r\n")[0] + b" " + part.partition(b"\r\n\r\n")[2]
            for part in self.wire.sent.split(b"HTTP/1.1 ")[1:]
        ]


WHOLE = b"200 OK 5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n"


@pytest.fixture
async def gateway():
    opened = Gateway()
    with opened.wire.peer, opened.wire.get_extra_info("socket"):
        yield opened


def field(n_bytes):
    return b"x-a: " + b"a" * (n_bytes - 7) + b"\r\n"


def cut(text, n_bytes):
    return [text[at : at + n_bytes] for at in range(0, len(text), n_bytes)]


@pytest.mark.parametrize("n_bytes", [1000, 5000, 22_000, 30_000])
async def test_a_head_may_come_in_pieces(gateway, n_bytes):
    path = b"/" + b"a" * 8000
    head = b"GET %b HTTP/1.1\r\n" % path + HOST + field(4000) * 4 + b"\r\n"
    await gateway.hear(*cut(head, n_bytes))
    await gateway.hear(*cut(head, n_bytes))
    assert gateway.answers == [WHOLE] * 2


@pytest.mark.parametrize("fields", [field(4000) * 6, field(25_000)], ids=["many", "one"])
@pytest.mark.parametrize("n_bytes", [5000, 30_000])
async def test_a_head_that_is_too_long_is_refused_before_its_end(gateway, fields, n_bytes):
    await gateway.hear(*cut(b"GET /0 HTTP/1.1\r\n" + HOST + fields, n_bytes))
    assert gateway.answers[0].startswith(b"431 ")
    assert gateway.unread == [(431, "head_too_large")]
    assert gateway.wire.closing


async def test_a_field_after_a_body_says_nothing(gateway):
    await gateway.hear(TO_BE_CHUNKED + b"2\r\n{}\r\n0\r\nauthorization: Bearer b\r\n\r\n")
    [(_, headers)] = gateway.seen
    assert headers == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
    assert gateway.bodies == [b"{}"]


async def test_fields_after_a_body_have_an_end(gateway):
    await gateway.hear(TO_BE_CHUNKED + b"2\r\n{}\r\n0\r\n" + field(4000) * 6)
    assert gateway.answers[0].startswith(b"431 ")
    assert gateway.wire.closing


NOTHING = b"NOTHING THAT IS ASKED\r\n\r\n"
BROKEN_CHUNK = b"zz\r\n"


@pytest.mark.parametrize("amid", [False, True])
@pytest.mark.parametrize("apart", [False, True])
async def test_what_is_none_behind_a_request_takes_nothing_from_its_answer(gateway, amid, apart):
    (gateway.goes_on if amid else gateway.begins).clear()
    await gateway.hear(*[GET % 0, NOTHING] if apart else [GET % 0 + NOTHING])
    await gateway.hear(NOTHING)
    assert not gateway.wire.closing
    await gateway.go_on()
    assert gateway.answers == [WHOLE]
    assert gateway.wire.closing
    assert gateway.gone == []


@pytest.mark.parametrize(
    "last", [NOTHING, TO_BE_CHUNKED + BROKEN_CHUNK, b"CONNECT a:1 HTTP/1.1\r\n\r\n"]
)
async def test_whoever_asked_before_what_is_none_is_answered(gateway, last):
    gateway.goes_on.clear()
    await gateway.hear(GET % 0 + GET % 1, GET % 2 + last)
    await gateway.go_on()
    assert gateway.answers == [WHOLE] * 3
    assert gateway.wire.closing
    assert gateway.gone == []


async def test_a_request_whose_body_is_none_is_refused_and_counted_by_who_saw_it(gateway):
    await gateway.hear(TO_BE_CHUNKED, BROKEN_CHUNK)
    assert gateway.answers[0].startswith(b"400 ")
    assert gateway.wire.closing
    gateway.http.connection_lost(None)
    await gateway.go_on()
    assert len(gateway.answers) == 1
    assert gateway.gone == ["/0"]
    assert gateway.unread == []


async def test_what_is_none_on_a_connection_at_rest_is_refused(gateway):
    await gateway.hear(GET % 0, NOTHING)
    assert gateway.answers[0] == WHOLE
    assert gateway.answers[1].startswith(b"400 ")
    assert gateway.unread == [(400, "invalid_http")]


@pytest.mark.parametrize("n_more", [0, 1, 2])
async def test_who_leaves_is_missed_whatever_else_was_asked(gateway, n_more):
    gateway.goes_on.clear()
    await gateway.hear(*(GET % n for n in range(1 + n_more)))
    gateway.http.connection_lost(None)
    await gateway.rest()
    assert gateway.gone == ["/0"]


@pytest.mark.parametrize("n_more", [0, 1, 2])
async def test_who_says_no_more_amid_an_answer_is_not_closed_but_cut_off(gateway, n_more):
    """A connection that closes sends what it has first, and may never get to its end."""
    gateway.goes_on.clear()
    await gateway.hear(*(GET % n for n in range(1 + n_more)))
    assert not gateway.http.eof_received()
    assert gateway.wire.closing


async def test_who_says_no_more_after_an_answer_may_still_read_it(gateway):
    await gateway.hear(GET % 0)
    assert not gateway.http.eof_received()
    assert not gateway.wire.closing
    assert gateway.answers == [WHOLE]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only reading tells")
@pytest.mark.parametrize("n_more", [0, 1, 2])
async def test_who_leaves_is_seen_to_where_nothing_tells(gateway, n_more):
    gateway.goes_on.clear()
    await gateway.hear(*(GET % n for n in range(1 + n_more)))
    gateway.timers.run()
    assert not gateway.wire.closing
    gateway.wire.peer.shutdown(socket.SHUT_WR)
    gateway.timers.run()
    assert gateway.wire.closing


async def test_no_more_than_so_much_waits_unsent_whatever_the_transport(gateway):
    assert gateway.wire.most_unsent == MOST_UNSENT_BYTES == 64 * 1024


TO_BE_HTTP_2 = (
    b"POST /0 HTTP/1.1\r\n" + HOST + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
    b"http2-settings: AAMAAABkAAQAAP__\r\n"
)


@pytest.mark.parametrize(
    "body",
    [b"content-length: 2\r\n\r\n{}", b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
)
@pytest.mark.parametrize("n_bytes", [1, 1000])
async def test_who_asks_for_another_protocol_is_answered_in_this_one(gateway, body, n_bytes):
    for _ in range(2):
        await gateway.hear(*cut(TO_BE_HTTP_2 + body + GET % 1, n_bytes))
    assert gateway.answers == [WHOLE] * 4
    assert gateway.bodies == [b"{}", b""] * 2
    assert [path for path, _ in gateway.seen] == ["/0", "/1"] * 2
    assert not gateway.wire.closing


async def test_who_asks_for_another_protocol_needs_no_body(gateway):
    await gateway.hear((TO_BE_HTTP_2 + b"\r\n") * 2 + GET % 1)
    await gateway.hear(GET % 2)
    assert gateway.answers == [WHOLE] * 4
    assert gateway.bodies == [b""] * 4


REFUSED = b"POST /0 HTTP/1.1\r\n" + HOST + b"content-length: 5\r\n\r\n"


@pytest.mark.parametrize("more", [b"\r\n", b"\r\n\r\n\r\n"])
async def test_a_connection_at_rest_ends_whatever_comes_that_is_no_request(gateway, more):
    await gateway.hear(GET % 0, more)
    gateway.timers.run()
    assert gateway.wire.closing
    assert gateway.answers == [WHOLE]


async def test_a_connection_whose_answer_came_before_the_body_ends(gateway):
    gateway.reads = False
    await gateway.hear(REFUSED, b"{", b"}")
    assert gateway.answers == [WHOLE]
    gateway.timers.run()
    assert gateway.wire.closing


async def test_a_request_is_answered_once_though_its_body_turns_out_to_be_none(gateway):
    gateway.reads = False
    await gateway.hear(TO_BE_CHUNKED, BROKEN_CHUNK)
    assert gateway.answers == [WHOLE]
    assert gateway.wire.closing
    assert gateway.unread == []


@pytest.mark.parametrize("n_bytes", [10, 1000])
async def test_a_connection_does_not_end_amid_its_next_answer(gateway, n_bytes):
    gateway.goes_on.clear()
    await gateway.hear(GET % 0, *cut((GET % 1)[:-2], n_bytes))
    await gateway.go_on()
    gateway.goes_on.clear()
    await gateway.hear((GET % 1)[-2:])
    gateway.timers.run()
    assert not gateway.wire.closing
    await gateway.go_on()
    assert gateway.answers == [WHOLE] * 2
