"""A gateway whose files change: what is live, what is refused, and what nobody notices."""

import asyncio
import gc
import os
import shutil
import tracemalloc

from coe.config import DATA
from coe.services.live import reloads
from coe.services.live.files import LOOK_EVERY_S

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
TWO = "policies: {default: {}, eco: {prices: {per_joule: 0.001}}}\n"


async def tag_of(client):
    return (await client.get("/readyz")).json()["config"]


async def test_files_that_change_are_live_soon(site, ask):
    async with site.serving() as (client, runtime):
        first = await ask(client)
        assert first.headers["x-coe-config"] == await tag_of(client)
        receipt = first.json()["coe"]["receipt"]
        assert receipt["config"] == first.json()["coe"]["config"] == first.headers["x-coe-config"]
        assert (await ask(client, "auto:eco")).status_code == 404
        site.write("budgets.yaml", TWO)
        await asyncio.sleep(4 * LOOK_EVERY_S)
        second = await ask(client, "auto:eco")
        assert second.status_code == 200
        assert second.headers["x-coe-config"] == await tag_of(client)
        assert second.headers["x-coe-config"] != first.headers["x-coe-config"]
        site.write("budgets.yaml", "policies: {default: {}}\n")
        assert (await runtime.reloads.reload()).config == first.headers["x-coe-config"]
    assert "refused" not in "".join(site.said)


async def test_who_is_left_out_is_said_once_and_again_when_something_changes(site, monkeypatch):
    monkeypatch.delenv("COE_NO_SUCH_KEY", raising=False)
    text = site.path.read_text()
    closed = "  - {id: closed, kind: http, device: there, base_url: 'http://127.0.0.1:9/v1', "
    site.write("coe.yaml", f"{text}{closed}api_key_env: COE_NO_SUCH_KEY}}\n")
    async with site.serving() as (_, runtime):
        for _ in range(2):
            assert (await runtime.reloads.reload()).status == "unchanged"
        assert sum("closed is left out" in line for line in site.said) == 1
        site.write("budgets.yaml", TWO)
        assert (await runtime.reloads.reload()).status == "swapped"
        assert sum("closed is left out" in line for line in site.said) == 2


async def test_a_bad_file_is_refused_and_said_once(site, ask):
    async with site.serving() as (client, runtime):
        before = await tag_of(client)
        site.write("budgets.yaml", "policies: {default: {prices: {per_joule: -1}}}\n")
        refused = [await runtime.reloads.reload() for _ in range(3)]
        assert {outcome.status for outcome in refused} == {"refused"}
        assert "budgets.yaml:1: policies.default.prices.per_joule" in refused[0].message
        assert sum("refused" in line for line in site.said) == 1
        status = (await client.get("/readyz")).json()
        assert (status["config"], status["reload"], status["status"]) == (
            before,
            "refused",
            "ready",
        )
        page = (await client.get("/metrics")).text
        assert 'coe_reloads_total{outcome="refused"} 3.0' in page
        assert "coe_config_refused 1.0" in page
        assert (await ask(client)).headers["x-coe-config"] == before
        site.write("budgets.yaml", TWO)
        assert (await runtime.reloads.reload()).status == "swapped"
        assert "coe_config_refused 0.0" in (await client.get("/metrics")).text


async def test_the_end_of_a_refusal_is_said_where_nothing_else_is(site):
    good = (site.folder / "budgets.yaml").read_text()
    async with site.serving() as (_, runtime):
        site.write("budgets.yaml", "policies: {}\n")
        assert (await runtime.reloads.reload()).status == "refused"
        site.write("budgets.yaml", good)
        for _ in range(2):
            live = await runtime.reloads.reload()
            assert live.status == "unchanged"
    assert site.said[-1] == f"nothing is refused any more, {live.config} serves on"
    assert len(site.said) == 2


async def test_an_altered_artefact_never_serves(site, ask):
    shutil.copytree(DATA / "artefact", site.folder / "artefact")
    site.configure(artefact="artefact")
    async with site.serving() as (client, runtime):
        arrays = site.folder / "artefact" / "arrays.safetensors"
        whole = arrays.read_bytes()
        arrays.write_bytes(whole[:-8] + bytes(8))
        await asyncio.sleep(4 * LOOK_EVERY_S)
        assert runtime.reloads.last.status == "refused"
        assert (await ask(client)).status_code == 200
        arrays.write_bytes(whole)
        await asyncio.sleep(4 * LOOK_EVERY_S)
        assert runtime.reloads.last.status == "unchanged"


async def test_what_needs_a_restart_is_named_and_left(site):
    async with site.serving() as (_, runtime):
        site.configure(more="gateway: {port: 9, kept_decisions: 5}\nrouting: {turns: last}")
        outcome = await runtime.reloads.reload()
        assert (outcome.status, outcome.left) == ("swapped", ("gateway",))
        assert "left as it is until a restart: gateway" in site.said
        assert runtime.config.gateway.port == 8080
        assert runtime.engine.router.turns == "last"


async def test_limits_and_loads_outlive_a_reload(site, ask, tmp_path):
    limits = "limits: {house: {scope: global, window_s: 1000000000, requests: %d}}\n"
    site.configure(more=f"store: {{kind: sqlite, path: {tmp_path / 'ledger.sqlite'}}}")
    async with site.serving() as (client, runtime):
        assert runtime.engine.store is None
        assert (await ask(client, SMALL)).status_code == 200
        loads = runtime.engine._loads
        site.write("budgets.yaml", TWO + limits % 2)
        assert (await runtime.reloads.reload()).status == "swapped"
        assert [(await ask(client)).status_code for _ in range(3)] == [200, 200, 429]
        site.write("budgets.yaml", TWO + limits % 3)
        assert (await runtime.reloads.reload()).status == "swapped"
        assert [(await ask(client)).status_code for _ in range(2)] == [200, 429]
        assert runtime.engine._loads is loads


