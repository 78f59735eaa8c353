"""Experts whose names lead elsewhere, or who cannot prove who they are: nobody is asked there."""

import datetime
import socket
import ssl

import pytest
import trustme

from coe.ledger.amounts import Amounts
from harness.gateway import LARGE
from harness.load import background
from harness.script import Script
from harness.stage import Stage, ends, stage

METADATA, PRIVATE = "169.254.169.254", "10.255.255.1"


class Names:
    """A resolver of the tests' own names: where each leads, or nowhere.

    It takes the place of the C library's, below everything that the gateway does with a name.
    """

    def __init__(self) -> None:
        self.leads: dict[str, str] = {}
        self.asked: list[str] = []
        self._usual = socket.getaddrinfo

    def getaddrinfo(self, host, port, *given, **more):
        """As `socket.getaddrinfo`."""
        if not str(host).endswith(".example"):
            return self._usual(host, port, *given, **more)
        self.asked.append(host)
        if host not in self.leads:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._usual(self.leads[host], port, *given, **more)


@pytest.fixture
def names(monkeypatch):
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    return found


async def refused(two: Stage, tag: str, code: str, status: int = 502) -> None:
    """Whoever names the expert is told why; it takes nothing, and nobody waits."""
    for stream in (True, False):
        seen = await two.caller.ask(f"{tag}{stream}", Script(), stream, model=LARGE)
        assert (seen.end, seen.status, seen.code) == ("refused", status, code), seen
        assert seen.took_s < 2.0
        assert two.attempts(seen.tag) == []


async def checked(two: Stage, *tags: str) -> None:
    """The checker's verdict; these, for whom nobody was asked, are requests and nothing more."""
    history = await two.checked()
    told = [
        told for tag in tags for stream in (True, False) for told in history.holds[f"{tag}{stream}"]
    ]
    assert {one.booked for one in told} == {tuple(Amounts(requests=1))}


async def test_f14_a_name_that_leads_nowhere_or_inwards_is_not_followed(tmp_path, names):
    """The C library's resolver is faked for names under ``.example``; all above it is real."""
    at = "http://large.example:{port}/v1"
    async with stage(tmp_path, urls={LARGE: at}) as two:
        async with background(two.caller) as seen:
            await refused(two, "nowhere", "expert_unavailable", 503)
            # to this machine it may not lead, though the expert listens: nobody set allow_loopback
            for place in (METADATA, PRIVATE, "127.0.0.1"):
                names.leads["large.example"] = place
                await refused(two, place, "upstream_blocked")
        assert ends(seen).keys() <= {"done", "whole"}
        assert two.large.log == []
        await checked(two, "nowhere", METADATA, PRIVATE, "127.0.0.1")


async def test_f14_a_name_that_changes_after_start_leads_nobody_astray(tmp_path, names):
    """Rebinding: connections stay where they are, and a new one begins with another look."""
    names.leads["large.example"] = "127.0.0.1"
    at = "http://large.example:{port}/v1"
    async with stage(tmp_path, urls={LARGE: at}, expert={"allow_loopback": True}) as two:
        async with background(two.caller) as seen:
            assert (await two.caller.ask("first", Script(), model=LARGE)).end == "whole"
            names.leads["large.example"] = METADATA
            await two.large.die()
            await two.large.start()
            await refused(two, "rebound", "upstream_blocked")
            names.leads["large.example"] = "127.0.0.1"
            assert (await two.caller.ask("again", Script(), model=LARGE)).end == "whole"
        assert ends(seen).keys() <= {"done", "whole"}
        await checked(two, "rebound")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    ca, path = trustme.CA(), tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return ca, path


def proving(ca: trustme.CA, kind: str) -> ssl.SSLContext:
    """By what an expert would prove who it is."""
    long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    more = {"not_before": long_ago, "not_after": long_ago.replace(month=2)}
    whose = trustme.CA() if kind == "another authority" else ca
    name = "other.example" if kind == "another name" else "127.0.0.1"
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    whose.issue_cert(name, **(more if kind == "expired" else {})).configure_cert(tls)
    return tls


@pytest.mark.parametrize("kind", ["expired", "another name", "another authority"])
async def test_f15_an_expert_that_does_not_prove_who_it_is_is_not_asked(tmp_path, authority, kind):
    ca, path = authority
    right = proving(ca, "right")
    async with stage(tmp_path, expert={"ca": str(path)}, tls=right) as two:
        async with background(two.caller) as seen:
            assert (await two.caller.ask("proved", Script(), model=LARGE)).end == "whole"
            await two.large.die()
            two.large.tls = proving(ca, kind)
            await two.large.start()
            n_before = len(two.large.log)
            await refused(two, "unproved", "upstream_tls")
            assert two.large.log[n_before:] == []
            await two.large.die()
            two.large.tls = right
            await two.large.start()
            assert (await two.caller.ask("again", Script(), model=LARGE)).end == "whole"
        assert ends(seen).keys() <= {"done", "whole"}
        await checked(two, "unproved")
