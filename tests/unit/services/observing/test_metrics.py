"""What a gateway counts."""

import re
import time

import pytest

from coe.config import DATA
from coe.errors.experts import ExpertUnavailableError
from coe.guard.guards import ExpertFigures, Figures, ReplicaFigures
from coe.ledger.amounts import Amounts
from coe.ledger.book import Ledger
from coe.ledger.limits import Limit, Payer
from coe.services.enduring import Enduring
from coe.services.observing.metrics import Metrics

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
CHAT = "/v1/chat/completions"


def body(content="What is 17 * 6?", model=LARGE, **more):
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


async def test_every_request_is_counted_by_route_and_status(client, value):
    await client.post(CHAT, json=body())
    await client.get("/v1/models/nobody")
    await client.get("/v1/models/nobody-else")
    await client.get("/no/such/path")
    await client.get(CHAT)
    await client.get("/healthz", headers={"host": "elsewhere", "upgrade": "websocket"})

    def count(route, status):
        return value("coe_requests_total", route=route, status=status)

    assert count(CHAT, "200") == 1
    assert count("/v1/models/{name:path}", "404") == 2
    assert count("none", "404") == 1
    assert count(CHAT, "405") == 1
    assert count("none", "400") == 1
    refused = lambda code: value("coe_refusals_total", code=code)  # noqa: E731
    assert [refused(c) for c in ("model_not_found", "unknown_url", "unsupported_upgrade")] == [
        2,
        1,
        1,
    ]


async def test_a_crash_is_a_500(client, gateway, value, told):
    gateway.runtime.engine.router = None
    answer = await client.post(CHAT, json=body())
    assert answer.status_code == 500
    assert value("coe_requests_total", route=CHAT, status="500") == 1
    assert told[0].status == 500


@pytest.mark.parametrize("stream", [False, True])
async def test_the_steps_of_an_answer_are_timed(client, value, stream):
    await client.post(CHAT, json=body(model="auto", stream=stream))
    steps = "parse prepare decide dispatch stream settle".split()
    parts = [f"decide.{part}" for part in ("check", "embed", "category", "quality", "select")]
    for step in steps + parts:
        assert value("coe_step_seconds_count", step=step) == 1, step
    assert value("coe_token_seconds_count", expert=LARGE) == int(stream)


async def test_an_answer_is_compared_with_its_ceilings(client, value):
    budget = {"energy_j": 1000.0, "latency_ms": 60_000.0}
    await client.post(CHAT, json=body(coe={"budget": budget}))
    assert value("coe_ceiling_slack_count", resource="energy_j") == 1
    assert value("coe_ceiling_slack_bucket", resource="latency_ms", le="0.9") == 0
    assert value("coe_ceiling_violations_total", resource="energy_j") is None


async def test_what_was_measured_above_a_ceiling_is_a_violation(client, gateway, value):
    late = iter(range(0, 100_000, 100))
    gateway.runtime.engine.now = lambda: float(next(late))
    await client.post(CHAT, json=body(coe={"budget": {"latency_ms": 60_000.0}}))
    assert value("coe_ceiling_violations_total", resource="latency_ms") == 1
    assert value("coe_ceiling_slack_bucket", resource="latency_ms", le="-1.0") == 1


async def test_who_took_over_and_who_did_not_answer(client, stubs, value):
    stubs[LARGE].error = ExpertUnavailableError(LARGE, "is away")
    answer = await client.post(CHAT, json=body("Write a Python function.", model="auto"))
    assert answer.status_code == 200
    assert value("coe_failovers_total", expert=LARGE) == 1
    # what failed is not among the times of the step
    assert value("coe_step_seconds_count", step="dispatch") == 1
    assert value("coe_step_seconds_count", step="decide") == 2


async def test_no_word_of_a_caller_becomes_a_label(client, gateway):
    canary = "canary-7f3a"
    headers = {"user-agent": canary, "idempotency-key": canary}
    more = {"user": canary, "metadata": {canary: canary}}
    await client.post(CHAT, json=body(canary, **more), headers=headers)
    await client.post(CHAT, json=body(canary, model=canary))
    await client.post(CHAT, json=body(canary, **{canary: 1}))
    await client.post(CHAT, json=body(canary, coe={"tenant": canary}))
    await client.get(f"/{canary}?{canary}")
    await client.get(f"/v1/models/{canary}")
    assert canary not in (await client.get("/metrics")).text


