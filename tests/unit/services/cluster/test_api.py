"""The supervisor's HTTP face, asked as gateways and operators do."""

import asyncio
import socket
from contextlib import suppress

import httpx
import pytest

from coe.errors.gateway import FleetError
from coe.replica import Card, Deployment, HostReport, NodeReading, Replica
from coe.services.cluster.accounts import NodeAccounts
from coe.services.cluster.api import ServedSupervisor
from coe.services.cluster.follower import FleetClient, following
from coe.services.cluster.supervisor import Supervisor

A = Deployment("a", "{}")
TOKEN = "s" * 32


@pytest.fixture
async def served(cluster, supervising):
    """A supervisor that runs, its application, and a client with the right token."""
    async with supervising(cluster, now=lambda: 0.0) as supervisor:
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


async def test_a_refusal_is_one_line_for_people(served):
    supervisor, _, source = served
    await supervisor.want([A])
    with pytest.raises(FleetError) as refused:
        await source.scale("a", 1001)
    assert "replicas: Input should be less than or equal to 1000" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "pydantic" not in str(refused.value)


async def test_no_more_is_read_than_a_question_takes(served):
    _, client, _ = served
    read = 0

    async def pieces():
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b" " * 65536

    answer = await client.post(
        "http://fleet/v1/fleet/scale",
        content=pieces(),
        headers={"authorization": f"Bearer {TOKEN}"},
    )
    assert answer.status_code == 413
    assert read < 10


async def test_an_address_that_is_taken_is_said_and_used_once_it_is_free(cluster, until):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    served = ServedSupervisor(Supervisor(cluster), "127.0.0.1", port, TOKEN)
    task = asyncio.create_task(served.run())
    try:
        with pytest.raises(FleetError, match=f"cannot listen on 127.0.0.1:{port}"):
            await served.want([A])
        assert not cluster.copies
        taken.close()
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(10.0):
            source = FleetClient(client, f"http://127.0.0.1:{port}", TOKEN)
            while True:
                with suppress(FleetError):
                    assert (await source.snapshot()).epoch == served.supervisor.epoch
                    break
                await asyncio.sleep(0.05)
        await served.want([A])
        await until(lambda: cluster.of("a"))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_no_secret_is_in_what_a_log_would_show(served):
    supervisor, _, source = served
    found = Replica("a-1", "a", "n", HostReport("ready"), "the-key")
    shown = repr([source, ServedSupervisor(supervisor, "::1", 1, TOKEN), found])
    assert TOKEN not in shown
    assert "the-key" not in shown + repr(Card("a", "d", "the-key"))


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


async def test_a_meter_read_on_a_node_reaches_the_accounts_of_a_gateway(served, cluster, until):
    supervisor, _, source = served
    await supervisor.want([A])
    await until(lambda: cluster.of("a"))
    reading = NodeReading(5.0, 2**61, 0.1, "board", "ina3221", 11.6)
    cluster.of("a")[0].report = HostReport("ready", address="http://here", meter=reading)
    accounts = NodeAccounts({"here": 3.0})
    async with following(source, noticed=accounts.note) as follower:
        await until(lambda: accounts.machines)
        (replica,) = follower.snapshot.of("a")
    assert replica.report.meter == reading
    assert list(accounts.copies) == [replica.replica_id]
    account = accounts.machines["here"]
    assert (account.scope, account.idle_w) == ("board", 3.0)


def _refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


@pytest.mark.parametrize("answer", [b"{}", b"hello", b'{"epoch": 1}'])
async def test_something_else_at_the_address_is_said(answer):
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=answer))
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(FleetError, match="is not a fleet's supervisor"):
            await FleetClient(client, "http://fleet", TOKEN).snapshot()
