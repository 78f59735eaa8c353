"""Measured joules: a real engine behind a real gateway, on a machine whose meter we turn."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from coe.config import MeteringSection

pytestmark = pytest.mark.engine

SMALL = "smollm2-135m"
WATTS = 40.0


@pytest.fixture(scope="module")
def machine(tmp_path_factory, embedded_config, serve, turning_meter, eventually):
    """A gateway with one real engine on a machine with a meter and ten watts of idleness."""
    experts = [expert for expert in embedded_config.experts if expert.id == SMALL]
    sysfs = tmp_path_factory.mktemp("sys")
    metering = MeteringSection(meter="rapl", idle_w=10.0, sysfs=sysfs)
    config = embedded_config.model_copy(update={"experts": experts, "metering": metering})
    with turning_meter(sysfs, WATTS), serve(config) as running:
        account = running.runtime.machines["gateway"]
        # on a busy machine it takes some reads to see that this one is quick
        eventually(lambda: account.refresh, "a meter that is read with every request")
        yield running


def ask(machine, tokens=12):
    messages = [{"role": "user", "content": "Count upwards, please."}]
    create = machine.client.chat.completions.create
    return create(model=SMALL, messages=messages, max_tokens=tokens)


def parts(machine):
    """What the account holds: joules by part, from the metrics of the gateway."""
    page = httpx.get(f"{machine.url}/metrics", timeout=30).text
    rows = [line for line in page.splitlines() if line.startswith("coe_meter_joules{")]
    return {row.split('part="')[1].split('"')[0]: float(row.split()[-1]) for row in rows}


def test_a_receipt_holds_what_the_meter_counted_above_idle(machine):
    answer = ask(machine)
    receipt = answer.model_extra["coe"]["receipt"]
    assert (receipt["energy_source"], receipt["energy_scope"]) == ("measured", "rail")
    # alone on the machine: all above idle, for as long as the expert had it
    most_j = (WATTS - 10.0) * receipt["latency_ms"] / 1000
    # the thread that turns the meter may be late by a fifth of a second
    assert most_j / 2 <= receipt["energy_j"] <= most_j + WATTS / 5


def test_shares_of_answers_at_once_and_idle_sum_to_the_meter(machine):
    before = parts(machine)
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(lambda n: ask(machine, n), (4, 24, 72)))
    receipts = [reply.model_extra["coe"]["receipt"] for reply in replies]
    after = parts(machine)
    grown = {part: after[part] - before[part] for part in after}
    assert {receipt["energy_source"] for receipt in receipts} == {"measured"}
    assert grown["requests"] == pytest.approx(sum(r["energy_j"] for r in receipts), rel=1e-3)
    assert grown["metered"] == pytest.approx(
        grown["idle"] + grown["requests"] + grown["carried"], rel=1e-6
    )
    assert grown["metered"] > 0
    short, _, long = receipts
    assert long["output_tokens"] > short["output_tokens"]
    assert long["energy_j"] > short["energy_j"]


def test_a_streamed_answer_is_measured_too(machine):
    with machine.client.chat.completions.with_streaming_response.create(
        model=SMALL,
        messages=[{"role": "user", "content": "Count upwards, please."}],
        max_tokens=8,
        stream=True,
    ) as response:
        body = response.read()
        decision_id = response.headers["x-coe-decision-id"]
    assert body
    assert machine.receipt(decision_id)["energy_source"] == "measured"
