"""Hard limits of a gateway under concurrency, cancellation and every way in."""

import asyncio
import os
import time
from random import Random

import httpx
import pytest

from coe.errors.callers import BudgetExhaustedError
from coe.errors.gateway import LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.limits import Limit, Payer
from coe.services.store.books import Books
from coe.services.store.enforcer import Enforcer
from coe.services.store.shared import SharedStore
from harness.checker import METERED, violations
from harness.client import Leaving
from harness.fleet import fleet, in_redis, summed
from harness.gateway import PLENTY, SMALL
from harness.script import Script
from harness.stage import ends, eventually, stage

N_CANCELLED = int(os.environ.get("COE_FAULT_CANCELLED", "2000"))
AGES_S = 10**9


@pytest.mark.parametrize("stream", [True, False])
async def test_b01_of_ten_at_once_the_five_that_fit_are_answered(tmp_path, stream):
    async with stage(tmp_path, ceilings={"requests": 5}) as two:
        script = Script(5, ttft_s=0.1)
        said = await asyncio.gather(*(two.caller.ask(f"r{n}", script, stream) for n in range(10)))
        assert ends(said) == {"done" if stream else "whole": 5, "refused budget_exhausted": 5}
        await two.checked()


@pytest.mark.parametrize("stream", [True, False])
async def test_b01_of_ten_at_once_through_redis_too(tmp_path, redis_server, stream):
    five = {"requests": 5}
    async with fleet(tmp_path, redis_server.port, 2, 0.0, 2.0, ceilings=five) as standing:
        script = Script(5, ttft_s=0.1)
        said = await asyncio.gather(
            *(
                member.caller.ask(f"r{n}", script, stream)
                for n in range(5)
                for member in standing.members
            )
        )
        assert ends(said) == {"done" if stream else "whole": 5, "refused budget_exhausted": 5}
        await standing.checked()


async def test_b10_what_a_dropped_stream_held_is_free_in_no_time(tmp_path):
    async with stage(tmp_path, ceilings={**PLENTY, "requests": 100, "tokens": 600}) as two:
        # one of these fits, and not two
        long = Script(60, pace_s=0.1)
        dropped = await two.caller.ask("drop", long, True, leaving=Leaving(after_tokens=2))
        left_s = time.monotonic()
        assert dropped.end == "left"
        held = two.gateway.runtime.engine.store.books.ledger
        await eventually(lambda: not held.held, "the end of the hold", 5.0)
        assert time.monotonic() - left_s < 5.0
        assert (await two.caller.ask("next", Script(60))).end == "whole"
        await two.checked()


BODIES = {
    "/v1/chat/completions": lambda prompt: {
        "model": SMALL,
        "messages": [{"role": "user", "content": prompt}],
    },
    "/v1/completions": lambda prompt: {"model": SMALL, "prompt": prompt},
    "/v1/embeddings": lambda prompt: {"model": "auto", "input": prompt},
    "/v1/route": lambda prompt: {
        "model": "auto",
        "messages": [{"role": "user", "content": prompt}],
    },
}


async def test_b11_every_way_to_make_an_expert_work_is_metered(tmp_path):
    """Of all that can be POSTed to; a path that is new here has to say which it is."""
    async with stage(tmp_path) as two:
        address = f"http://127.0.0.1:{two.gateway.port}"
        async with httpx.AsyncClient(base_url=address, timeout=10.0) as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
            posted = {path for path, verbs in paths.items() if "post" in verbs}
            assert {path for path in posted if path.startswith("/v1/")} == set(BODIES)
            tags = {}
            for path in sorted(posted & BODIES.keys()):
                tag = path.rpartition("/")[2] + path[4:6]
                tags[tag] = path
                named = {} if path == "/v1/embeddings" else {"coe": {"tenant": tag}}
                await client.post(path, json=BODIES[path](Script(3).prompt(tag)) | named)
        await two.gateway.flushed()
        history = two.history(paths=tags)
        assert violations(history) == []
        spending = {tags[entry.tag] for entry in two.attested}
        assert spending == METERED
        assert {tag for tag in tags if history.holds.get(tag)} == {
            tag for tag, path in tags.items() if path in METERED
        }


LIMITS = (Limit("house", "global", AGES_S, tokens=10**9),)


async def test_r09_cancelled_commands_leave_nobody_with_the_answer_of_another(
    tmp_path, redis_server
):
    books = Books.open(tmp_path / "ledger.sqlite", LIMITS, 60_000)
    enforcer = Enforcer(redis_server.url, "cancelled", books.gateway, 2.0, 0)
    store = SharedStore(books, enforcer, 0.0)
    await store.start()
    await eventually(lambda: store.reachable, "Redis")
    dice = Random(9)

    async def one(n: int) -> None:
        asked = asyncio.create_task(
            store.reserve(f"r{n}", Payer(f"t{n}"), Amounts(tokens=n % 97, requests=1))
        )
        for _ in range(dice.randrange(16)):
            await asyncio.sleep(0)
        asked.cancel()
        (said,) = await asyncio.gather(asked, return_exceptions=True)
        assert said is None or isinstance(
            said, asyncio.CancelledError | BudgetExhaustedError | LedgerUnavailableError
        )
        if said is None:
            store.settle(f"r{n}", Amounts(tokens=n % 89, requests=1))

    for first in range(0, N_CANCELLED, 50):
        await asyncio.gather(*map(one, range(first, first + 50)))
    await eventually(lambda: not books._waiting and not books.ledger.held, "the end of all")
    for name, entry in books.ledger.entries.items():
        # what stands under a name is what was asked for under it
        assert entry.hold.tokens == int(name[1:]) % 97
        assert entry.payer.tenant == f"t{name[1:]}"
        if entry.status == "settled":
            assert entry.booked.tokens == int(name[1:]) % 89
    mine = summed([(tuple(b.held), tuple(b.spent)) for b in books.ledger.accounts.values()])
    await eventually(lambda: in_redis(redis_server.port) == mine, "Redis to be told", 20.0)
    await store.close()
