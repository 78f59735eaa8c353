"""One process of a gateway: what it asks of the one that started it, and what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from coe.config import Config
from coe.errors.gateway import GatewayError
from coe.optimizer.pacing import Allowance, Pacer
from coe.services.gateway import Gateway
from coe.services.live.reloads import Reloads
from coe.services.means import Means
from coe.services.reloading import Outcome
from coe.services.workers.engines import Engines
from coe.services.workers.line import Line, Verb
from coe.services.workers.pacing import CommonPacer
from coe.services.workers.store import told_store
from coe.switches import Switch


@dataclass(slots=True)
class Member:
    """A worker among its siblings: a `Siblings` and a `Reloading`.

    Parameters
    ----------
    line : to the process that started it; set before anything is asked.
    config : under which the family began: what needs a restart stays as it is there.
    """

    engines: Engines = field(default_factory=Engines)
    line: Line = field(init=False)
    config: Config = field(init=False)
    gateway: Gateway = field(init=False)
    reloads: Reloads = field(init=False)
    _started_s: float = 0.0
    _paced: dict[str, Any] | None = None
    _pacer: CommonPacer | None = None

    def verbs(self) -> dict[str, Verb]:
        """What it can be asked."""
        return {
            "engine": self.engines.hear,
            "switch": self._turn,
            "paced": self._hear_of,
            "pacer": self._pacer_state,
            "page": lambda: self.gateway.page().decode(),
            "decision": lambda name, tenant: self.gateway.kept(name, tenant),
            "reload": self._reload,
            "pulse": lambda: None,
            "refused": lambda said: self.reloads.heard(_outcome(said)),
        }

    async def joined(self) -> dict[str, Switch]:
        """What was switched before it came; it knows of engines and budgets from now on."""
        welcome = await self.line.ask("hello")
        for told in welcome["engines"]:
            self.engines.hear(*told)
        self.config = Config.model_validate(welcome["config"])
        self._started_s, self._paced = welcome["started_s"], welcome["pacer"]
        return cast(dict[str, Switch], welcome["switches"])

    def means(self) -> Means:
        """How its runtime comes by what all share."""
        return Means(
            open_store=lambda section, limits, say: told_store(self.line, limits),
            open_host=self.engines.open_host,
            pacer=self._new_pacer,
            meters=False,
        )

    def serve(self, gateway: Gateway, reloads: Reloads) -> None:
        """Answer for this gateway from now on."""
        self.gateway, self.reloads = gateway, reloads
        reloads.tell(gateway.metrics.reloaded)
        gateway.runtime.siblings = self
        gateway.runtime.reloads = self

    def tell(self, told: Callable[[Outcome], None]) -> None:
        """As `Reloading.tell`, of this process's own."""
        self.reloads.tell(told)

    @property
    def last(self) -> Outcome:
        """As `Reloading.last`."""
        return self.reloads.last

    async def reload(self) -> Outcome:
        """As `Reloading.reload`, of all processes."""
        return _outcome(await self.line.ask("reload"))

    def turned(self, expert_id: str, switch: Switch) -> None:
        """As `Siblings.turned`."""
        self.line.tell("switch", expert_id, switch)

    async def decision(self, decision_id: str, tenant: str | None) -> dict[str, Any] | None:
        """As `Siblings.decision`."""
        with suppress(GatewayError):
            found = await self.line.ask("decision", decision_id, tenant)
            return cast(dict[str, Any] | None, found)
        return None

    async def page(self) -> bytes:
        """As `Siblings.page`; this process's own where the others cannot be asked."""
        own = self.gateway.page()
        try:
            return cast(str, await self.line.ask("page", own.decode())).encode()
        except GatewayError:
            return own

    def _turn(self, expert_id: str, switch: Switch) -> None:
        engine = self.gateway.runtime.engine
        engine.switches = engine.switches.turned(expert_id, switch)

    async def _reload(self) -> dict[str, Any]:
        return asdict(await self.reloads.reload())

    def _new_pacer(self, allowances: Sequence[Allowance], now_s: float) -> Pacer:
        said, self._paced = self._paced, None
        if said is not None and said["allowances"] == [asdict(a) for a in allowances]:
            self._pacer = cast(CommonPacer, CommonPacer.restored(allowances, said["state"]))
        else:
            self._pacer = CommonPacer(allowances, self._started_s)
        self._pacer.publish = lambda kind, words: self.line.tell("paced", kind, words)
        return self._pacer

    def _pacer_state(self) -> dict[str, Any] | None:
        pacer = self._pacer
        if pacer is None:
            return None
        return {"allowances": [asdict(a) for a in pacer.allowances], "state": pacer.state()}

    def _hear_of(self, kind: str, words: list[Any]) -> None:
        if self._pacer is not None:
            self._pacer.hear(kind, words)


def _outcome(said: dict[str, Any]) -> Outcome:
    return Outcome(**{**said, "left": tuple(said["left"])})
