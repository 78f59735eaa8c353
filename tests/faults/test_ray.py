"""A real Ray cluster that loses an actor, a node, its head: what is asked of its experts meanwhile.

Its nodes are processes of this machine; the engines are the harness's, so that they attest what
they did. Starting the cluster takes longer than all of the rows, so they share one.
"""

import asyncio
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness import engine
from harness.client import Caller, Seen
from harness.expert import FakeExpert
from harness.gateway import LARGE, SMALL, Setup, Threaded, threaded, written
from harness.load import background
from harness.nodes import Nodes, fleet_secrets, ray_nodes
from harness.script import Script
from harness.stage import Stage, ends, eventually

pytest.importorskip("ray")
pytestmark = pytest.mark.engine

ONE = {"gpu": 1}
BACK_S = 30.0


@dataclass
class Cluster:
    """Its nodes, and the folder of whom it runs."""

    nodes: Nodes
    folder: Path
    port: int = 0

    @property
    def fleet(self) -> dict[str, object]:
        return {"ray_address": self.nodes.address, "port": self.port}

    def kill_engines(self) -> None:
        """Those that run, as what they attest is named by their processes."""
        for path in (self.folder / "logs").iterdir():
            with suppress(ProcessLookupError):
                os.kill(int(path.name.rpartition("-")[2]), signal.SIGKILL)

    def expert(self) -> dict[str, object]:
        """The section of an expert that runs on one of the nodes."""
        found = engine_environment(self.folder)
        told = {"id": LARGE, "kind": "vllm", "weights": "none", "python": sys.executable}
        told |= {"environment": found, "device": "here", "slots": 64, "resources": ONE}
        return told | {"context_tokens": 2048, "answer_tokens": 128, "idle_timeout_s": 5.0}


def engine_environment(folder: Path) -> dict[str, str]:
    """As `engine.packaged`, once."""
    if not (folder / "engine.json").exists():
        (folder / "engine.json").write_text(json.dumps(engine.packaged(folder)))
    found: dict[str, str] = json.loads((folder / "engine.json").read_text())
    return found