async def test_experts_come_and_go_while_streams_run(site, ask, upstream):
    """300 changes of experts while 50 streams run: none is cut."""
    upstream.n_pieces, upstream.pause_s = 20, 0.1
    async with site.serving() as (client, runtime):

        async def read():
            body = {"model": "extra-0", "stream": True}
            messages = [{"role": "user", "content": "Go on!"}]
            async with client.stream(
                "POST", "/v1/chat/completions", json={**body, "messages": messages}
            ) as answer:
                return [line async for line in answer.aiter_lines() if line]

        site.configure(SMALL, *(f"extra-{n}" for n in range(300)))
        assert (await runtime.reloads.reload()).status == "swapped"
        streams = [asyncio.create_task(read()) for _ in range(50)]
        await upstream.asked_by(50)
        site.configure(SMALL, LARGE)
        assert (await runtime.reloads.reload()).status == "swapped"
        assert (await ask(client, "extra-0")).status_code == 404
        lines = await asyncio.gather(*streams)
        assert all(len(found) == 22 and found[-1] == "data: [DONE]" for found in lines)
        assert "failed" not in (await client.get("/metrics")).text


async def test_of_an_expert_that_has_left_nothing_is_known_any_more(site, ask):
    async with site.serving() as (client, runtime):
        for n in range(5):
            site.configure(SMALL, LARGE, f"extra-{n}")
            assert (await runtime.reloads.reload()).status == "swapped"
            assert (await ask(client, f"extra-{n}")).status_code == 200
        assert (await ask(client, SMALL)).status_code == 200
        assert runtime.engine._loads.keys() == {SMALL, "extra-4"}


async def test_under_load_every_answer_is_of_a_configuration_that_was_live(site, ask):
    async with site.serving() as (client, runtime):
        live, answers, done = {await tag_of(client)}, [], asyncio.Event()

        async def load():
            while not done.is_set():
                answers.append(await ask(client))
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load())
            for n in range(12):
                text = "policies: {default: [}" if n % 3 == 2 else TWO.replace("0.001", f"0.{n}1")
                site.write("budgets.yaml", text)
                outcome = await runtime.reloads.reload()
                assert outcome.status == ("refused" if n % 3 == 2 else "swapped")
                live.add(outcome.config)
                await asyncio.sleep(0.2)
            done.set()
        assert {answer.status_code for answer in answers} == {200}
        found = {answer.headers["x-coe-config"] for answer in answers}
        assert found <= live
        assert len(found) > 4


def _open_files():
    return len(os.listdir("/proc/self/fd"))


async def test_many_reloads_leave_nothing_behind(site, ask):
    async with site.serving() as (client, runtime):

        async def turn(n):
            site.write("budgets.yaml", TWO.replace("0.001", f"0.{n % 7 + 1}"))
            site.configure(SMALL, LARGE, *(["extra"] if n % 2 else []))
            assert (await runtime.reloads.reload()).status == "swapped"
            if n % 10 == 9:
                # always the same, which leaves one connection open for a while
                assert (await ask(client, SMALL)).status_code == 200

        tracemalloc.start()
        for n in range(20):
            await turn(n)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0], len(asyncio.all_tasks()), _open_files()
        for n in range(200):
            await turn(n)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0], len(asyncio.all_tasks()), _open_files()
        tracemalloc.stop()
    assert after[1] - before[1] <= 1
    assert after[2] - before[2] <= 1

    assert after[0] - before[0] < 400_000


async def test_what_is_derived_from_the_files_changes_with_them(site, ask):
    """Fields that some expert takes, and experts that are one tenant's own."""
    async with site.serving() as (client, runtime):

        async def statuses():
            asked = [
                await ask(client, LARGE, top_k=5),
                await ask(client, SMALL),
                await ask(client, SMALL, coe={"tenant": "acme"}),
            ]
            return [answer.status_code for answer in asked]

        assert await statuses() == [400, 200, 200]
        site.configure(more=f"tenants: {{acme: {{expert: {SMALL}}}}}")
        taking = site.path.read_text().replace(f"id: {LARGE},", f"id: {LARGE}, extras: [top_k],")
        site.write("coe.yaml", taking)
        assert (await runtime.reloads.reload()).status == "swapped"
        assert await statuses() == [200, 404, 200]
        site.configure()
        assert (await runtime.reloads.reload()).status == "swapped"
        assert await statuses() == [400, 200, 200]


async def test_what_nobody_foresaw_is_refused_and_the_files_are_read_again(site, ask, monkeypatch):
    async with site.serving() as (client, runtime):
        before, drafted = await tag_of(client), reloads.drafted

        def failing(*given):
            raise ZeroDivisionError

        monkeypatch.setattr(reloads, "drafted", failing)
        site.write("budgets.yaml", TWO)
        await asyncio.sleep(4 * LOOK_EVERY_S)
        assert runtime.reloads.last.status == "refused"
        assert runtime.reloads.last.message == "nobody foresaw ZeroDivisionError"
        assert await tag_of(client) == before
        monkeypatch.setattr(reloads, "drafted", drafted)
        site.write("budgets.yaml", TWO + "\n")
        await asyncio.sleep(4 * LOOK_EVERY_S)
        assert (await ask(client, "auto:eco")).status_code == 200
