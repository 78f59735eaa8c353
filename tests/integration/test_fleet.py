"""Real experts on a real Ray cluster of several nodes: placed, found, lost, moved."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from coe.config import DATA, load_config
from coe.errors.gateway import FleetError
from coe.replica import Replica
from coe.services.cluster.follower import FleetClient
from harness.nodes import Nodes, fleet_secrets, ray_nodes

pytest.importorskip("ray")
pytestmark = pytest.mark.engine

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
CONFIG = """
artefact: {data}/artefact
budgets: {data}/budgets.yaml
fleet: {{ray_address: "{address}", port: {port}}}
nodes:
  cloud: {{memory_gb: 8, metering: {{meter: rapl, idle_w: 10, sysfs: {sysfs}}}}}
  edge-1: {{memory_gb: 4, metering: {{meter: modelled}}}}
  edge-2: {{memory_gb: 4, metering: {{meter: modelled}}}}
devices:
  core: {{ttft_b_ms: 5, ttft_c_ms: 200, decode_tokens_per_s: 50, prefill_w: 12, decode_w: 10}}
experts:
  - {{id: {small}, kind: embedded, weights: smollm2-135m-instruct-q4_1, device: core,
     threads: 1, context_tokens: 2048, resources: {{jetson_orin: 1}}}}
  - {{id: {large}, kind: embedded, weights: qwen2.5-coder-0.5b-instruct-q4_k_m, device: core,
     threads: 1, context_tokens: 2048, node: cloud, resources: {{gpu: 1}}, memory_gb: 1}}
"""
WATTS = 40.0
# what a busy machine adds to two seconds
BUSY_S = 1.0
NODES = {"cloud": {"gpu": 1}, "edge-1": {"jetson_orin": 1}, "edge-2": {"jetson_orin": 1}}


@dataclass
class Fleet:
    """A fleet that is up, and a gateway that follows it."""

    nodes: Nodes
    config_path: Path
    client: openai.OpenAI
    url: str
    eventually: Callable

    def wait_for(self, condition: Callable[[], object], what: str, timeout_s: float = 60.0):
        """As `eventually`; a supervisor that does not answer may just be starting again."""

        def found() -> object:
            with suppress(FleetError):
                return condition()
            return None

        return self.eventually(found, what, timeout_s)

    def copies(self, expert_id: str) -> list[Replica]:
        config = load_config(self.config_path)

        async def asked() -> list[Replica]:
            async with httpx.AsyncClient(trust_env=False) as client:
                source = FleetClient(client, config.fleet.url, os.environ["COE_FLEET_TOKEN"])
                return (await source.snapshot()).of(expert_id)

        return asyncio.run(asked())

    def ready(self, expert_id: str) -> list[Replica]:
        return [r for r in self.copies(expert_id) if r.report.state == "ready"]

    def seen(self, expert_id: str) -> str:
        """The expert's state as the gateway knows it."""
        return httpx.get(f"{self.url}/readyz", timeout=10).json()["experts"][expert_id]

    def ask(self, model: str, max_tokens: int = 4):
        return self.client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "What is 7 times 8?"}],
            max_tokens=max_tokens,
        )

    def receipt(self, model: str, max_tokens: int) -> dict[str, object]:
        answer = self.client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Tell me a very long story about the sea."}],
            max_tokens=max_tokens,
        )
        return answer.model_extra["coe"]["receipt"]

    def story(self, max_tokens: int):
        """A stream of the small expert that goes on for long."""
        return self.client.chat.completions.create(
            model=SMALL,
            messages=[{"role": "user", "content": "Tell me a very long story about the sea."}],
            max_tokens=max_tokens,
            stream=True,
        )

    def whole(self) -> tuple[Replica, Replica] | None:
        """One ready copy of each expert that the gateway knows of, or not yet."""
        small, large = self.ready(SMALL), self.ready(LARGE)
        if len(small) == len(large) == 1 and self.seen(SMALL) == self.seen(LARGE) == "ready":
            return small[0], large[0]
        return None

    def moved(self, expert_id: str, node: str) -> bool:
        """Whether its only copy is elsewhere, ready, and the gateway knows."""
        copies = self.copies(expert_id)
        elsewhere = [r for r in copies if r.node not in ("", node) and r.report.state == "ready"]
        return len(copies) == len(elsewhere) == 1 and self.seen(expert_id) == "ready"

    def until_whole(self) -> tuple[Replica, Replica]:
        """The small expert's copy and the large one's, as soon as there is one of each."""
        return self.wait_for(self.whole, "a whole fleet")


@pytest.fixture(scope="module")
def secret() -> Iterator[None]:
    with fleet_secrets():
        yield


@pytest.fixture(scope="module")
def nodes(secret) -> Iterator[Nodes]:
    with ray_nodes(NODES) as found:
        yield found


