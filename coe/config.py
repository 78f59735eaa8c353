"""``coe.yaml``: read, checked, turned into nouns.

Configuration files are read here and in `coe.budgets` only, environment variables here and in
`coe.environment`. An error names file, line, field, value and remedy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

import coe
from coe.access.section import AccessSection, HostName, Network, TlsSection
from coe.capability import OF_KIND
from coe.core import MOST_EXPERTS, ExpertSpec, TurnRule
from coe.device import DeviceProfile
from coe.embedders import EmbedderSection, EndpointSection
from coe.errors.files import ConfigError
from coe.fleet import FleetSection
from coe.free import FreeSection, free_spec
from coe.kinds import (
    AnyExpert,
    EmbeddedSection,
    ExpertSection,
    HttpSection,
    ReplaySection,
    VllmSection,
)
from coe.observing import LoggingSection, TelemetrySection
from coe.profiles import DeviceSection, ShippedSection, closest, read_profiles
from coe.resilience import ResilienceSection
from coe.shadow import ShadowSection
from coe.store import StoreSection
from coe.tenants import TenantName, TenantSection, check_experts
from coe.yamlfile import Name, NonNegative, Positive, Section, read_yaml, wrong_field

DATA = Path(coe.__file__).parent / "data"
"""What ships: default configuration, artefact, embedder, weights manifest, device profiles."""

# sections that keep strangers out: blank ones would be none, and let them in
_KEEP_OUT = (("access",), ("gateway", "tls"))


class GatewaySection(Section):
    """Where the gateway listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    max_body_bytes: Annotated[int, Field(gt=0)] = 4 * 1024 * 1024
    head_timeout_s: Positive = 10.0
    body_timeout_s: Positive = 30.0
    hosts: list[HostName] = Field(default=[])
    kept_decisions: Annotated[int, Field(gt=0)] = 1000
    kept_for_s: Positive = 86_400.0
    max_in_flight: Annotated[int, Field(gt=0)] = 512
    max_in_flight_per_caller: Annotated[int, Field(gt=0)] = 64
    answer_timeout_s: Positive = 600.0
    stall_timeout_s: Annotated[float, Field(ge=1.0, le=86_400.0)] = 120.0
    waiting_every_s: Positive = 10.0
    drain_accept_s: NonNegative = 2.0
    drain_answers_s: NonNegative = 20.0
    admin_token_env: str = "COE_ADMIN_TOKEN"
    tls: TlsSection | None = None
    trusted_proxies: list[Network] = Field(default=[])


class RetrievalSection(Section):
    """Where passages come from, and how many go with a prompt."""

    index: Path
    k: Annotated[int, Field(ge=1, le=50)] = 4
    passage_tokens: Annotated[int, Field(ge=128)] = 1024
    mode: Literal["hybrid", "bm25", "dense"] = "hybrid"


class MeteringSection(Section):
    """What measures the joules of engines on one machine; see `coe.energy.EnergyAccount`."""

    meter: Literal["auto", "ina3221", "jtop", "nvml", "rapl", "modelled"] = "auto"
    idle_w: NonNegative = 0.0
    sysfs: Path = Path("/sys")


class NodeSection(Section):
    """A machine that experts may be resident on.

    ``metering`` is what a fleet does there; its ``sysfs`` is a path of that machine. ``local``: a
    prompt may go there under policies with ``local_only``.
    """

    memory_gb: Positive
    slots: Annotated[int, Field(gt=0)] | None = None
    load_gb_per_s: Positive | None = None
    resources: dict[Name, NonNegative] = Field(default={})
    metering: MeteringSection = MeteringSection()
    local: bool = False


class OnDemandSection(Section):
    """Embedded experts of one machine take turns in its memory; see `coe.services.turns`."""

    memory_gb: Positive
    max_wait_s: NonNegative = 30.0


class EscalationsSection(Section):
    """How often each tenant's cascades may go on; see `coe.escalation`."""

    per_minute: Positive
    burst: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 100.0


class RoutingSection(Section):
    """Which turns of a conversation a decision goes by, and how many experts may answer.

    See `coe.routers.turns`, and `coe.offers` for the two numbers.
    """

    turns: TurnRule = "sticky"
    switch_margin: NonNegative = 0.03
    most_experts: Annotated[int, Field(ge=1, le=MOST_EXPERTS)] = 1
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    read_pinned: bool = False
    escalations: EscalationsSection | None = None


