"""Experts and their supervisor as Ray actors. The only module that imports Ray.

Ray places the actors, restarts them, and finds them by name. No token passes through one: an
engine is asked at its own address.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

# Ray reads these when it is imported
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# else actors of a driver that was started by `uv run ...` would be started by those words, too
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError, RayError, RayTaskError
from ray.experimental import internal_kv

from coe.errors.gateway import FleetError
from coe.fleet import NODE_LABEL
from coe.replica import Card, Deployment, Host, HostReport

_SUPERVISOR, _EXPERT = "coe-supervisor", "coe-expert:"
# calls that may wait in one actor at a time: watches, a drain, and some to spare
_AT_ONCE = 64
# label that Ray gives every node
_NODE_ID = "ray.io/node-id"
_ON_HEAD = {"node:__internal_head__": 0.001}

OpenHost = Callable[[Deployment, Card], Host]
"""Opens the host of a deployment, as the copy and on the node that the card names."""


class ExpertActor:
    """The host of one copy of an expert."""

    def __init__(self, open_host: OpenHost, deployment: Deployment, card: Card) -> None:
        self._card = replace(card, node=_node_name())
        self._host = open_host(deployment, self._card)

    async def card(self) -> Card:
        """What this copy is, and where."""
        return self._card

    async def watch(self, seen: HostReport | None, wait_s: float) -> HostReport:
        """The host's report: at once if state or address is not as seen, else after the wait."""
        await self._host.start()
        report = await self._host.report()
        if seen is None or (report.state, report.address) != (seen.state, seen.address):
            return report
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._host.changed()
        return await self._host.report()

    async def drain(self, timeout_s: float) -> bool:
        """As `Host.drain`."""
        return await self._host.drain(timeout_s)

    async def stop(self) -> None:
        """As `Host.stop`."""
        await self._host.stop()


class Supervising(Protocol):
    """What the supervisor's actor keeps running."""

    async def run(self) -> None:
        """Supervise for ever."""

    async def want(self, deployments: Sequence[Deployment]) -> None:
        """Run these from now on, and nothing else."""

    async def down(self) -> None:
        """Drain and end every copy."""


class SupervisorActor:
    """The supervisor of a fleet. Ray starts it again where it dies."""

    def __init__(
        self, open_supervisor: Callable[[RayCluster], Supervising], open_host: OpenHost
    ) -> None:
        self._supervisor = open_supervisor(RayCluster(open_host))
        self._running = asyncio.ensure_future(self._supervisor.run())
        self._running.add_done_callback(_start_again)

    async def want(self, deployments: Sequence[Deployment]) -> None:
        """As `Supervising.want`."""
        await self._supervisor.want(deployments)

    async def down(self) -> None:
        """As `Supervising.down`."""
        await self._supervisor.down()


def _start_again(running: asyncio.Future[None]) -> None:
    """A supervisor that cannot go on makes room for one that recalls what was wanted."""
    if not running.cancelled():
        logging.getLogger(__name__).error("the supervisor ended", exc_info=running.exception())
        os._exit(1)


@dataclass(frozen=True, slots=True)
class RayCopy:
    """A copy of an expert, by the handle of its actor.

    Every verb raises `FleetError` where the actor is not there.
    """

    actor: Any

    async def card(self) -> Card:
        """As `ExpertActor.card`; waits until Ray has placed the actor."""
        found: Card = await _answered(self.actor.card.remote())
        return found

    async def watch(self, seen: HostReport | None, wait_s: float) -> HostReport:
        """As `ExpertActor.watch`."""
        report: HostReport = await _answered(self.actor.watch.remote(seen, wait_s))
        return report

    async def drain(self, timeout_s: float) -> bool:
        """As `Host.drain`."""
        emptied: bool = await _answered(self.actor.drain.remote(timeout_s))
        return emptied

    async def end(self) -> None:
        """End engine and actor, for good."""
        with suppress(FleetError, TimeoutError):
            async with asyncio.timeout(5.0):
                await _answered(self.actor.stop.remote())
        ray.kill(self.actor)


@dataclass(frozen=True, slots=True)
class RayCluster:
    """Where copies run, and what outlives the supervisor: the cluster's own key-value store."""

    open_host: OpenHost

    def start(
        self, replica_id: str, deployment: Deployment, card: Card, avoided: Collection[str] = ()
    ) -> RayCopy:
        """A new copy, on a node that has its resources and labels, now or once there is one.

        Parameters
        ----------
        avoided : names of nodes that it is not started on.
        """
        offered = dict(deployment.resources)
        actor = (
            ray.remote(ExpertActor)
            .options(
                name=_EXPERT + replica_id,
                lifetime="detached",
                max_restarts=-1,
                max_concurrency=_AT_ONCE,
                num_cpus=offered.pop("CPU", 0),
                num_gpus=offered.pop("GPU", 0),
                memory=deployment.memory_gb * 1e9 or None,
                resources=offered,
                label_selector={**deployment.labels, **_off(avoided)} or None,
                scheduling_strategy="SPREAD",
            )
            .remote(self.open_host, deployment, card)
        )
        return RayCopy(actor)

    def running(self) -> Mapping[str, RayCopy]:
        """The copies that there are, by replica id."""
        names = [name for name in ray.util.list_named_actors() if name.startswith(_EXPERT)]
        return {name.removeprefix(_EXPERT): RayCopy(ray.get_actor(name)) for name in names}

    def remember(self, state: bytes) -> None:
        """Keep what `recall` is to return."""
        internal_kv._internal_kv_put(_SUPERVISOR.encode(), state, namespace=_namespace())

    def recall(self) -> bytes | None:
        """What was last remembered."""
        found: bytes | None = internal_kv._internal_kv_get(
            _SUPERVISOR.encode(), namespace=_namespace()
        )
        return found