def configured(folder: Path, cluster: Cluster, url: str) -> Setup:
    """The files of a gateway over one expert at an address, and one on the cluster."""
    setup = written(folder, {SMALL: url}, fleet=cluster.fleet)
    document = yaml.safe_load(setup.config.read_text())
    document["experts"].append(cluster.expert())
    setup.put(yaml.safe_dump(document))
    return setup


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with fleet_secrets(), ray_nodes(dict.fromkeys(("one", "two"), ONE)) as nodes:
        found = Cluster(nodes, tmp_path_factory.mktemp("cluster"), free_port())
        setup = configured(found.folder / "up", found, "http://127.0.0.1:9/v1")
        up = [sys.executable, "-m", "coe", "fleet", "up", "--wait", "60", "--config"]
        done = subprocess.run([*up, setup.config], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        yield found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def standing(folder: Path, cluster: Cluster) -> AsyncIterator[Stage]:
    """A gateway over an expert at an address and one on the cluster, which is there."""
    small, remote = FakeExpert(SMALL), FakeExpert(LARGE)
    await small.start()
    setup = configured(folder / "gateway", cluster, small.url)
    try:
        async with threaded(setup) as gateway:
            # a name of its own, for the engines' files are those of all rows
            caller = Caller(gateway.port, f"{secrets.token_hex(3)}-")
            stand = Stage(small, remote, setup, gateway, caller)
            await there(stand)
            try:
                yield stand
            finally:
                caller.close()
    finally:
        await small.die()


def inside(stand: Stage) -> Threaded:
    assert isinstance(stand.gateway, Threaded)
    return stand.gateway


def copies(stand: Stage) -> list:
    """Of the expert on the cluster, those that the gateway would ask."""
    found: list = inside(stand).runtime.fleet.copies.ready(LARGE)
    return found


async def there(stand: Stage) -> None:
    await eventually(lambda: copies(stand), "the expert on the cluster", BACK_S)


async def checked(stand: Stage, cluster: Cluster) -> None:
    """The checker's verdict, with what the engines attest in their files."""
    mine = {seen.tag for seen in stand.caller.seen}
    answered = {seen.tag for seen in stand.caller.seen if seen.end in ("done", "whole")}

    def attested() -> bool:
        """Whether all that was answered is: an engine writes down that it has ended after that."""
        log = [entry for entry in engine.attested(cluster.folder) if entry.tag in mine]
        stand.large.log[:] = log
        return answered <= {entry.tag for entry in stand.attested if entry.end == "done"}

    await eventually(attested, "the end of all that was answered")
    await stand.checked(copies=True)


async def streaming(
    stand: Stage, name: str, n: int = 8, n_tokens: int = 100
) -> list[asyncio.Task[Seen]]:
    """So many streams of the expert on the cluster, of each of which something has come."""
    script = Script(n_tokens, pace_s=0.1)
    asked = [
        asyncio.create_task(stand.caller.ask(f"{name}{k}", script, True, model=LARGE))
        for k in range(n)
    ]
    await asyncio.sleep(0)
    mine = [seen for seen in stand.caller.seen if f"-{name}" in seen.tag]
    await eventually(lambda: all(seen.numbers for seen in mine), "the first tokens")
    return asked


def broken(seen: list[Seen]) -> None:
    """Each of them has said that it failed, and nothing after its tokens."""
    assert {one.end for one in seen} == {"error"}, ends(seen)
    assert all(one.numbers and one.in_order and one.finish is None for one in seen)


def unhurt(seen: list[Seen]) -> None:
    """All were answered, but for streams that the fault found on their way."""
    hit = [one for one in seen if one.end not in ("done", "whole")]
    assert {(one.end, one.code) for one in hit} <= {("error", "expert_unavailable")}, ends(seen)
    assert len(hit) <= 3


async def test_f19_an_actor_killed_in_mid_stream_is_replaced(tmp_path, cluster):
    """Ray may start it again for ever (``max_restarts=-1``): there is no such limit to hit."""
    async with standing(tmp_path, cluster) as stand:
        (before,) = copies(stand)
        async with background(stand.caller) as seen:
            asked = await streaming(stand, "actor")
            await asyncio.to_thread(cluster.nodes.do, "kill", f"coe-expert:{before.replica_id}")
            broken(await asyncio.gather(*asked))
            await eventually(lambda: not copies(stand), "the news")
            await there(stand)
        unhurt(seen)
        (after,) = copies(stand)
        assert after.replica_id == before.replica_id
        assert after.report.address != before.report.address
        assert (await stand.caller.ask("again", Script(), model=LARGE)).end == "whole"
        await checked(stand, cluster)


async def test_f20_a_node_that_is_lost_takes_its_streams_and_nothing_else(tmp_path, cluster):
    """Ray's processes of the node are killed, and as a machine would take it along, the engine."""
    async with standing(tmp_path, cluster) as stand:
        (before,) = copies(stand)
        async with background(stand.caller) as seen:
            asked = await streaming(stand, "node")
            await asyncio.to_thread(cluster.nodes.do, "remove", before.node)
            cluster.kill_engines()
            broken(await asyncio.gather(*asked))
            await eventually(
                lambda: [one.node for one in copies(stand)] not in ([], [before.node]),
                "the move to the other node",
                BACK_S,
            )
        unhurt(seen)
        assert (await stand.caller.ask("moved", Script(), model=LARGE)).end == "whole"
        await checked(stand, cluster)


async def test_f20_without_its_head_a_cluster_answers_on_until_an_engine_is_lost(tmp_path, cluster):
    """The head's store and the supervisor are killed. The last row: nothing brings them back."""
    async with standing(tmp_path, cluster) as stand:
        (last,) = copies(stand)
        async with background(stand.caller) as seen:
            asked = await streaming(stand, "head", 4, 30)
            await asyncio.to_thread(cluster.nodes.do, "behead", "coe-supervisor")
            follower = inside(stand).runtime.fleet.copies
            await eventually(lambda: follower.silent, "silence")
            # no token passes through the cluster, and its last word holds
            assert (await stand.caller.ask("on", Script(), model=LARGE)).end == "whole"
            assert ends(await asyncio.gather(*asked)) == {"done": 4}
            # an engine that goes now is not replaced: others answer, and who names it is told
            cluster.kill_engines()
            gone = await stand.caller.ask("gone", Script(), model=LARGE)
            assert (gone.end, gone.status) == ("refused", 503)
            assert (await stand.caller.ask("other", Script())).end == "whole"
        unhurt(seen)
        assert last.replica_id
        await checked(stand, cluster)
