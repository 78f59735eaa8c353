"""What crosses to the nodes of a fleet and its supervisor, and what becomes of it there."""

from dataclasses import replace

import pytest

pytest.importorskip("ray")

from coe.actors import own_address
from coe.config import DATA, load_config
from coe.fleet import FleetSection
from coe.replica import Card
from coe.services.cluster import hosting
from coe.services.cluster.hosting import deployments, host_opener, supervisor_opener
from coe.services.host.metered import MeteredHost

CONFIG = """
devices: {core: {ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 1, decode_w: 1}}
nodes:
  edge: {memory_gb: 4%s}
  cloud: {memory_gb: 8}
experts:
  - {id: e, kind: embedded, weights: smollm2-135m-instruct-q4_1, device: core}
  - {id: r, kind: replay, recording: r.parquet, device: core}
"""


@pytest.fixture
def wanted(tmp_path):
    """The deployments of a configuration whose node "edge" is metered so; more is of expert e."""

    def read(metering, node=None, more=""):
        text = CONFIG % metering
        more += f", node: {node}" if node else ""
        text = text.replace("q4_1, device: core", f"q4_1, device: core{more}")
        (tmp_path / "coe.yaml").write_text(
            f"artefact: {DATA / 'artefact'}\nbudgets: {DATA / 'budgets.yaml'}\n" + text
        )
        return deployments(load_config(tmp_path / "coe.yaml"))

    return read


def opened(deployment, node):
    card = Card(deployment.expert_id, deployment.digest, "key", node)
    return host_opener("loopback")(deployment, card)


def test_only_what_a_node_needs_of_a_meter_starts_copies_anew(wanted):
    plain = [d.digest for d in wanted("")]
    assert [d.digest for d in wanted(", metering: {idle_w: 5}")] == plain
    other = [d.digest for d in wanted(", metering: {meter: rapl, sysfs: /host/sys}")]
    assert other[0] != plain[0]
    assert other[1] == plain[1], "a replay draws nothing"


def test_what_only_decides_starts_no_copy_anew(wanted):
    assert [d.digest for d in wanted(", local: true", node="edge")] == [
        d.digest for d in wanted("", node="edge")
    ]
    assert [d.digest for d in wanted("", more=", shared: true")] == [d.digest for d in wanted("")]


def test_an_expert_goes_to_its_own_node_and_no_other(wanted):
    engine, replay = wanted("", node="edge")
    assert engine.labels == {"coe-node": "edge"}
    assert replay.labels == {}


def test_a_node_is_metered_as_it_says_or_else_by_what_it_has(wanted):
    engine, replay = wanted(", metering: {meter: rapl}")
    for node in ("edge", "cloud", "unheard-of"):
        assert isinstance(opened(engine, node), MeteredHost)
        assert not isinstance(opened(replay, node), MeteredHost)


async def test_the_meter_is_looked_for_where_the_node_says(wanted, tmp_path):
    engine, _ = wanted(f", metering: {{meter: rapl, sysfs: {tmp_path}}}")
    found, failed = opened(engine, "edge").find()
    assert found is None
    assert [error.meter for error in failed] == ["rapl"]
    assert str(tmp_path) in failed[0].reason
    modelled, _ = wanted(", metering: {meter: modelled}")
    assert opened(modelled, "edge").find() == (None, [])


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.5"])
def test_the_supervisor_listens_where_the_configuration_says(cluster, host):
    served = supervisor_opener(FleetSection(host=host, port=9000), "token")(cluster)
    assert (served.host, served.port, served.token) == (host, 9000, "token")


def test_it_finds_the_heads_own_address_on_the_head(cluster):
    fleet = FleetSection(host="private", address="http://head:8090")
    assert supervisor_opener(fleet, "token")(cluster).host == own_address()


async def test_an_expert_that_a_node_cannot_run_fails_with_the_reason(wanted):
    engine, _ = wanted("")
    unknown = replace(engine, engine=engine.engine.replace("smollm2-135m-instruct", "no-such"))
    host = opened(unknown, "edge")
    await host.start()
    report = await host.report()
    assert report.state == "failed"
    assert "unknown weights 'no-such-q4_1'" in report.reason
    assert await host.drain(1.0)
    await host.stop()


async def test_no_engine_listens_at_a_public_address(wanted, monkeypatch):
    monkeypatch.setattr(hosting, "own_address", lambda: "8.8.8.8")
    engine, _ = wanted("")
    card = Card(engine.expert_id, engine.digest, "key", "edge")
    report = await host_opener("private")(engine, card).report()
    assert report.state == "failed"
    assert "8.8.8.8 is not a loopback or private address" in report.reason