def connect(address: str, namespace: str) -> None:
    """Join the cluster at ``address``; ``local`` makes one of this machine, for this process.

    That one is reached from no other machine.

    Raises
    ------
    FleetError
        There is none, or it does not accept our token.
    """
    if os.environ["RAY_AUTH_MODE"] != "token":
        raise FleetError("RAY_AUTH_MODE is not token: a fleet without one runs anybody's code")
    try:
        if address == "local":
            _keep_token()
            # its ports on loopback, as Ray itself has it on other systems than Linux
            ray_constants.ENABLE_RAY_CLUSTER = False
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=False,
            logging_level=logging.WARNING,
            include_dashboard=False if address == "local" else None,
        )
    except (OSError, AuthenticationError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        if "Could not find any running Ray" in reason:
            reason = (
                "this machine is in none; `ray start` makes or joins one, "
                "`coe fleet up --local` needs none"
            )
        raise FleetError(f"no Ray cluster at {address!r}: {reason}") from error


def _keep_token() -> None:
    """Make Ray's token where there is none: Ray's own would be there for all users to read."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    kept = Path.home() / ".ray" / "auth_token"
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        suppress(FileExistsError),
        open(os.open(kept, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file,
    ):
        file.write(secrets.token_hex(32))


def disconnect() -> None:
    """Leave the cluster; one of this machine alone ends."""
    ray.shutdown()


def nodes() -> list[dict[str, Any]]:
    """The nodes that are alive: ``name``, ``address`` and ``resources``."""
    return [
        {
            "name": _name_in(node["Labels"], node["NodeID"]),
            "address": node["NodeManagerAddress"],
            "resources": node["Resources"],
        }
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def own_address() -> str:
    """The address at which other nodes reach this one."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class RemoteSupervisor:
    """The supervisor of a fleet, by the handle of its actor."""

    actor: Any

    @classmethod
    def opened(
        cls, open_supervisor: Callable[[RayCluster], Supervising], open_host: OpenHost
    ) -> RemoteSupervisor:
        """One on the head of the cluster, which goes on when this process ends."""
        actor = (
            ray.remote(SupervisorActor)
            .options(
                name=_SUPERVISOR,
                get_if_exists=True,
                lifetime="detached",
                max_restarts=-1,
                max_concurrency=_AT_ONCE,
                num_cpus=0,
                resources=_ON_HEAD,
            )
            .remote(open_supervisor, open_host)
        )
        return cls(actor)

    @classmethod
    def found(cls) -> RemoteSupervisor | None:
        """The one that is there; ``None``: none is."""
        try:
            return cls(ray.get_actor(_SUPERVISOR))
        except ValueError:
            return None

    async def want(self, deployments: Sequence[Deployment]) -> None:
        """As `Supervising.want`."""
        await _answered(self.actor.want.remote(list(deployments)))

    async def down(self) -> None:
        """As `Supervising.down`; then the supervisor ends too."""
        await _answered(self.actor.down.remote())
        ray.kill(self.actor)


async def _answered(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except RayTaskError as error:
        if isinstance(error.cause, FleetError):
            raise FleetError(str(error.cause)) from error
        raise FleetError(str(error).splitlines()[0]) from error
    except RayError as error:
        raise FleetError(str(error).splitlines()[0]) from error


def _off(avoided: Collection[str]) -> dict[str, str]:
    """What keeps a copy off the nodes of these names: of a name that none has, nothing."""
    if not avoided:
        return {}
    there = [
        node["NodeID"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and _name_in(node["Labels"], node["NodeID"]) in avoided
    ]
    return {_NODE_ID: f"!in({','.join(there)})"} if there else {}


def _node_name() -> str:
    context = ray.get_runtime_context()
    return _name_in(context.get_node_labels(), context.get_node_id())


def _name_in(labels: Mapping[str, Any], node_id: str) -> str:
    """The node's name in ``coe.yaml`` if it was given one, else the head of its id."""
    return str(labels.get(NODE_LABEL, node_id[:8]))


def _namespace() -> bytes:
    return str(ray.get_runtime_context().namespace).encode()
