"""The supervisor's HTTP face, asked as gateways and operators do."""

import asyncio

import httpx
import pytest

from coe.errors import FleetError
from coe.replica import Deployment, HostReport
from coe.services.cluster.api import ServedSupervisor
from coe.services.cluster.follower import FleetClient, following

A = Deployment("a", "{}")
TOKEN = "s" * 32


@pytest.fixture
async def served(cluster, supervising):
    """A supervisor that runs, its application, and a client with the right token."""
    async with supervising(cluster) as supervisor:
        app = ServedSupervisor(supervisor, "127.0.0.1", 1, TOKEN).app()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport) as client:
            yield supervisor, client, FleetClient(client, "http://fleet", TOKEN)


async def test_the_snapshot_crosses_the_wire_whole(served, until):
    supervisor, _, source = served
    await supervisor.want([A])
    await until(lambda: supervisor.snapshot().of("a") and supervisor.snapshot().of("a")[0].node)
    assert await source.snapshot() == supervisor.snapshot()


async def test_a_question_waits_for_news(served, cluster, until):
    supervisor, _, source = served
    await supervisor.want([A])
    await until(lambda: [r.report.state for r in supervisor.snapshot().of("a")] == ["ready"])
    seen = await source.snapshot()
    asked = asyncio.create_task(source.snapshot(seen, 5.0))
    await asyncio.sleep(0.05)
    assert not asked.done()
    cluster.of("a")[0].report = HostReport("failed", "gone")
    assert (await asked).of("a")[0].report.reason == "gone"


@pytest.mark.parametrize("shown", [None, "", "Bearer", f"Bearer {TOKEN[:-1]}", f"bearer {TOKEN} "])
async def test_nobody_is_answered_without_the_token(served, shown):
    _, client, _ = served
    headers = {} if shown is None else {"authorization": shown}
    for method, path in (("GET", ""), ("POST", "/scale"), ("POST", "/drain")):
        answer = await client.request(method, f"http://fleet/v1/fleet{path}", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_token"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/scale", {"expert": "a", "replicas": -1}, 400),
        ("/scale", {"expert": "a", "replicas": 1e9}, 400),
        ("/scale", {"expert": "a"}, 400),
        ("/scale", {"expert": "a", "replicas": 1, "more": 1}, 400),
        ("/scale", {"expert": "b", "replicas": 1}, 404),
        ("/drain", {"node": "moon"}, 404),
        ("/drain", ["moon"], 400),
        ("?wait_s=soon", None, 400),
        ("?version=x", None, 400),
        ("?wait_s=nan", None, 400),
        ("?wait_s=-1", None, 400),
    ],
)
async def test_a_wrong_question_is_refused_and_the_supervisor_goes_on(served, path, body, status):
    supervisor, client, source = served
    await supervisor.want([A])
    method = "GET" if body is None else "POST"
    answer = await client.request(
        method,
        f"http://fleet/v1/fleet{path}",
        json=body,
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert (await source.snapshot()).epoch == supervisor.epoch


async def test_scaled_and_drained_from_outside(served, until):
    supervisor, _, source = served
    await supervisor.want([A])
    await source.scale("a", 2)
    await until(lambda: len(supervisor.snapshot().of("a")) == 2)
    with pytest.raises(FleetError, match="no expert 'zzz'"):
        await source.scale("zzz", 1)
    with pytest.raises(FleetError, match="node 'moon'"):
        await source.drain("moon")


async def test_a_follower_keeps_the_last_word_of_a_silent_supervisor(served, until):
    supervisor, client, source = served
    await supervisor.want([A])
    await until(lambda: [r.report.state for r in supervisor.snapshot().of("a")] == ["ready"])
    said: list[str] = []
    async with following(source, said.append) as follower:
        assert follower.state("a") == "ready"
        assert follower.presence("a").n_copies == 1
        assert follower.state("b") == "absent"
        assert follower.presence("b").n_copies == 0
        transport, client._transport = client._transport, httpx.MockTransport(_refuse)
        supervisor.scale("a", 2)
        await until(lambda: follower.silent)
        assert follower.state("a") == "ready"
        assert "its last word holds" in said[0]
        client._transport = transport
        await until(lambda: follower.presence("a").n_copies == 2)
    assert len(said) == 2
    assert "answers again" in said[1]


def _refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize("answer", [b"{}", b"hello", b'{"epoch": 1}'])
async def test_something_else_at_the_address_is_said(answer):
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=answer))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(FleetError, match="is not a fleet's supervisor"):
            await FleetClient(client, "http://fleet", TOKEN).snapshot()