class Config(Section):
    """The whole of ``coe.yaml``. Paths are relative to the file."""

    gateway: GatewaySection = GatewaySection()
    artefact: Path = DATA / "artefact"
    embedder: EmbedderSection | None = None
    routing: RoutingSection = RoutingSection()
    metering: MeteringSection = MeteringSection()
    retrieval: RetrievalSection | None = None
    budgets: Path = DATA / "budgets.yaml"
    store: StoreSection | None = None
    logging: LoggingSection = LoggingSection()
    telemetry: TelemetrySection = TelemetrySection()
    resilience: ResilienceSection = ResilienceSection()
    access: AccessSection | None = None
    plan: Path | None = None
    shadow: ShadowSection | None = None
    devices: dict[str, DeviceSection] = Field(default={})
    nodes: dict[Name, NodeSection] = Field(default={})
    fleet: FleetSection | None = None
    on_demand: OnDemandSection | None = None
    tenants: dict[TenantName, TenantSection] = Field(default={})
    experts: Annotated[list[AnyExpert], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        ids = [expert.id for expert in self.experts]
        kinds = [expert.kind for expert in self.experts]
        for n, name in enumerate(ids):
            if name in ids[:n]:
                at = ("experts", n, "id")
                raise wrong_field(f"expert id {name!r} is used twice: ids must differ", at)
            if name == "auto" or name.startswith("auto:"):
                at = ("experts", n, "id")
                raise wrong_field(f"expert id {name!r} is reserved: choose another", at)
            if kinds[n] == "copy" and "copy" in kinds[:n]:
                raise wrong_field("keep one: a second holds the same", ("experts", n, "kind"))
        check_experts(self.tenants, ids)
        return self

    @model_validator(mode="after")
    def _somewhere(self) -> Config:
        for n, expert in enumerate(self.experts):
            if isinstance(expert, FreeSection):
                continue
            if expert.node is not None and expert.node not in self.nodes:
                raise wrong_field(
                    f"expert {expert.id!r} is on unknown node {expert.node!r}: add it under nodes"
                    + (f", or use one of {', '.join(sorted(self.nodes))}" if self.nodes else ""),
                    ("experts", n, "node"),
                )
            if expert.device not in self.devices and expert.device not in shipped_profiles():
                near = [*sorted(self.devices), *closest(expert.device, shipped_profiles())]
                use = f"one of {', '.join(near)}" if near else "a shipped one"
                raise wrong_field(
                    f"expert {expert.id!r} runs on unknown device {expert.device!r}: "
                    f"add it under devices, or use {use} (coe devices list has all that ship)",
                    ("experts", n, "device"),
                )
        return self

    @model_validator(mode="after")
    def _fitting(self) -> Config:
        room = self.on_demand
        for n, expert in enumerate(self.experts):
            if room is None or self.fleet is not None or not isinstance(expert, EmbeddedSection):
                continue
            if not 0 < expert.memory_gb <= room.memory_gb:
                raise wrong_field(
                    f"expert {expert.id!r} takes {expert.memory_gb:g} GB of the {room.memory_gb:g} "
                    "that experts on demand take turns in: state what it takes, and give it room",
                    ("experts", n, "memory_gb"),
                )
        return self

    @model_validator(mode="after")
    def _one_generalist(self) -> Config:
        shared = [expert for expert in self.computing if expert.shared]
        for other in shared[1:]:
            raise wrong_field(
                f"experts {shared[0].id!r} and {other.id!r} are both shared: one generalist takes "
                "part in every answer of several, so choose one",
                ("experts", self.experts.index(other), "shared"),
            )
        return self

    @property
    def computing(self) -> list[ExpertSection]:
        """The experts but those whose answers stand ready."""
        return [expert for expert in self.experts if not isinstance(expert, FreeSection)]

    def on_fleet(self, expert: ExpertSection) -> bool:
        """Whether an expert runs on the fleet; one with an address of its own never does."""
        return self.fleet is not None and not isinstance(expert, HttpSection)

    def is_local(self, expert: ExpertSection) -> bool:
        """Whether a prompt that goes to an expert stays on machines labelled local, or on this one.

        Its node says so, and without one that it runs in a process of this machine.
        """
        if expert.node is not None:
            return self.nodes[expert.node].local
        return not isinstance(expert, HttpSection) and not self.on_fleet(expert)

    def profile(self, device: str) -> DeviceProfile:
        """The profile of that name under ``devices``, else the shipped one."""
        own = self.devices.get(device)
        return (own or shipped_profiles()[device]).profile(device)

    def spec(self, expert: ExpertSection | FreeSection) -> ExpertSpec:
        """The noun that the deciding layers see."""
        if isinstance(expert, FreeSection):
            return free_spec(expert)
        return ExpertSpec(
            id=expert.id,
            profile=self.profile(expert.device),
            params_b=expert.params_b,
            context_tokens=expert.context_tokens,
            slots=expert.slots,
            answer_tokens=expert.answer_tokens,
            usd_per_mtok_in=expert.usd_per_mtok_in,
            usd_per_mtok_out=expert.usd_per_mtok_out,
            local=self.is_local(expert),
            shared=expert.shared,
            stream_usage=isinstance(expert, VllmSection)
            or (isinstance(expert, HttpSection) and expert.stream_usage),
            logprobs=not isinstance(expert, ReplaySection) and expert.logprobs,
            vocabulary=expert.vocabulary if isinstance(expert, EmbeddedSection) else None,
            capabilities=frozenset(expert.capabilities)
            if expert.capabilities is not None
            else OF_KIND[expert.kind],
            extras=frozenset(expert.extras),
        )

    @property
    def specs(self) -> dict[str, ExpertSpec]:
        """Every configured expert by id."""
        return {expert.id: self.spec(expert) for expert in self.experts}


def find_config(path: Path | None) -> Path:
    """``path`` if given, else ``$COE_CONFIG``, else ``./coe.yaml``, else the embedded default."""
    if path is not None:
        return path
    if named := os.environ.get("COE_CONFIG"):
        return Path(named)
    here = Path("coe.yaml")
    return here if here.exists() else DATA / "coe.yaml"


def load_config(path: Path) -> Config:
    """The configuration in ``path``, relative paths resolved against its folder.

    Raises
    ------
    ConfigError
        The file is absent, not YAML, or a field is wrong; every wrong field is named.
    """
    config = read_yaml(path, Config, never_blank=_KEEP_OUT)
    base = path.parent
    return config.model_copy(
        update={
            "artefact": base / config.artefact,
            "budgets": base / config.budgets,
            "plan": None if config.plan is None else base / config.plan,
            "metering": _resolved(config.metering, base),
            "store": config.store and config.store.beside(base),
            "shadow": config.shadow and config.shadow.beside(base),
            "access": config.access and config.access.beside(base),
            "gateway": _resolved(config.gateway, base),
            "experts": [_resolved(expert, base) for expert in config.experts],
            "retrieval": _resolved(config.retrieval, base),
            "tenants": {name: _resolved(one, base) for name, one in config.tenants.items()},
        }
    )


@cache
def shipped_profiles() -> Mapping[str, ShippedSection]:
    """The device profiles that ship with the package, by name, read once.

    Raises
    ------
    ConfigError
        The file is damaged.
    """
    return read_profiles(DATA / "devices.yaml")


def api_key(section: HttpSection | EndpointSection) -> str | None:
    """The key from the environment variable that a section names; ``None`` when it names none.

    Raises
    ------
    ConfigError
        The variable is not set, or holds what no request can carry.
    """
    if section.api_key_env is None:
        return None
    key = os.environ.get(section.api_key_env)
    owner = f"expert {section.id!r}" if isinstance(section, HttpSection) else "embedder"
    if not key:
        raise ConfigError(
            f"{owner}: environment variable {section.api_key_env} is not set: "
            "export it, or remove api_key_env"
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(
            f"{owner}: environment variable {section.api_key_env} holds no key: "
            "only letters, digits and signs of ASCII will do, on one line"
        )
    return key


def _resolved(section: Any, base: Path) -> Any:
    if isinstance(section, ReplaySection):
        return section.model_copy(update={"recording": base / section.recording})
    if isinstance(section, HttpSection) and section.ca is not None:
        return section.model_copy(update={"ca": base / section.ca})
    if isinstance(section, VllmSection):
        folder = base / section.weights
        weights = str(folder) if folder.is_dir() else section.weights
        python = None if section.python is None else base / section.python
        return section.model_copy(update={"weights": weights, "python": python})
    if isinstance(section, GatewaySection):
        return section.model_copy(update={"tls": section.tls and section.tls.beside(base)})
    if isinstance(section, MeteringSection):
        return section.model_copy(update={"sysfs": base / section.sysfs})
    if isinstance(section, TenantSection) and section.gate is not None:
        return section.model_copy(update={"gate": base / section.gate})
    if isinstance(section, RetrievalSection):
        return section.model_copy(update={"index": base / section.index})
    return section
