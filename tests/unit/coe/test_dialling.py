"""Connections that are refused for where they lead, or for who is there: real sockets, real TLS."""

import asyncio
import datetime
import socket
import ssl

import pytest
import trustme

from coe.addresses import Reach, reach_of
from coe.answer import completion
from coe.core import Message, Request
from coe.errors.experts import ExpertUnavailableError, ExpertUntrustedError
from coe.experts.http import HttpExpert
from coe.experts.lines import lines
from coe.http.pool import Pool

WHOLE = completion("c", "up", "Hello", 3, 1, "stop")
ASKED = Request((Message("user", "Hi"),), payload={"stream": False})


class Names:
    """A name service whose answers the test changes."""

    def __init__(self):
        self.leads_to = []

    async def __call__(self, host, port):
        if not self.leads_to:
            raise OSError(None, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in self.leads_to]


class Server:
    """Answers whatever comes, and counts who connects."""

    def __init__(self):
        self.n_connections = 0

    async def serve(self, reader, writer):
        self.n_connections += 1
        await reader.readuntil(b"\r\n\r\n")
        size = f"content-length: {len(WHOLE)}"
        writer.write(f"HTTP/1.1 200 OK\r\n{size}\r\nconnection: close\r\n\r\n".encode() + WHOLE)
        await writer.drain()
        writer.close()


async def answer(client, url):
    return [piece async for piece in HttpExpert("up", client, url).stream(ASKED, None)]


@pytest.fixture
async def server():
    served = Server()
    async with await asyncio.start_server(served.serve, "127.0.0.1", 0) as opened:
        served.port = opened.sockets[0].getsockname()[1]
        yield served


async def test_a_name_is_looked_at_whenever_it_is_connected_to(server):
    names, url = Names(), f"http://expert.example:{server.port}/v1"
    async with Pool(Reach(loopback=True), resolve=names) as client:
        names.leads_to = ["127.0.0.1"]
        assert await answer(client, url) == [WHOLE]
        for elsewhere in ("169.254.169.254", "10.255.255.1", "0.0.0.0"):
            names.leads_to = [elsewhere]
            with pytest.raises(ExpertUntrustedError) as raised:
                await answer(client, url)
            assert raised.value.code == "upstream_blocked"
    assert server.n_connections == 1


async def test_a_name_that_leads_to_this_machine_is_not_connected_to_unless_it_is_allowed(server):
    names = Names()
    names.leads_to = ["127.0.0.1"]
    url = f"http://expert.example:{server.port}/v1"
    async with Pool(reach_of(url), resolve=names) as client:
        with pytest.raises(ExpertUntrustedError, match="allow_loopback") as raised:
            await answer(client, url)
    assert raised.value.code == "upstream_blocked"
    assert "127.0.0.1" not in str(raised.value)
    assert server.n_connections == 0
    async with Pool(reach_of(url, loopback=True), resolve=names) as client:
        assert await answer(client, url) == [WHOLE]


async def test_of_several_addresses_only_those_allowed_are_tried(server):
    names = Names()
    names.leads_to = ["10.255.255.1", "127.0.0.1"]
    async with Pool(Reach(loopback=True), resolve=names) as client:
        assert await answer(client, f"http://expert.example:{server.port}/v1") == [WHOLE]


async def test_a_name_that_leads_nowhere_is_unavailable():
    async with Pool(Reach(), resolve=Names()) as client:
        with pytest.raises(ExpertUnavailableError):
            await answer(client, "http://expert.example:8000/v1")


async def test_an_address_that_is_written_out_is_looked_at_too(server):
    async with Pool(Reach()) as client:
        with pytest.raises(ExpertUntrustedError) as raised:
            await answer(client, f"http://127.0.0.1:{server.port}/v1")
        assert raised.value.code == "upstream_blocked"
        with pytest.raises(ExpertUntrustedError):
            await answer(client, f"http://2130706433:{server.port}/v1")
    assert server.n_connections == 0


# ---- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    ca, folder = trustme.CA(), tmp_path_factory.mktemp("tls")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    return ca, folder / "ca.pem"


def certificate(ca, kind):
    long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    if kind == "expired":
        return ca.issue_cert("127.0.0.1", not_before=long_ago, not_after=long_ago.replace(month=2))
    if kind == "another name":
        return ca.issue_cert("other.example")
    return (trustme.CA() if kind == "another authority" else ca).issue_cert("127.0.0.1")


async def asked_over_tls(kind, authority, trusting):
    ca, path = authority
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate(ca, kind).configure_cert(tls)
    served = Server()
    opened = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=tls)
    async with opened as listening, lines() as wires:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        client = wires.to("up", reach_of(url), path if trusting else None)
        try:
            return await answer(client, url)
        finally:
            # a connection that is refused is closed in the background
            await asyncio.sleep(0.05)


async def test_who_proves_who_it_is_answers(authority):
    assert await asked_over_tls("right", authority, trusting=True) == [WHOLE]


@pytest.mark.parametrize("kind", ["expired", "another name", "another authority"])
async def test_who_does_not_prove_who_it_is_is_not_asked(authority, kind):
    with pytest.raises(ExpertUntrustedError) as raised:
        await asked_over_tls(kind, authority, trusting=True)
    assert raised.value.code == "upstream_tls"


async def test_an_authority_that_nobody_named_is_not_believed(authority):
    with pytest.raises(ExpertUntrustedError) as raised:
        await asked_over_tls("right", authority, trusting=False)
    assert raised.value.code == "upstream_tls"


async def test_who_speaks_no_tls_proves_nothing():
    left = asyncio.Event()

    async def greet(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()
        left.set()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as opened:
        url = f"https://127.0.0.1:{opened.sockets[0].getsockname()[1]}/v1"
        async with Pool(reach_of(url)) as client:
            with pytest.raises(ExpertUntrustedError) as raised:
                await answer(client, url)
        await left.wait()
    assert raised.value.code == "upstream_tls"


async def test_an_expert_keeps_its_connections_to_itself(authority):
    async with lines() as wires:
        reach = Reach()
        assert wires.to("a", reach) is wires.to("a", reach)
        assert wires.to("a", reach) is not wires.to("b", reach)
        assert wires.to("a", reach) is not wires.to("a", Reach(private=True))
        with pytest.raises(OSError, match="No such file"):
            wires.to("a", reach, authority[1].with_name("gone.pem"))