@pytest.fixture(scope="module")
def fleet(
    nodes, embedded_config, tmp_path_factory, serve, coe, eventually, turning_meter
) -> Iterator[Fleet]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    path = tmp_path_factory.mktemp("fleet") / "coe.yaml"
    sysfs = tmp_path_factory.mktemp("sys")
    names = {"address": nodes.address, "port": port, "small": SMALL, "large": LARGE}
    path.write_text(CONFIG.format(data=DATA, sysfs=sysfs, **names))
    with turning_meter(sysfs, WATTS):
        up = coe("fleet", "up", "--wait", "90", "--config", path)
        assert up.returncode == 0, up.stderr
        with serve(load_config(path)) as gateway:
            yield Fleet(nodes, path, gateway.client, gateway.url, eventually)
        down = coe("fleet", "down", "--config", path)
        assert down.returncode == 0, down.stderr
    assert "the fleet is down" in down.stdout


def test_experts_are_where_their_resources_and_labels_are(fleet):
    small, large = fleet.until_whole()
    assert small.node in ("edge-1", "edge-2")
    assert large.node == "cloud"
    assert small.report.memory_bytes > 100_000_000


def test_an_answer_comes_straight_from_the_engine_and_streams(fleet):
    stream = fleet.client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": "Write a function is_even(n)."}],
        max_tokens=12,
        stream=True,
    )
    with stream:
        pieces = [chunk for chunk in stream if chunk.choices]
    assert len(pieces) > 5
    assert pieces[-1].choices[0].finish_reason == "length"
    assert fleet.ask(SMALL).model == SMALL


def test_an_engine_answers_nobody_without_its_key(fleet):
    _, replica = fleet.until_whole()
    asked = httpx.post(
        f"{replica.report.address}/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1},
        timeout=10,
    )
    assert asked.status_code == 401


def test_the_supervisor_answers_nobody_without_the_token(fleet):
    url = load_config(fleet.config_path).fleet.url
    for headers in ({}, {"authorization": "Bearer wrong"}):
        refused = httpx.get(f"{url}/v1/fleet", headers=headers, timeout=10)
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_token"


def test_status_is_a_table_and_a_document_without_keys(fleet, coe, coe_here):
    table = coe("fleet", "status", "--config", fleet.config_path)
    assert table.returncode == 0, table.stderr
    assert "ready" in table.stdout
    assert "cloud" in table.stdout
    document = coe_here("fleet", "status", "--json", "--config", fleet.config_path).stdout
    replicas = json.loads(document)["replicas"].values()
    assert {r["expert_id"] for r in replicas} == {SMALL, LARGE}
    keys = {r.key for r in fleet.copies(SMALL) + fleet.copies(LARGE)}
    assert not any(key in document for key in keys)


def test_a_node_with_a_meter_says_what_it_draws_and_its_receipts_are_measured(fleet):

    def metered() -> tuple[Replica, Replica] | None:
        found = fleet.whole()
        meter = found and found[1].report.meter
        return found if meter and meter.power_w else None

    small, large = fleet.wait_for(metered, "watts")
    assert (large.report.meter.meter, large.report.meter.scope) == ("rapl", "rail")
    # the thread that turns the meter may be late by a fifth of a second
    assert large.report.meter.power_w == pytest.approx(WATTS, rel=0.25)
    assert small.report.meter is None
    # an answer has to take as long as some reports of its node
    receipts = (fleet.receipt(LARGE, n) for n in (64, 128, 256, 512))
    receipt = next(r for r in receipts if r["energy_source"] == "measured")
    assert receipt["energy_scope"] == "rail"
    # alone on its node: all above idle, for as long as the expert had it and a reading before
    seconds = receipt["latency_ms"] / 1000
    assert (WATTS - 10) * seconds / 2 <= receipt["energy_j"] <= (WATTS - 10) * (seconds + 3)
    assert fleet.receipt(SMALL, 64)["energy_source"] == "modelled"
    page = httpx.get(f"{fleet.url}/metrics", timeout=30).text
    assert 'coe_meter_joules{machine="cloud",part="requests"}' in page
    assert 'machine="edge' not in page


def test_a_killed_actor_is_noticed_within_two_seconds_and_comes_back(fleet):
    _, before = fleet.until_whole()
    fleet.nodes.do("kill", f"coe-expert:{before.replica_id}")
    killed = time.monotonic()
    noticed: list[float] = []

    def notice() -> None:
        fleet.wait_for(lambda: fleet.seen(LARGE) != "ready", "the gateway's notice", 10)
        noticed.append(time.monotonic() - killed)

    noticing = threading.Thread(target=notice)
    noticing.start()
    # at once, noticed or not, before its first piece
    assert fleet.ask("auto:best").model == SMALL
    noticing.join()
    assert noticed[0] < 2.0 + BUSY_S
    explained = fleet.ask("auto:best").model_extra["coe"]["why"]
    assert f"{LARGE}: not running" in explained
    with pytest.raises(openai.InternalServerError) as raised:
        fleet.ask(LARGE)
    assert raised.value.code == "expert_unavailable"
    fleet.wait_for(lambda: fleet.seen(LARGE) == "ready", "a restart")
    _, after = fleet.until_whole()
    assert after.replica_id == before.replica_id
    assert after.report.address != before.report.address
    assert fleet.ask(LARGE).model == LARGE


