"""A gateway over copies of one expert, as a fleet's supervisor tells it of them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from harness.client import Caller
from harness.expert import FakeExpert
from harness.gateway import LARGE, SMALL, threaded, written
from harness.script import Script
from harness.stage import Stage, supervised

_TOKEN_ENV = "FAULTS_FLEET_TOKEN"


@asynccontextmanager
async def copied(
    folder: Path, n_copies: int = 4, hedge: bool = False
) -> AsyncIterator[tuple[Stage, FakeExpert]]:
    """A gateway that follows a supervisor of so many copies of one expert, and that supervisor.

    The other expert is not there.
    """
    os.environ[_TOKEN_ENV] = "t" * 32
    copies = [FakeExpert(f"copy {n}") for n in range(n_copies)]
    supervisor = FakeExpert("supervisor")
    async with AsyncExitStack() as stack:
        for expert in (*copies, supervisor):
            await expert.start()
            stack.push_async_callback(expert.die)
        tell(supervisor, copies)
        address = supervisor.url.removesuffix("/v1")
        fleet = {"address": address, "token_env": _TOKEN_ENV}
        setup = written(folder, {SMALL: "http://127.0.0.1:9/v1"}, fleet=fleet)
        engine = f"- {{id: {LARGE}, kind: vllm, weights: none, device: here, slots: 64, "
        engine += f"hedge: {str(hedge).lower()}}}\n"
        document = setup.config.read_text()
        setup.config.write_text(document.replace("experts:\n", f"experts:\n{engine}"))
        gateway = await stack.enter_async_context(threaded(setup))
        caller = Caller(gateway.port)
        stack.callback(caller.close)
        yield Stage(copies[0], copies[1], setup, gateway, caller, copies[2:]), supervisor


def tell(supervisor: FakeExpert, copies: Sequence[FakeExpert]) -> None:
    """Have a supervisor say that these are the copies."""
    supervisor.script = Script(body=supervised({LARGE: copies}), ttft_s=0.2)
