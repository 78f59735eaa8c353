"""A second artefact decides beside the first one, over HTTP, and nobody notices."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from coe.config import DATA
from coe.core import Message, Policy, Request
from coe.engine import Engine
from coe.routers.artefact import Artefact
from coe.services.shadowing import Shadow
from coe.shadow import Comparison

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
TOKEN = {"authorization": "Bearer secret"}


@pytest.fixture
def other_artefact(tmp_path):
    """As the shipped one, but for who is the better expert."""
    shipped = Artefact.load(DATA / "artefact")
    table = shipped.expectation.table
    turned = replace(table, quality=table.quality[:, ::-1].copy())
    expectation = replace(shipped.expectation, table=turned, residual=None, incumbent=None)
    replace(shipped, expectation=expectation, modes=None).save(tmp_path / "other")
    return tmp_path / "other"


async def settled(runtime, n):
    """Wait until the thread has decided ``n`` requests."""
    shadow = runtime.shadow
    await asyncio_until(lambda: sum(shadow.comparison.counts.values()) == n)


async def asyncio_until(condition):
    for _ in range(200):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def test_two_artefacts_are_compared_and_only_one_answers(
    site, ask, upstream, other_artefact, monkeypatch
):
    monkeypatch.setenv("COE_ADMIN_TOKEN", "secret")
    site.configure(more=f"shadow: {{artefact: {other_artefact}}}")
    async with site.serving() as (client, runtime):
        answers = [await ask(client) for _ in range(4)]
        await ask(client, SMALL)
        await settled(runtime, 4)
        assert len(upstream.asked) == 5
        live = answers[0].headers["x-coe-experts"]
        kept = (await client.get(f"/v1/decisions/{answers[0].json()['coe']['decision_id']}")).json()
        shade = kept["shadow"]
        assert shade["status"] == "different"
        assert shade["experts"] != [live]
        said = (await client.get("/admin/shadow", headers=TOKEN)).json()
        assert (said["different"], said["same"], said["dropped"]) == (4, 0, 0)
        assert said["pairs"][0]["n"] == 4
        gap = said["mean_difference"]["quality"]
        assert gap == pytest.approx(shade["difference"]["quality"], rel=1e-4)
        page = (await client.get("/metrics")).text
        assert 'coe_shadow_decisions{outcome="different"} 4.0' in page
        site.configure(more=f"shadow: {{artefact: {DATA / 'artefact'}, share: 0.5}}")
        assert (await runtime.reloads.reload()).status == "swapped"
        for _ in range(4):
            await ask(client)
        await settled(runtime, 2)
        said = (await client.get("/admin/shadow", headers=TOKEN)).json()
        assert (said["same"], said["mean_difference"]["quality"]) == (2, 0.0)
        site.configure()
        assert (await runtime.reloads.reload()).status == "swapped"
        refused = await client.get("/admin/shadow", headers=TOKEN)
        assert refused.json()["error"]["code"] == "no_shadow"


async def test_what_comes_too_fast_is_dropped_and_waited_for_by_nobody(make_router, make_spec):
    router = make_router([make_spec("small")], [[0.5]] * 3)
    engine, busy = Engine(router, {}), threading.Event()
    asked = Request((Message("user", "some code"),), Policy("default"))
    live = router.decide(asked)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(busy.wait)
        shadow = Shadow(router, 1.0, thread, most_waiting=3)
        for _ in range(10):
            shadow.note(shadow.glimpse(engine, asked), live)
        assert shadow.comparison.counts["dropped"] == 7
        busy.set()
        await asyncio_until(lambda: shadow.comparison.counts["same"] == 3)


def test_a_share_is_spread_evenly_and_who_names_an_expert_is_left_out(make_router, make_spec):
    router = make_router([make_spec("small")], [[0.5]] * 3)
    engine = Engine(router, {})
    asked = Request((Message("user", "some code"),), Policy("default"))
    with ThreadPoolExecutor(1) as thread:
        shadow = Shadow(router, 0.25, thread)
        seen = [shadow.glimpse(engine, asked) is not None for _ in range(8)]
        assert seen == [False, False, False, True] * 2
        assert shadow.glimpse(engine, replace(asked, pinned="small")) is None


@pytest.mark.parametrize("failing", ["deciding", "comparing"])
async def test_what_nobody_foresaw_is_counted_and_told_once(
    make_router, make_spec, failing, caplog, monkeypatch
):
    router = make_router([make_spec("small")], [[0.5]] * 3)
    engine = Engine(router, {})
    asked = Request((Message("user", "some code"),), Policy("default"))
    live = router.decide(asked)
    where = Comparison if failing == "comparing" else Shadow
    monkeypatch.setattr(where, "add" if failing == "comparing" else "_decide", lambda *given: 1 / 0)
    with ThreadPoolExecutor(1) as thread:
        shadow = Shadow(router, 1.0, thread)
        for _ in range(3):
            shadow.note(shadow.glimpse(engine, asked), live)
        await asyncio_until(lambda: shadow.comparison.counts["failed"] == 3)
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]