def test_a_killed_supervisor_comes_back_with_everything_as_it_was(fleet):
    before = {copy.replica_id for copy in fleet.until_whole()}
    fleet.nodes.do("kill", "coe-supervisor")
    # its last word holds meanwhile
    assert fleet.ask(LARGE).model == LARGE

    def back() -> bool:
        return {r.replica_id for r in fleet.ready(SMALL) + fleet.ready(LARGE)} == before

    fleet.wait_for(back, "the supervisor")
    assert fleet.ask(SMALL).model == SMALL


def test_scaled_up_both_copies_answer_and_scaled_down_none_is_lost(fleet, coe, coe_here):
    fleet.until_whole()
    assert coe("fleet", "scale", SMALL, "2", "--config", fleet.config_path).returncode == 0
    fleet.wait_for(
        lambda: sorted(r.node for r in fleet.ready(SMALL)) == ["edge-1", "edge-2"], "two copies"
    )
    answers: list[object] = []
    asking = [
        threading.Thread(target=lambda: answers.append(fleet.ask(SMALL, 24))) for _ in range(6)
    ]
    for thread in asking:
        thread.start()
    fleet.wait_for(
        lambda: [r.report.n_running > 0 for r in fleet.ready(SMALL)] == [True, True],
        "both copies at work",
        20,
    )
    assert coe_here("fleet", "scale", SMALL, "1", "--config", fleet.config_path).returncode == 0
    for thread in asking:
        thread.join(60)
    assert [answer.model for answer in answers] == [SMALL] * 6
    fleet.wait_for(lambda: len(fleet.copies(SMALL)) == 1, "one copy")
    wrong = coe_here("fleet", "scale", "nobody", "1", "--config", fleet.config_path)
    assert wrong.returncode != 0
    assert "no expert 'nobody'" in wrong.stderr


def test_a_drained_node_finishes_what_it_has_begun_and_its_expert_moves(fleet, coe, coe_here):
    before, _ = fleet.until_whole()
    stream = fleet.story(150)
    with stream:
        pieces = iter(stream)
        next(pieces)
        drained = coe("fleet", "drain", before.node, "--config", fleet.config_path)
        assert drained.returncode == 0, drained.stderr
        rest = [chunk for chunk in pieces if chunk.choices]
    assert rest[-1].choices[0].finish_reason in ("length", "stop")
    fleet.wait_for(lambda: fleet.moved(SMALL, before.node), "the move")
    undone = coe_here("fleet", "drain", before.node, "--undo", "--config", fleet.config_path)
    assert undone.returncode == 0, undone.stderr
    assert fleet.ask(SMALL).model == SMALL


def test_a_node_killed_in_mid_stream_ends_the_stream_visibly_and_its_expert_moves(fleet):
    before, _ = fleet.until_whole()
    stream = fleet.story(1500)
    with stream:
        pieces = iter(stream)
        next(pieces)
        fleet.nodes.do("remove", before.node)
        with pytest.raises(openai.APIError):
            list(pieces)
    fleet.wait_for(lambda: fleet.moved(SMALL, before.node), "a move")
    fleet.nodes.do("add", before.node, resources=NODES[before.node])
    assert fleet.ask(SMALL).model == SMALL


def test_a_node_killed_before_the_first_token_is_replaced_by_another_expert(fleet):
    fleet.until_whole()
    # reading so long a prompt takes the engine some seconds
    messages = [{"role": "user", "content": "tell me about the sea " * 120}]
    body = {"model": "auto:best", "messages": messages}
    decided = httpx.post(f"{fleet.url}/v1/route", json=body, timeout=30).json()
    assert decided["experts"][0]["id"] == LARGE
    answers: list = []

    def ask() -> None:
        answers.append(fleet.client.chat.completions.create(max_tokens=2, **body))

    asking = threading.Thread(target=ask)
    asking.start()
    fleet.wait_for(
        lambda: [r for r in fleet.ready(LARGE) if r.report.n_running], "a request at work", 20
    )
    fleet.nodes.do("remove", "cloud")
    asking.join(120)
    assert answers[0].model == SMALL
    assert answers[0].model_extra["coe"]["receipt"]["failed_over"] == [LARGE]
    fleet.nodes.do("add", "cloud", resources=NODES["cloud"])
    fleet.wait_for(lambda: fleet.seen(LARGE) == "ready", "the expert on its node again")


def test_a_supervisor_that_cannot_listen_is_explained(secret, coe, tmp_path):
    path = tmp_path / "coe.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path.write_text(
            CONFIG.format(
                data=DATA, sysfs=tmp_path, address="auto", port=port, small=SMALL, large=LARGE
            )
        )
        up = coe("fleet", "up", "--local", "--wait", "5", "--config", path)
    assert up.returncode == 1
    # before it could be told anything, or after: either way with the place to look at
    assert f"127.0.0.1:{port}" in up.stderr


def test_a_cluster_of_this_machine_alone_is_on_loopback(secret):
    script = (
        "from coe import actors; actors.connect('local', 'alone'); "
        "print(actors.nodes()[0]['address']); actors.disconnect()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "127.0.0.1", done.stderr