def test_balances_are_shown_by_limit_and_no_holder_is_named():
    ledger = Ledger([Limit("day", "tenant", 3600, energy_uj=10_000_000)])
    for name, energy_uj in (("alice", 2_000_000), ("bob", 5_000_000)):
        ledger.reserve(name, Payer(name), Amounts(energy_uj), 1_000, 60_000)
    ledger.settle("bob", Amounts(4_000_000), 2_000)
    metrics = Metrics()
    metrics.ledger.ledger = lambda: (ledger, 3_000)
    named = {"limit": "day", "resource": "energy_j"}
    shown = {
        what: metrics.registry.get_sample_value(f"coe_ledger_{what}", named)
        for what in ("ceiling", "held", "spent", "fullest")
    }
    assert shown == pytest.approx({"ceiling": 10.0, "held": 2.0, "spent": 4.0, "fullest": 0.4})
    assert b"alice" not in metrics.page({})
    # in the next window nothing has been taken
    metrics.ledger.ledger = lambda: (ledger, 3_600_000 + 3_000)
    assert metrics.registry.get_sample_value("coe_ledger_spent", named) == 0.0


async def test_counting_a_request_costs_little(client, gateway, told):
    await client.post(CHAT, json=body(stream=True, coe={"budget": {"energy_j": 1000.0}}))
    (exchange,) = told
    began = time.process_time()
    for _ in range(2000):
        gateway.metrics.tell(exchange)
    each_us = (time.process_time() - began) / 2000 * 1e6
    # measured: a tenth of this; the margin is for machines that are busy
    assert each_us < 400


async def test_how_experts_are_guarded_is_shown_and_who_is_inside(client, gateway, value):
    figures = Figures(
        {
            LARGE: ExpertFigures(
                n_queued=3, n_ejections=2, n_waited=5, waited_s=1.5, n_full=4, n_late=1,
                replicas=(
                    ReplicaFigures("one", "closed", 0.0, 16, 7),
                    ReplicaFigures("two", "ejected", 12.0, None, 0),
                ),
            )
        },
        n_retries=9,
        n_retries_refused=1,
    )  # fmt: skip
    gateway.metrics.guards.figures = lambda: figures
    assert value("coe_queue", expert=LARGE) == 3
    assert value("coe_ejections_total", expert=LARGE) == 2
    assert value("coe_queue_wait_seconds_total", expert=LARGE) == 1.5
    assert value("coe_queue_refusals_total", expert=LARGE, why="full") == 4
    assert value("coe_replica_out", expert=LARGE, replica="one") == 0
    assert value("coe_replica_out", expert=LARGE, replica="two") == 1
    assert value("coe_replica_limit", expert=LARGE, replica="one") == 16
    assert value("coe_replica_limit", expert=LARGE, replica="two") is None
    assert (value("coe_retries_total", made="yes"), value("coe_retries_total", made="no")) == (9, 1)
    assert (value("coe_inside"), value("coe_inside_limit")) == (0, gateway.door.crowd.most)


async def test_labels_are_those_of_the_document(client, gateway, stubs):
    stubs[LARGE].error = ExpertUnavailableError(LARGE, "is away")
    await client.post(CHAT, json=body("Write a Python function.", "auto", stream=True))
    await client.post(CHAT, json=body(model="nobody"))
    text = (DATA.parents[1] / "docs/observability.md").read_text()
    (table,) = re.findall(r"## Metrics\n.*?(\| name .*?)\n\n", text, re.S)
    documented = {}
    for line in table.splitlines()[2:]:
        names, labels = line.split("|")[1:3]
        words = set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", labels)))
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", names), words)
    found = {
        family.name: {label for sample in family.samples for label in sample.labels} - {"le"}
        for family in gateway.metrics.registry.collect()
        if family.samples
    }
    assert len(found) > 25
    assert found == {name: documented[name] for name in found}


async def test_what_nobody_foresaw_is_counted_by_the_work_that_went_on(client, value):
    with Enduring("some work of metrics"):
        raise ZeroDivisionError
    assert value("coe_unforeseen_total", work="some work of metrics") == 1


async def test_whoever_fails_to_be_told_of_a_request_keeps_nobody_else_from_it(
    client, gateway, told, value
):
    gateway.tell = [lambda exchange: 1 / 0, *gateway.tell]
    gateway.metrics.answers = None
    answer = await client.post(CHAT, json=body())
    assert (answer.status_code, len(told)) == (200, 1)
